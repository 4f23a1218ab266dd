"""A whole model in one .safetensors file in the original's layout, or for families that have none their denoiser alone; read again by
diffusers' `from_single_file`."""

import hashlib
import struct
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..families.loading import parts_of, pipeline_class
from ..families.parts import folder_of, quiet
from ..tensor_file import write_stream
from .original import layout
from .proof import Proof, prove
from .weights import Weights, differing

HASH = "modelspec.hash_sha256"
NO_HASH = "0x" + 64 * "0"  # holds its place in the header until the tensors are written


def write(weights: Weights, path: Path, texts: Mapping[str, str]) -> None:
    """Write a model to a new file, `texts` in its header. Raises OSError, ModelUnavailable, MemoryError."""
    made = layout(weights.base.facts.family, weights.networks)
    outlines = {part: weights.outline(part) for part in {each.network for each in made.values()}}
    outline = {name: each.change([outlines[each.network][source] for source in each.sources]).to("meta") for name, each in made.items()}

    def read(name: str) -> Tensor:
        each = made[name]
        return each.change([weights.read(each.network, source) for source in each.sources])

    write_stream(path, outline, read, {"format": "pt", **texts, HASH: NO_HASH})
    weights.let_go()
    seal(path)


def seal(path: Path) -> None:
    """Write the hash of a file's tensors into its header, at the place that was kept for it. Raises OSError."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = file.read(length)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(8 + header.index(NO_HASH.encode()))
        file.write(f"0x{digest}".encode())


def check(weights: Weights, path: Path) -> Proof:
    """Open the file again with diffusers and compare it with what was to be written."""

    def read(names: Sequence[str]) -> Any:
        return open_file(weights, path, names)

    def look(pipe: Any) -> str:
        written = {network for network, _ in weights.digests}  # of some families the denoiser alone
        parts = {name: part for name, part in parts_of(pipe).items() if name in written}
        return "; ".join(filter(None, (differing(name, part, weights.digests) for name, part in parts.items())))

    return prove(weights, weights.open, read, look, coarsest(weights.formats))


def open_file(weights: Weights, path: Path, names: Collection[str]) -> Any:
    """Some of a file's networks, by diffusers' own reader; the configs are the model's, and so are networks that are not in it."""
    record = weights.base.facts.family
    if record.single_file is None:
        return open_denoiser(weights, path, names)
    left_out = dict.fromkeys(name for name in (*record.networks, *record.tokenizers, *record.left_out) if name not in names)
    with quiet():
        return pipeline_class(record).from_single_file(
            str(path),
            config=str(folder_of(weights.base)),
            local_files_only=True,
            dtype=weights.formats[next(iter(names))],
            **left_out,
        )


def open_denoiser(weights: Weights, path: Path, names: Collection[str]) -> Any:
    """The model's networks of these names, its denoiser by diffusers' own reader from its own file."""
    denoiser = weights.base.facts.family.denoiser
    pipe = weights.open([name for name in names if name != denoiser])
    if denoiser in names:
        with quiet():
            read = type(weights.networks[denoiser]).from_single_file(
                str(path),
                config=str(folder_of(weights.base)),
                subfolder=denoiser,
                local_files_only=True,
                dtype=weights.formats[denoiser],
            )
        pipe.register_modules(**{denoiser: read})
    return pipe


def coarsest(formats: Mapping[str, torch.dtype]) -> torch.dtype:
    """The number format with the fewest digits."""
    return max(formats.values(), key=lambda dtype: torch.finfo(dtype).eps)
