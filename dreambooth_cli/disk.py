"""Writing what must last: under a temporary name first, synced, then renamed. A file with its final name is whole, even after a power
cut."""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from .errors import DiskError, DreamboothError, UsageError

CHUNK = 2**30  # bytes copied by one call
SMALL_FILES = 32 * 2**20  # bytes allowed for what is not counted: prepared photos, samples, events, a tokenizer


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader never meets half of it. Raises OSError."""
    with temporary(path.parent) as part:
        part.write_bytes(content)
        settle(part, path)


# How our temporary files are recognised: `.dreambooth-` and a uuid, the lock beside it, and a folder that was moved aside for it.
OURS = ".dreambooth-"
TRIES = 20  # names, each of which another process may have taken for a leftover
OUR_NAME = re.compile(rf"({re.escape(OURS)}[0-9a-f]{{32}})(?:\.lock|\.was-(.+))?", re.DOTALL)


@contextmanager
def temporary(folder: Path) -> Iterator[Path]:
    """A temporary name in a folder, for something that is written there before it takes its final name; whatever still has this name at
    the end is removed.

    Meanwhile a lock beside it tells every process on this file system, in whatever container, that its maker is alive. On a file
    system without locks nobody can tell, so what a killed process leaves there stays. Raises OSError.
    """
    path, lock = _take_name(folder)
    try:
        yield path
    finally:
        with suppress(OSError):
            remove(path)
        with suppress(OSError):  # or another process that is clearing up has it
            lock.release()
            _lock_of(path).unlink()


def _take_name(folder: Path) -> tuple[Path, filelock.BaseFileLock]:
    """A free name, and its lock, which is held. Raises OSError."""
    for _ in range(TRIES):
        path = folder / f"{OURS}{uuid.uuid4().hex}"
        lock = filelock.FileLock(_lock_of(path), blocking=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except filelock.Timeout:
            # another process held it for a moment while clearing up; or it can't be created here (/proc): then this raises
            _lock_of(path).touch()
            _lock_of(path).unlink(missing_ok=True)
            continue
        except (OSError, NotImplementedError):
            _lock_of(path).touch()  # no locks here; if no files either, this raises
            return path, lock
        if _lock_of(path).exists():  # not removed by another process before it was locked
            return path, lock
        lock.release()
    raise OSError(errno.EBUSY, "no name can be taken", str(folder))


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def replace_folder(part: Path, final: Path) -> None:
    """`settle` for a `temporary` folder that may replace an older one, which is removed. Raises OSError.

    If the process is killed between the two renames, `clear_leftovers` puts the old one back.
    """
    _clear_within(part)
    sync_all(part)
    was = part.with_name(f"{part.name}.was-{final.name}")
    if final.is_dir():
        final.rename(was)
    try:
        part.replace(final)
    except OSError:
        _put_back(was, final)
        raise
    sync(final.parent)
    shutil.rmtree(was, ignore_errors=True)


def _put_back(was: Path, final: Path) -> None:
    if was.is_dir() and not os.path.lexists(final):
        was.rename(final)


def clear_leftovers(folder: Path, old: str = "") -> None:
    """Remove what killed processes left under `temporary` names, and put back what they had only moved aside.

    Whatever a living process holds, or whose lock can't be taken, stays, and so does what can't be removed. `old` matches names that
    0.1 left, for folders into which nobody else writes.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return
    matches = [match for match in map(OUR_NAME.fullmatch, names) if match]
    moved = {match[1]: match[2] for match in matches if match[2]}
    for name in {match[1] for match in matches}:
        with suppress(OSError):
            _clear(folder / name, moved.get(name))
    for name in names:
        if old and re.fullmatch(old, name):
            with suppress(OSError):
                remove(folder / name)


def _clear_within(part: Path) -> None:
    """Remove our leftovers inside a temporary folder, such as a lock that could not be removed at the time: under the folder's final name
    nobody would look for them, and they would travel with it."""
    if part.is_dir():
        for folder in (part, *(inner for inner in part.rglob("*") if inner.is_dir() and not inner.is_symlink())):
            clear_leftovers(folder)


