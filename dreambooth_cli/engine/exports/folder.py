"""A whole model as a diffusers folder, in the layout that older versions read too; read again by diffusers' `from_pretrained`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..families.loading import parts_of, pipeline_class
from ..families.parts import quiet
from ..saving import OF_TORCH, save_network_config, save_rest
from ..tensor_file import write_stream
from .proof import Proof, prove
from .single_file import coarsest
from .weights import Weights, differing


def write(weights: Weights, folder: Path) -> None:
    """Write a model into a new folder. Raises OSError, ModelUnavailable, MemoryError."""
    for name, network in weights.networks.items():
        file = save_network_config(network, folder / name)
        write_stream(file, weights.outline(name), partial(weights.read, name), OF_TORCH)
    weights.let_go()
    save_rest(weights.empty, weights.networks, folder)


def check(weights: Weights, folder: Path) -> Proof:
    """Open the folder again with diffusers and compare it with what was to be written."""

    def read(names: Sequence[str]) -> Any:
        return open_folder(weights, folder, names)

    def look(pipe: Any) -> str:
        return "; ".join(filter(None, (differing(name, part, weights.digests) for name, part in parts_of(pipe).items())))

    return prove(weights, weights.open, read, look, coarsest(weights.formats))


def open_folder(weights: Weights, folder: Path, names: Sequence[str]) -> Any:
    """Some of a folder's networks, and its tokenizers, by diffusers' own reader."""
    record = weights.base.facts.family
    left_out = dict.fromkeys(name for name in (*record.networks, *record.left_out) if name not in names)
    with quiet():
        return pipeline_class(record).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=weights.formats[names[0]], **left_out
        )
