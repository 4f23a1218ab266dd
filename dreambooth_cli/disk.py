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

from .errors import DiskError, UsageError

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


def sync(path: Path) -> None:
    """fsync one file or folder; where the system can't sync a folder (Windows), that is left out."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """What the disk refuses, in words. Raises DiskError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "make room on that disk, then run this again" if full else "check the folder and who may write there"
        raise DiskError(f"can't write {target}: {error.strerror or error}", hint) from error
