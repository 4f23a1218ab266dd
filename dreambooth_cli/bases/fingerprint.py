"""A local base's identity: a hash of those of its files that are read."""

import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path

from ..digests import remembered_digest
from ..errors import ModelUnavailable
from .folder import TOKENIZER_FILES, files_read
from .metadata import MOST_JSON, REFETCH, read_header

MOST_VOCABULARY = 32_000_000  # bytes of a tokenizer's file; CLIP's have 2 million


def identify(path: Path) -> str:
    """`sha256:...` over those of a local base's files that are read, independent of where it is, what its folder is called and what else
    is there. Raises OSError, ModelUnavailable."""
    files = [path] if path.is_file() else files_read(path)
    check_lengths(files)
    return f"sha256:{remembered_digest(path)}" if path.is_file() else identify_files(path, files)


def identify_files(folder: Path, files: Iterable[Path]) -> str:
    """`sha256:...` over files in a folder: their paths within it and their content. Raises OSError."""
    lines = [f"{file.relative_to(folder).as_posix()}\0{remembered_digest(file)}\n" for file in sorted(files)]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def check_lengths(files: Iterable[Path]) -> None:
    """Check that the lengths of a base's files are possible before their content is read: a sparse file may claim terabytes.

    Raises OSError, ModelUnavailable.
    """
    for file in files:
        size = file.stat().st_size
        if file.suffix in (".json", ".txt"):
            if size > (MOST_VOCABULARY if file.name in TOKENIZER_FILES else MOST_JSON):
                raise ModelUnavailable(f"{file} has {size:,} bytes, more than any real one", REFETCH)
        elif (told := _length_told(file)) not in (None, size):
            raise ModelUnavailable(f"{file} has {size:,} bytes, but {told:,} by its header", "fetch it again")


def _length_told(file: Path) -> int | None:
    """The length in bytes of a safetensors file according to its header; None if that does not say."""
    try:
        ends = [entry["data_offsets"][1] for name, entry in read_header(file).items() if name != "__metadata__"]
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
        return 8 + int(length) + int(max(ends, default=0))
    except (ModelUnavailable, LookupError, TypeError, ValueError):
        return None  # the error is raised when it is loaded
