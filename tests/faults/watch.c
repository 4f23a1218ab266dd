/* Stops the process before each change that it makes to files under one folder, tells the parent, and waits for its word.

   Loaded with LD_PRELOAD; asleep until `watch_begin` is called. One line for each change: the operation and its paths, \x1f
   between them. The parent answers one byte: 0 where the change may be made, else the errno that it fails with; or it kills the
   process instead. A lock is told as well: it may fail like a change. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int to_parent = -1, from_parent = -1;
static char root[PATH_MAX];
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real_of(#name))

static void *real_of(const char *name) { return dlsym(RTLD_NEXT, name); }

void watch_begin(int out, int in, const char *folder) {
    strncpy(root, folder, sizeof root - 1);
    from_parent = in;
    to_parent = out;
}

/* The path that a file descriptor or a name relative to one stands for; 0 where it is not under the root. */
static int resolve(int at, const char *name, char *path) {
    char link[64], base[PATH_MAX];
    ssize_t length = 0;
    if (name && name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
    } else {
        snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        length = readlink(link, base, sizeof base - 1);
        if (length < 0) return 0;
        base[length] = 0;
        if (name) snprintf(path, PATH_MAX, "%.2000s/%.2000s", base, name);
        else snprintf(path, PATH_MAX, "%s", base);
    }
    length = strlen(root);
    return strncmp(path, root, length) == 0 && (path[length] == '/' || !path[length]);
}

static int is_watched(int at, const char *name, char *path) {
    return to_parent >= 0 && resolve(at, name, path);
}

/* Tell the parent, wait for its word, and keep other threads out until `done`. Returns the errno to fail with, or 0. */
static int ask(const char *operation, const char *first, const char *second) {
    char line[3 * PATH_MAX];
    unsigned char word;
    int length = snprintf(line, sizeof line, "%s\x1f%s\x1f%s\n", operation, first, second ? second : "");
    pthread_mutex_lock(&one_at_a_time);
    if (REAL(write)(to_parent, line, length) != length || read(from_parent, &word, 1) != 1) _exit(99);
    return word;
}

static void done(void) {
    int kept = errno;
    pthread_mutex_unlock(&one_at_a_time);
    errno = kept;
}

#define WATCHED(operation, at, name, call)                \
    do {                                                  \
        char path[PATH_MAX];                              \
        if (!is_watched(at, name, path)) return call;     \
        int refused = ask(operation, path, NULL);         \
        __typeof__(call) result = refused ? -1 : call;    \
        if (refused) errno = refused;                     \
        done();                                           \
        return result;                                    \
    } while (0)

#define WATCHED_PAIR(operation, at, name, to_at, to_name, call)                                     \
    do {                                                                                            \
        char path[PATH_MAX], other[PATH_MAX];                                                       \
        if (!is_watched(at, name, path) | !is_watched(to_at, to_name, other)) return call;          \
        int refused = ask(operation, path, other);                                                  \
        __typeof__(call) result = refused ? -1 : call;                                              \
        if (refused) errno = refused;                                                               \
        done();                                                                                     \
        return result;                                                                              \
    } while (0)

ssize_t write(int fd, const void *data, size_t size) { WATCHED("write", fd, NULL, REAL(write)(fd, data, size)); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { WATCHED("write", fd, NULL, REAL(pwrite)(fd, data, size, at)); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { WATCHED("write", fd, NULL, REAL(pwrite64)(fd, data, size, at)); }
ssize_t writev(int fd, const struct iovec *parts, int count) { WATCHED("write", fd, NULL, REAL(writev)(fd, parts, count)); }
ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t size, unsigned flags) {
    WATCHED("write", out, NULL, REAL(copy_file_range)(in, from, out, to, size, flags));
}
ssize_t sendfile(int out, int in, off_t *from, size_t size);
ssize_t sendfile(int out, int in, off_t *from, size_t size) { WATCHED("write", out, NULL, REAL(sendfile)(out, in, from, size)); }
ssize_t sendfile64(int out, int in, off_t *from, size_t size);
ssize_t sendfile64(int out, int in, off_t *from, size_t size) { WATCHED("write", out, NULL, REAL(sendfile64)(out, in, from, size)); }
int ftruncate(int fd, off_t size) { WATCHED("truncate", fd, NULL, REAL(ftruncate)(fd, size)); }
int ftruncate64(int fd, off_t size) { WATCHED("truncate", fd, NULL, REAL(ftruncate64)(fd, size)); }
int fsync(int fd) { WATCHED("fsync", fd, NULL, REAL(fsync)(fd)); }
int fdatasync(int fd) { WATCHED("fsync", fd, NULL, REAL(fdatasync)(fd)); }
int flock(int fd, int operation) { WATCHED("lock", fd, NULL, REAL(flock)(fd, operation)); }
int unlink(const char *name) { WATCHED("unlink", AT_FDCWD, name, REAL(unlink)(name)); }
int unlinkat(int at, const char *name, int flags) { WATCHED("unlink", at, name, REAL(unlinkat)(at, name, flags)); }
int rmdir(const char *name) { WATCHED("unlink", AT_FDCWD, name, REAL(rmdir)(name)); }
int mkdir(const char *name, mode_t mode) { WATCHED("mkdir", AT_FDCWD, name, REAL(mkdir)(name, mode)); }
int mkdirat(int at, const char *name, mode_t mode) { WATCHED("mkdir", at, name, REAL(mkdirat)(at, name, mode)); }
int rename(const char *name, const char *to) { WATCHED_PAIR("rename", AT_FDCWD, name, AT_FDCWD, to, REAL(rename)(name, to)); }
int renameat(int at, const char *name, int to_at, const char *to) {
    WATCHED_PAIR("rename", at, name, to_at, to, REAL(renameat)(at, name, to_at, to));
}
int link(const char *name, const char *to) { WATCHED_PAIR("link", AT_FDCWD, name, AT_FDCWD, to, REAL(link)(name, to)); }
int linkat(int at, const char *name, int to_at, const char *to, int flags) {
    WATCHED_PAIR("link", at, name, to_at, to, REAL(linkat)(at, name, to_at, to, flags));
}
int symlink(const char *aim, const char *name) { WATCHED("symlink", AT_FDCWD, name, REAL(symlink)(aim, name)); }

/* Opening changes something where it makes or empties a file. */
#define OPENED(at, name, flags, call)                                                 \
    do {                                                                              \
        va_list rest;                                                                 \
        mode_t mode = 0;                                                              \
        if (flags & (O_CREAT | O_TMPFILE)) {                                          \
            va_start(rest, flags);                                                    \
            mode = va_arg(rest, mode_t);                                              \
            va_end(rest);                                                             \
        }                                                                             \
        if (!(flags & (O_CREAT | O_TRUNC))) return call;                              \
        WATCHED("open", at, name, call);                                              \
    } while (0)

int open(const char *name, int flags, ...) { OPENED(AT_FDCWD, name, flags, REAL(open)(name, flags, mode)); }
int open64(const char *name, int flags, ...) { OPENED(AT_FDCWD, name, flags, REAL(open64)(name, flags, mode)); }
int openat(int at, const char *name, int flags, ...) { OPENED(at, name, flags, REAL(openat)(at, name, flags, mode)); }
int openat64(int at, const char *name, int flags, ...) { OPENED(at, name, flags, REAL(openat64)(at, name, flags, mode)); }
