"""Writing what must last: beside first, synced, then renamed. What bears its final name is whole, even after a power cut."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from .errors import DiskError, DreamboothError, UsageError

SMALL_FILES = 32 * 2**20  # bytes for what is not counted: prepared photos, samples, events, a tokenizer


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader never meets half of it. Raises OSError."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(content)
        settle(part, path)
    finally:
        part.unlink(missing_ok=True)


def settle(part: Path, final: Path) -> None:
    """Let a file or folder that was written beside take its final name, and have the disk keep both. Raises OSError."""
    sync_all(part)
    part.replace(final)
    sync(final.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole."""
    write_whole(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and have the disk keep the names. Raises OSError."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync_all(path: Path) -> None:
    """Have the disk keep a file, or a folder with all that is in it."""
    for inner in path.rglob("*"):
        if not inner.is_symlink() and (inner.is_file() or inner.is_dir()):
            sync(inner)
    sync(path)


# What file systems say that know no fsync of a folder, or none at all.
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
NO_SYNC_OF_FOLDERS = NO_SYNC | {errno.EBADF, errno.EPERM, errno.EACCES, errno.EISDIR, errno.ENOTTY, errno.EROFS}


def sync(path: Path) -> None:
    """fsync one file or folder. Where the system or the file system knows no such thing, that is left out; a disk that fails
    is an error. Raises OSError that names the path."""
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


def check_space(wanted: Iterable[tuple[Path, int]]) -> None:
    """Hold the bytes that will be written to each folder against what is free; folders on one disk are added up.

    Raises DiskError that says how many bytes are missing.
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
                f"the run will write up to {needed[disk] / 1e9:.2f} GB to the disk of {place}, and {free / 1e9:.2f} GB are free: "
                f"{needed[disk] - free:,} bytes are missing",
                "make room on that disk, or write less: --keep-checkpoints 1, --save-dtype fp16, --method lora",
            )


def check_folder(folder: Path, hint: str) -> Path:
    """The real path of a folder in which something will be written, later. Raises UsageError now, where it can't be."""
    real = Path(os.path.realpath(folder))
    try:
        if real.exists() and not real.is_dir():
            raise UsageError(f"{folder} is a file, not a folder", hint)
        standing = standing_part(real)
        if not standing.is_dir():
            raise UsageError(f"{folder} can't be written: {standing} is a file", hint)
        if not os.access(standing, os.W_OK | os.X_OK):
            raise UsageError(f"{folder} can't be written: {standing} does not allow it", hint)
        with TemporaryFile(dir=standing, prefix=".dreambooth-"):
            pass  # some places deny it for all that their mode says
    except OSError as error:
        raise UsageError(f"{folder} can't be written: {error.strerror or error}", hint) from error
    return real


def standing_part(path: Path) -> Path:
    """A path, or the nearest folder above it that is there."""
    return next(part for part in (path, *path.parents) if part.exists())


def is_running(process: int) -> bool:
    """Whether a process that wrote beside is still there, and what it wrote is still its own."""
    import psutil

    return bool(psutil.pid_exists(process))


def bytes_in(folder: Path) -> int:
    """What a folder's files take up."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# What is of one kind, whatever was done.
ANYWHERE: dict[int, type[DreamboothError]] = {errno.ENOSPC: DiskError, errno.EDQUOT: DiskError, errno.ENAMETOOLONG: UsageError}


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """What the system refuses of what is written to a file or folder, in words. Raises DiskError."""
    with system_errors(DiskError, f"can't write {target}", target, "check the folder and who may write there"):
        yield


@contextmanager
def system_errors(
    kind: type[DreamboothError], what: str, target: Path, hint: str = "check that it is there and who may read it"
) -> Iterator[None]:
    """What the system refuses, in words: `what`, the file where it is not `target` itself, why, and what to do. Raises `kind`;
    whatever was done, DiskError for a full disk and UsageError for a name that is too long."""
    try:
        yield
    except OSError as error:
        file = file_of(error) or str(target)
        where = "" if file == str(target) or file.startswith(f"{target}.") else f"{file}: "  # what lies beside is ours
        told = ANYWHERE.get(error.errno or 0, kind)
        raise told(f"{what}: {where}{reason_of(error)}", ADVICE.get(error.errno or 0, hint)) from error


def file_of(error: OSError) -> str | None:
    """The file that the system refused, or None where it does not say; of two (a rename) `this -> that`."""
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
    errno.EROFS: "that disk can only be read: name another place, or have it mounted for writing",
    errno.EFBIG: "a limit forbids files of this size: see `ulimit -f`, or name a place on another disk",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), then run this again",
    errno.ENFILE: "close other programs, then run this again",
    errno.EIO: "look after that disk or its connection, then run this again",
    errno.ESTALE: "have that network disk mounted anew, then run this again",
    errno.ELOOP: "mend the links there: they lead round in a circle",
    errno.EXDEV: "name a place on the same disk",
    errno.ENAMETOOLONG: "choose a shorter name",
}

