"""Locks on folders that processes share, and what is done where a file system knows none."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from . import stopping
from .disk import disk_errors, make_folder

# What flock says where the file system knows no locks. filelock's own way round, a marker file, outlives a killed process.
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK}


def acquire(lock: filelock.BaseFileLock) -> str:
    """Take a lock; "", or what speaks against it where the file system knows none. Raises filelock.Timeout, OSError."""
    try:
        lock.acquire()
    except filelock.Timeout:
        raise
    except OSError as error:
        if error.errno in NO_LOCKS and error.filename is None:
            return f"the disk of {lock.lock_file} knows no locks ({error.strerror}): see to it that no two runs work there at once"
        raise OSError(error.errno, error.strerror, error.filename or lock.lock_file) from error
    return ""


def release(lock: filelock.BaseFileLock) -> None:
    """Let a lock go; what the system refuses now is over when the process ends."""
    with suppress(OSError):
        lock.release()


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Wait for, then hold, a folder of the cache that projects share; where its file system knows no locks, go on without: what
    is made there is written whole. Raises Interrupted where a signal comes meanwhile, DiskError."""
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
    """Whether another run holds a folder of the cache just now."""
    try:
        if not (folder / ".lock").exists():
            return False
        with filelock.FileLock(folder / ".lock", blocking=False, fallback_to_soft=False):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False  # `hold` says it
