"""sha256 of large files, computed once and remembered in the cache; computed again if anything suggests a change.

An entry is found by the file's path, device, inode, size and both its times. Its mtime can be set to anything, its ctime is the
system's own: a file that was replaced or written to has another, whatever its size and mtime say. One that changed less than two
seconds before it was read is not remembered: some file systems count in seconds. Each entry holds a hash of itself; one that is
empty, damaged or another file's is not believed.

What remains: on Windows st_ctime is the time of creation, so there a file that is overwritten in place, its size and mtime kept, is not
noticed; nor anywhere what is written to a disk behind its file system's back, or after the machine's clock was set back.
"""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from .disk import make_folder, write_whole
from .paths import cache_folder

SETTLED = 2 * 10**9  # ns; the coarsest clock of a file system, FAT's


def remembered_digest(file: Path) -> str:
    """sha256 of a file, in hex. Raises OSError."""
    state = file.stat()
    key = _key(file, state)
    if (kept := _recall(key)) is not None:
        return kept
    began = time.time_ns()
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        is_same = _key(file, os.fstat(opened.fileno())) == key
    changed = state.st_mtime_ns if os.name == "nt" else state.st_ctime_ns
    if is_same and began - changed > SETTLED:
        _remember(key, digest)
    return digest


def _key(file: Path, state: os.stat_result) -> str:
    marks = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return hashlib.sha256(f"{os.fsencode(file.resolve())!r}\0{marks}".encode()).hexdigest()


def _entry(key: str) -> Path:
    return cache_folder() / "digests" / key


def _line(key: str, digest: str) -> bytes:
    return f"{digest} {hashlib.sha256(f'{key} {digest}'.encode()).hexdigest()}\n".encode()


def _recall(key: str) -> str | None:
    """The digest in an entry, or None if it is missing or damaged."""
    try:
        with _entry(key).open("rb") as opened:
            held = opened.read(200)
    except OSError:
        return None
    digest = held[:64].decode("ascii", errors="replace")
    return digest if held == _line(key, digest) else None


def _remember(key: str, digest: str) -> None:
    with suppress(OSError):  # a cache that can't be written costs time, nothing else
        make_folder(_entry(key).parent)
        write_whole(_entry(key), _line(key, digest))
