"""A local base's identity: a hash of the files that are read of it."""

import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path

from ..digests import remembered_digest
from ..errors import ModelUnavailable
from .folder import TOKENIZER_FILES, files_read
from .metadata import MOST_JSON, REFETCH, read_header

MOST_VOCABULARY = 32_000_000  # bytes of a tokenizer's file; CLIP's have 2


def identify(path: Path) -> str:
    """`sha256:...` over the files that are read of a local base, wherever it lies, whatever its folder is called and what else lies
    there. Raises OSError, ModelUnavailable."""
    files = [path] if path.is_file() else files_read(path)
    check_lengths(files)
    return f"sha256:{remembered_digest(path)}" if path.is_file() else identify_files(path, files)


def identify_files(folder: Path, files: Iterable[Path]) -> str:
    """`sha256:...` over some files of a folder, by their names within it and their content. Raises OSError."""
    lines = [f"{file.relative_to(folder).as_posix()}\0{remembered_digest(file)}\n" for file in sorted(files)]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def check_lengths(files: Iterable[Path]) -> None:
    """Hold the lengths of a base's files against what they can be, before their content is read: one may have a hole of terabytes.

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
    """The bytes of a safetensors file by its header; None where it has none that says so."""
    try:
        ends = [entry["data_offsets"][1] for name, entry in read_header(file).items() if name != "__metadata__"]
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
        return 8 + int(length) + int(max(ends, default=0))
    except (ModelUnavailable, LookupError, TypeError, ValueError):
        return None  # told where it is loaded
