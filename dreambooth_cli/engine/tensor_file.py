"""A safetensors file, one tensor at a time: written and read with no more memory than its largest tensor takes.

The safetensors library's own writer needs every tensor of a file in the machine's memory at once, in the number format that it is saved
in; for the state of a large model that is more than the run itself takes there. The format: 8 bytes with the header's length, the header
as JSON (name -> dtype, shape, offsets), then the tensors one after the other. What is written here equals the library's file to the byte.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..disk import reserve
from ..machine import page_out

WORDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {word: dtype for dtype, word in WORDS.items()}
# The library's order: wide values first, so that every tensor starts at an aligned offset.
ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")
ALIGNED = 8  # bytes: the header is padded with spaces to a multiple of this
TOGETHER = 1 << 20  # bytes: smaller tensors are written to disk together with their neighbours


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
    at_most: int | None = None,
) -> str:
    """Write tensors, on whatever device they are, to a new file; floating-point ones in `dtype`, if one is given. Returns the SHA-256 of
    the bytes written, in hexadecimal.

    `at_most` is for a rehearsal: of a file of more bytes only some tensors are written, and a second file, `<name>.room`, takes up the
    space of the others.

    Raises OSError, or KeyError for a number format that safetensors has no name for.
    """
    if at_most is not None and (whole := size_of(tensors, dtype)) > at_most:
        tensors, room = some_of(tensors, at_most, dtype), path.with_name(f"{path.name}.room")
        reserve(room, whole)  # all of it first: the size of one file may be limited too
        os.truncate(room, whole - size_of(tensors, dtype))
    outline = {name: torch.empty(value.shape, dtype=format_of(value, dtype), device="meta") for name, value in tensors.items()}
    return write_stream(path, outline, lambda name: tensors[name].detach(), metadata)


def write_stream(
    path: Path, outline: Mapping[str, Tensor], read: Callable[[str], Tensor], metadata: Mapping[str, str] | None = None
) -> str:
    """Write a new file of tensors that `read` makes when their turn comes. `outline` gives each one's shape and number format (its tensors
    may be on the meta device); tensors of one format are asked for in the order of their names. Returns the SHA-256 of the file, in
    hexadecimal.

    Raises OSError, or KeyError for a number format that safetensors has no name for.
    """
    names = sorted(outline, key=lambda name: (ORDER.index(WORDS[outline[name].dtype]), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        start, end = end, end + outline[name].numel() * outline[name].dtype.itemsize
        header[name] = {"dtype": WORDS[outline[name].dtype], "shape": list(outline[name].shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    digest = hashlib.sha256()
    with path.open("xb", buffering=TOGETHER) as file:

        def put(piece: bytes | memoryview) -> None:  # a function, so that a tensor's bytes are freed before the next one is made
            file.write(piece)
            digest.update(piece)

        put(struct.pack("<Q", len(text)) + text)
        for name in names:
            put(bytes_of(read(name).to("cpu", outline[name].dtype)))
    return digest.hexdigest()


def format_of(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The number format that a tensor is written in."""
    return dtype if dtype and tensor.is_floating_point() else tensor.dtype


def size_of(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> int:
    """The bytes that tensors take in a file."""
    return sum(value.numel() * format_of(value, dtype).itemsize for value in tensors.values())


def some_of(tensors: Mapping[str, Tensor], at_most: int, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The largest tensor, the smallest one of each number format and number of axes, then others as long as they fit into `at_most`
    bytes."""
    by_size = sorted(tensors, key=lambda name: tensors[name].numel(), reverse=True)
    forms = {(tensors[name].dtype, tensors[name].ndim): name for name in by_size}
    chosen = {name: tensors[name] for name in (*by_size[:1], *forms.values())}
    left = at_most - size_of(chosen, dtype)
    for name, value in tensors.items():
        size = size_of({name: value}, dtype)
        if name not in chosen and size <= left:
            chosen[name] = value
            left -= size
    return chosen


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a CPU tensor; they are not copied if the tensor is contiguous."""
    flat: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def let_pages_go(tensor: Tensor) -> None:
    """Have what a tensor on the CPU takes leave memory if it is mapped from a file, from which it comes again when it is looked at."""
    page_out(tensor.data_ptr(), tensor.numel() * tensor.element_size())


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a file by name, each read when it is asked for, into memory of its own.

    Their bytes are not checked: compare the file with its hash first. `shapes` is known without reading any tensor.
    """

    def __init__(self, path: Path) -> None:
        """Read the header. Raises OSError, or ValueError, KeyError, TypeError or AttributeError if the file is not a safetensors file."""
        self.path = path
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))
            size = path.stat().st_size
            if length > size:
                raise ValueError(f"{path.name} is cut off or is not a safetensors file")
            self.entries = {name: entry for name, entry in json.loads(file.read(length)).items() if name != "__metadata__"}
        self.start = 8 + length
        if size != self.start + max((entry["data_offsets"][1] for entry in self.entries.values()), default=0):
            raise ValueError(f"{path.name} is not as long as its header says")
        self.shapes = {name: tuple(entry["shape"]) for name, entry in self.entries.items()}
        for name, entry in self.entries.items():
            start, end = entry["data_offsets"]
            if start < 0 or end - start != prod(self.shapes[name]) * DTYPES[entry["dtype"]].itemsize:
                raise ValueError(f"the header of {path.name} does not say where {name} lies")

    def __getitem__(self, name: str) -> Tensor:
        """Read one tensor. Raises KeyError, OSError, or ValueError if the file ends too early."""
        entry = self.entries[name]
        tensor = torch.empty(prod(entry["shape"]), dtype=DTYPES[entry["dtype"]])
        with self.path.open("rb") as file:
            file.seek(self.start + entry["data_offsets"][0])
            if file.readinto(bytes_of(tensor)) != tensor.numel() * tensor.element_size():
                raise ValueError(f"{self.path.name} ends in the middle of {name}")
        return tensor.reshape(entry["shape"])

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes of tensors by name, without reading those that are in a file."""
    if isinstance(tensors, TensorFile):
        return tensors.shapes
    return {name: tuple(value.shape) for name, value in tensors.items()}