def _clear(path: Path, moved: str | None) -> None:
    """Remove a leftover whose lock can be taken or is gone; `moved`: the name of the folder that was moved aside for it."""
    lock = filelock.FileLock(_lock_of(path), blocking=False, fallback_to_soft=False)
    if _lock_of(path).exists():
        try:
            lock.acquire()
        except (OSError, NotImplementedError):  # held, or no locks here
            return
    try:
        if moved:
            was = path.with_name(f"{path.name}.was-{moved}")
            _put_back(was, path.with_name(moved))
            remove(was)
        remove(path)
    finally:
        lock.release()
    _lock_of(path).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with everything in it, if it is there. Raises OSError, which names the very file by its full
    path."""
    if path.is_dir() and not path.is_symlink():
        _remove_folder(path)
    elif os.path.lexists(path):
        path.unlink()


def settle(part: Path, final: Path) -> None:
    """Sync a file or folder that was written under a temporary name, and give it its final name. Raises OSError."""
    _clear_within(part)
    sync_all(part)
    part.replace(final)
    sync(final.parent)


def read_text(path: Path) -> str:
    """The text of a file. Raises OSError, also for a FIFO or a device, which might never end; UnicodeDecodeError."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    return path.read_text(encoding="utf-8-sig")


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole."""
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Make a folder and its parents, and sync their names to the disk; `mode`, less the umask, is for the last one. Raises OSError."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(mode, exist_ok=True)
        sync(folder.parent)


def _remove_folder(folder: Path) -> None:
    def refuse(function: Any, path: str, error: BaseException) -> None:
        number, why = (error.errno, error.strerror) if isinstance(error, OSError) else (None, str(error))
        raise OSError(number, why, path) from error

    if sys.version_info >= (3, 12):
        shutil.rmtree(folder, onexc=refuse)
    else:
        shutil.rmtree(folder, onerror=lambda function, path, info: refuse(function, path, info[1]))


def sync_all(path: Path) -> None:
    """Sync a file, or a folder with everything in it, to the disk."""
    for inner in path.rglob("*"):
        if not inner.is_symlink() and (inner.is_file() or inner.is_dir()):
            sync(inner)
    sync(path)


# Errors of file systems that can't fsync folders, or anything.
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
NO_SYNC_OF_FOLDERS = NO_SYNC | {errno.EBADF, errno.EPERM, errno.EACCES, errno.EISDIR, errno.ENOTTY, errno.EROFS}


def sync(path: Path) -> None:
    """fsync one file or folder; skipped where the system or the file system can't do that. Raises OSError, which names the path, if the
    disk fails."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (NO_SYNC_OF_FOLDERS if is_folder else NO_SYNC):
            raise OSError(error.errno, error.strerror, str(path)) from error


def sha256_of(file: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digests_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The files of a folder, without those under a `temporary` name: relative name -> bytes and sha256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not OUR_NAME.fullmatch(path.name))
    return {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files
    }


