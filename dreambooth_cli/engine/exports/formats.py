"""The table of formats: what each writes into a new folder, and how it is proved."""

from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch

from ...export_order import Export, beside
from ...run import LORA_FILE
from ..families.loading import DTYPES
from ..saving import written
from . import adapters, folder, single_file
from .header import is_second, kohyas
from .original_config import config_of
from .proof import Proof
from .weights import Model, Weights


def weigh(model: Model, order: Export) -> Weights:
    """A model as it will be written. Raises ModelUnavailable."""
    return Weights(model, None if order.is_adapter or order.dtype is None else DTYPES[order.dtype])


def write(weights: Weights, order: Export, part: Path, texts: Mapping[str, str]) -> Path:
    """Write an export below a folder under its own name, and return where. Raises DiskError, ModelUnavailable, MemoryError."""
    place = part / order.place.name
    with written(order.place):
        if order.is_adapter:
            file = place
            if not order.is_file:
                place.mkdir()
                file = place / LORA_FILE
            in_names = adapters.in_kohya if order.format == "kohya" else adapters.in_diffusers
            tensors, told = in_names(weights, lora_format(weights, order))
            adapters.write(file, tensors, {**texts, **told, **(kohyas(weights) if order.format == "kohya" else {})})
        elif order.is_file:
            single_file.write(weights, place, texts)
            if is_second(weights):
                (yaml,) = beside(place)
                yaml.write_text(config_of(weights), encoding="utf-8")
        else:
            place.mkdir()
            folder.write(weights, place)
    return place


def check(weights: Weights, order: Export, place: Path) -> Proof:
    """Open an export again, and compare it with the model."""
    if order.is_adapter:
        file = place if order.is_file else place / LORA_FILE
        return adapters.check(weights, file, lora_format(weights, order))
    return single_file.check(weights, place) if order.is_file else folder.check(weights, place)


def lora_format(weights: Weights, order: Export) -> torch.dtype:
    """The number format that a LoRA is written in."""
    return adapters.format_of(weights, DTYPES[order.dtype] if order.dtype else None)


def size_of(weights: Weights, order: Export) -> int:
    """The bytes that an export takes on the disk, its header and configs aside."""
    if weights.file is not None and order.is_adapter:
        shapes = [weights.file.shapes[name] for pair in weights.pairs for name in pair.tensors.values()]
        return sum(map(prod, shapes)) * lora_format(weights, order).itemsize
    family = weights.base.facts.family
    is_alone = order.is_file and family.single_file is None
    outlines = [weights.outline(network) for network in ([family.denoiser] if is_alone else weights.networks)]
    return sum(value.numel() * value.dtype.itemsize for outline in outlines for value in outline.values())
