"""The table of the model families that are trained here, and how a base finds its own."""

from collections.abc import Iterable, Mapping
from typing import Any

from .family import Family
from .klein import KLEIN
from .sdxl import SDXL
from .stable_diffusion import STABLE_DIFFUSION
from .z_image import Z_IMAGE

FAMILIES: list[Family] = [
    STABLE_DIFFUSION,
    SDXL,
    Z_IMAGE,
    KLEIN,
]


def families_of(index: Mapping[str, Any]) -> list[Family]:
    """The families that a model_index.json may belong to: by the pipeline that it names, or if it names none, by its denoiser and the
    denoiser's class. Empty for a pipeline that is not known here."""
    named = index.get("_class_name")
    if isinstance(named, str | list):
        return [family for family in FAMILIES if named in family.named]
    first = next((family.denoiser for family in FAMILIES if family.denoiser in index), FAMILIES[0].denoiser)
    alike, told = [family for family in FAMILIES if family.denoiser == first], index.get(first)
    of_class = [family for family in alike if isinstance(told, list) and any(name in told for name in family.parts[first].classes)]
    return of_class or alike


def family_told(families: Iterable[Family], denoiser: Mapping[str, Any]) -> Family | None:
    """The one of these families that a denoiser's config belongs to: of those whose marks it all has, the one with the most marks."""
    found = [family for family in families if all(denoiser.get(key) == value for key, value in family.marks.items())]
    return max(found, key=lambda family: len(family.marks), default=None)


def family_of_file(names: Iterable[str]) -> Family:
    """The family of a single file by its tensors' names: the one whose mark is found, else the one whose mark is ""."""
    names, files = list(names), {family.single_file.mark: family for family in FAMILIES if family.single_file is not None}
    return files[next((mark for mark in files if mark and any(name.startswith(mark) for name in names)), "")]


def text_encoder_names() -> tuple[str, ...]:
    """The names that families give their text encoders."""
    return tuple(dict.fromkeys(name for family in FAMILIES for name in family.text_encoders))


def denoiser_names() -> tuple[str, ...]:
    """The names that families give their denoiser."""
    return tuple(dict.fromkeys(family.denoiser for family in FAMILIES))