def is_intact(file: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a file is there with these bytes and this sha256."""
    return file.is_file() and file.stat().st_size == entry["bytes"] and sha256_of(file) == entry["sha256"]


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, not its permissions. On btrfs, XFS and the like, both share their blocks until one is changed. Raises
    OSError."""
    with source.open("rb") as read, target.open("xb") as written:
        if hasattr(os, "copy_file_range"):
            with suppress(OSError):  # not possible between these file systems: the rest is copied
                while os.copy_file_range(read.fileno(), written.fileno(), CHUNK):
                    pass
        shutil.copyfileobj(read, written, 2**20)


def reserve(path: Path, size: int) -> None:
    """Make a file that takes up `size` bytes of its disk without writing them, where the system can do that. Raises OSError, before taking
    any, if there is not enough room: filling a disk, even for a moment, would make other programs' writes fail."""
    with path.open("xb") as file:
        if size > shutil.disk_usage(path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if hasattr(os, "posix_fallocate"):  # macOS and Windows have no such call
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):  # file systems that can't do it
                    raise


def check_space(wanted: Iterable[tuple[Path, int]]) -> None:
    """Check the bytes that will be written to each folder against what is free; folders on the same disk are added up.

    Raises DiskError, which says how much more room is needed.
    """
    needed: dict[int, int] = {}
    places: dict[int, Path] = {}
    for folder, count in wanted:
        standing = standing_part(folder)
        disk = standing.stat().st_dev
        needed[disk] = needed.get(disk, SMALL_FILES) + max(0, count)
        places.setdefault(disk, standing)
    for disk, place in places.items():
        free = shutil.disk_usage(place).free
        if needed[disk] > free:
            raise DiskError(
                f"the run will write up to {needed[disk] / 1e9:.2f} GB to the disk of {place}, but only {free / 1e9:.2f} GB are free: "
                f"{needed[disk] - free:,} more bytes are needed",
                "make room on that disk, or write less: --keep-checkpoints 1, --save-dtype fp16, --method lora",
            )


# Files that file managers, disks and git put into a folder by themselves: it still counts as empty.
OF_THE_SYSTEM = frozenset(
    (".DS_Store", ".localized", "Thumbs.db", "desktop.ini", "@eaDir", "lost+found", "System Volume Information", ".gitkeep", ".keep")
)


def holds_something(folder: Path) -> bool:
    """Whether a folder contains anything that somebody put there. Raises OSError."""
    return not all(is_of_the_system(name) for name in os.listdir(folder))


def is_of_the_system(name: str) -> bool:
    """Whether a name in a folder is one that the system puts there, such as macOS's `._*`."""
    return name in OF_THE_SYSTEM or name.startswith("._")


def begins_as(path: Path, whole: Path) -> bool:
    """Whether a file's content is the beginning of another file's."""
    if not path.is_file() or not whole.is_file():
        return False
    with path.open("rb") as part, whole.open("rb") as file:
        while chunk := part.read(2**20):
            if chunk != file.read(len(chunk)):
                return False
    return True


def check_folder(folder: Path, hint: str) -> Path:
    """The real path of a folder that something will be written to later. Raises UsageError now if that is not possible."""
    real = Path(os.path.realpath(folder))
    try:
        if real.is_symlink():  # still a link after following links: it leads nowhere
            raise UsageError(f"{folder} is a link that leads nowhere", hint)
        if real.exists() and not real.is_dir():
            raise UsageError(f"{folder} is a file, not a folder", hint)
        standing = standing_part(real)
        if not standing.is_dir():
            raise UsageError(f"{folder} can't be written: {standing} is a file", hint)
        if not os.access(standing, os.W_OK | os.X_OK):
            raise UsageError(f"{folder} can't be written: {standing} does not allow it", hint)
        clear_leftovers(standing)  # a killed process may have left what it looked with, and nobody else looks here
        with temporary(standing) as part:
            part.touch()  # some places refuse, whatever their mode says
    except OSError as error:
        raise UsageError(f"{folder} can't be written: {error.strerror or error}", hint) from error
    return real


def standing_part(path: Path) -> Path:
    """A path, or the nearest folder above it that exists."""
    return next(part for part in (path, *path.parents) if part.exists())


def bytes_in(folder: Path) -> int:
    """The size of a folder's files, in bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# Errors that are always of one kind, whatever was being done.
ANYWHERE: dict[int, type[DreamboothError]] = {errno.ENOSPC: DiskError, errno.EDQUOT: DiskError, errno.ENAMETOOLONG: UsageError}


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn the system's errors while writing to a file or folder into words. Raises DiskError."""
    with system_errors(DiskError, f"can't write {target}", target, "check the folder and who may write there"):
        yield


@contextmanager
def system_errors(
    kind: type[DreamboothError], what: str, target: Path, hint: str = "check that it exists and that you may read it"
) -> Iterator[None]:
    """Turn the system's errors into words: `what`, the file if it is not `target` itself, why, and what to do. Raises `kind`, but always
    DiskError for a full disk and UsageError for a name that is too long."""
    try:
        yield
    except OSError as error:
        file = file_of(error) or str(target)
        is_ours = Path(file.partition(" -> ")[0]).name.startswith(OURS)  # a temporary name says nothing
        where = "" if file == str(target) or is_ours else f"{file}: "
        told = ANYWHERE.get(error.errno or 0, kind)
        raise told(f"{what}: {where}{reason_of(error)}", ADVICE.get(error.errno or 0, hint)) from error


def file_of(error: OSError) -> str | None:
    """The file that an error is about, None if it does not say; for two (a rename) `this -> that`."""
    names = [error.filename, error.filename2] if isinstance(error.filename, str | bytes | os.PathLike) else []
    return " -> ".join(os.fsdecode(name) for name in names if name is not None) or None


def reason_of(error: OSError) -> str:
    """What the system said: `Permission denied`."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        _, target, why = error.args[0][0]
        return f"{target}: {str(why).partition('] ')[2] or why}"
    return error.strerror or str(error) or type(error).__name__


ADVICE = {
    errno.ENOSPC: "make room on that disk, then run this again",
    errno.EDQUOT: "make room on that disk, then run this again",
    errno.EROFS: "that disk is read-only: name another place, or mount it for writing",
    errno.EFBIG: "a limit forbids files of this size: see `ulimit -f`, or name a place on another disk",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), then run this again",
    errno.ENFILE: "close other programs, then run this again",
    errno.EIO: "check that disk or its connection, then run this again",
    errno.ESTALE: "mount that network disk again, then run this again",
    errno.ELOOP: "fix the links there: they lead round in a circle",
    errno.EXDEV: "name a place on the same disk",
    errno.ENAMETOOLONG: "choose a shorter name",
}

