"""What one call of `export` asks for, before any work: the format, where it goes, and what is refused."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .config import Asked
from .disk import check_folder, holds_something
from .errors import UsageError
from .families.family import Family
from .formats import Format
from .order import Order
from .run import Run
from .source import Source, card_for, is_whole, model_folder

Precision = Literal["fp32", "bf16", "fp16"]
ENDING = ".safetensors"
ADAPTERS = ("lora", "kohya")  # formats of a LoRA; the others are whole models
ONE_FILE = ("single-file", "kohya")  # formats that are never folders
MOST_RANK = 1024
RANK = 64  # of a LoRA that is made of a whole model, by default
ANOTHER = "name another place: -o ./my-model"


@dataclass(frozen=True)
class Export:
    """A format and the file or folder to write. `dtype`: None for the format that the weights are stored in; `strength`: how strongly a
    LoRA is baked in; `rank`: of a LoRA that is made of a whole model."""

    format: Format
    place: Path
    dtype: Precision | None = None
    strength: float | None = None
    rank: int | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is one file, not a folder."""
        return self.place.suffix == ENDING

    @property
    def is_adapter(self) -> bool:
        """Whether it is a LoRA beside its base, not a whole model."""
        return self.format in ADAPTERS


def order_export(wanted: Export) -> Export:
    """The same, checked, with the ending that its path gets. Raises UsageError."""
    place = wanted.place
    is_file = place.suffix.lower() == ENDING
    if wanted.format in ONE_FILE:
        place = place.with_name(place.stem if is_file else place.name) if place.name else place
        place = place.with_name(f"{place.name}{ENDING}") if place.name else place
    elif is_file and wanted.format == "diffusers":
        raise UsageError(f"{place} is the name of a file, but a diffusers model is a folder", "name a folder, or say: --to single-file")
    elif is_file:
        place = place.with_suffix(ENDING)
    if not place.name:
        raise UsageError(f"{wanted.place} has no name", ANOTHER)
    if wanted.strength is not None and wanted.is_adapter:
        raise UsageError(
            f"--strength is for a LoRA that is baked into its base, but --to {wanted.format} leaves it separate",
            "leave it out, or say: --to merged",
        )
    if wanted.strength is not None and not 0 < wanted.strength <= 2:
        raise UsageError(f"--strength can't be {wanted.strength:g}", "give one from 0 to 2: 1 is the LoRA as it was trained")
    if wanted.rank is not None and not 1 <= wanted.rank <= MOST_RANK:
        raise UsageError(f"--rank can't be {wanted.rank}", f"give one from 1 to {MOST_RANK}")
    if wanted.rank is not None and not wanted.is_adapter:
        raise UsageError(f"--rank is for a LoRA that is made of a whole model, but --to {wanted.format} makes none", "leave it out")
    order = Export(wanted.format, place, wanted.dtype, wanted.strength, wanted.rank)
    check_free(order)
    return order


def check_free(order: Export) -> None:
    """Raises UsageError if something is already at an export's path, or nothing can be written there."""
    parent = check_folder(order.place.parent, ANOTHER)
    for path in (order.place, *beside(order.place)) if order.is_file else (order.place,):
        is_empty = path.is_dir() and not path.is_symlink() and not order.is_file and not holds_something(path)
        if os.path.lexists(parent / path.name) and not is_empty:
            raise UsageError(f"{path} exists", ANOTHER)


def beside(place: Path) -> tuple[Path, ...]:
    """The files that may be written beside a single file."""
    return (place.with_suffix(".yaml"),)


def check_format(order: Export, source: Source) -> None:
    """Refuse what a model can't become. Raises UsageError, ModelUnavailable, ProjectError."""
    if source.step is not None:
        what, whole = f"step {source.step}", Run(source.path).record().plan.method == "full"
    else:
        folder = model_folder(source.path)
        what, whole = str(folder), is_whole(folder)
    if whole and order.format == "merged":
        raise UsageError(f"{what} is a whole model: there is no LoRA to bake in", "say --to diffusers, or --to single-file")
    if whole and order.strength is not None:
        raise UsageError(f"{what} is a whole model, but --strength is for a LoRA", "leave --strength out")
    if not whole and order.rank is not None:
        raise UsageError(f"{what} is a LoRA and has a rank already", "leave --rank out: it is for a whole model")
    if whole and order.is_adapter and source.base is None and card_for(source) is None:
        raise UsageError(f"{what} does not say which base it was trained from, which a LoRA needs", "name it: --model sd15")


def check_layout(format: Format, family: Family, *, is_file: bool) -> None:
    """Refuse a layout that does not exist for a family's models: a single file, kohya's names. Raises UsageError."""
    if family.single_file is not None or format == "lora" or not is_file or (family.denoiser_file and format != "kohya"):
        return
    if format == "kohya":
        raise UsageError(f"no kohya layout is known here for {family.title}", "say lora: ComfyUI and others read that")
    raise UsageError(
        f"no single-file layout is known here for {family.title}",
        "say merged and name a folder, which diffusers reads; or lora, which ComfyUI reads beside its own base",
    )


def export_beside(format: Format, model: Path, name: str) -> Export:
    """Where `train --export` puts what it writes: beside the model's folder, under this name and the format's. Raises UsageError."""
    named = model.with_name(name if format == "single-file" else f"{name}-{format}")
    is_file = format in ONE_FILE
    return Export(format, named.with_name(f"{named.name}{ENDING}") if is_file else named)


def with_export(order: Order, asked: Asked, format: Format) -> Order:
    """The same order, with the model exported at the end. Raises UsageError if it can be seen now that this won't work."""
    if format == "merged" and asked.train.method == "full":
        raise UsageError("--export merged bakes a LoRA in, but --method full trains none", "say --export diffusers, or --method lora")
    if order.output_dir is not None and not os.path.lexists(order.output_dir):
        check_free(export_beside(format, order.output_dir, order.output_dir.name))
    return replace(order, export=format)
