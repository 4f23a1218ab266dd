"""Locks on folders that processes share, and what happens on file systems without locks."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from . import stopping
from .disk import disk_errors, make_folder

# What flock says on a file system without locks. filelock's own workaround, a marker file, would outlive a killed process.
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK}


def acquire(lock: filelock.BaseFileLock) -> str:
    """Take a lock. Returns "", or a warning if the file system has no locks. Raises filelock.Timeout, OSError."""
    try:
        lock.acquire()
    except filelock.Timeout:
        raise
    except OSError as error:
        if error.errno in NO_LOCKS and error.filename is None:
            return f"the disk of {lock.lock_file} does not support file locks ({error.strerror}): make sure that only one run works there"
        raise OSError(error.errno, error.strerror, error.filename or lock.lock_file) from error
    return ""


def release(lock: filelock.BaseFileLock) -> None:
    """Release a lock; if the system refuses, the lock ends with the process."""
    with suppress(OSError):
        lock.release()


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Wait for a folder of the cache that projects share, then hold it; on a file system without locks, go on without, since files are
    always written whole. Raises Interrupted if a signal comes meanwhile, DiskError."""
    lock = filelock.FileLock(folder / ".lock", timeout=0.5, fallback_to_soft=False)
    with disk_errors(folder):
        make_folder(folder)
        while True:
            stopping.check()
            try:
                acquire(lock)
                break
            except filelock.Timeout:
                continue
    try:
        yield
    finally:
        release(lock)


def is_held(folder: Path) -> bool:
    """Whether another run holds a folder of the cache at the moment."""
    try:
        if not (folder / ".lock").exists():
            return False
        with filelock.FileLock(folder / ".lock", blocking=False, fallback_to_soft=False):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False  # `hold` reports it
