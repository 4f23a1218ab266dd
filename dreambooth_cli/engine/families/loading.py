"""A base on disk -> a live family. Parts that are not needed can be freed and loaded again later."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from torch import nn

from ...bases.base import Base
from ...errors import UsageError
from ...families.family import VAE, Family
from ...machine import give_back
from ..refusal import refused
from .latent_diffusion import LatentDiffusion, alive
from .parts import PartFiles, build, fill, find_files, flags_of, load_scheduler, load_tokenizers, quiet, stored_format
from .trial import try_networks

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def find_device(name: str) -> torch.device:
    """The device that the plan names. Raises UsageError if torch can't use it."""
    if name == "cuda" and not torch.cuda.is_available():
        build = torch.version.cuda or "none"
        raise UsageError(
            f"there is an NVIDIA GPU, but this PyTorch ({torch.__version__}, CUDA: {build}) can't use it",
            "install a CUDA build of PyTorch (the README's section Install says how)",
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise UsageError("this PyTorch can't use the Apple GPU", "install PyTorch's macOS build for arm64")
    return torch.device(name)


def load_family(base: Base, *, dtype: torch.dtype, device: torch.device) -> LatentDiffusion:
    """A base as a live family, its weights in `dtype` on `device`, frozen, tried once and ready to draw. Raises ModelUnavailable, or
    MemoryError if the machine has no room for it."""
    pipe = load_pipeline(base, dtype=dtype)
    for part in parts_of(pipe).values():
        part.requires_grad_(False)
        part.eval()
    family = alive(base.facts.family, pipe.to(device))
    if device.type != "cpu" or dtype == torch.float32:  # a CPU is slow in half precision, and here only passes weights on
        try_networks(family, device)
    return family


def load_pipeline(base: Base, *, dtype: torch.dtype, only: Collection[str] | None = None, lean: bool = False) -> Any:
    """A base as a diffusers pipeline on the CPU, with all its networks or `only` these, without safety checker and progress bars.

    Before any weights are read, it is checked that the networks fit their files and each other; `lean` is as for `fill`. Raises
    ModelUnavailable, or MemoryError if the machine has no room for it.
    """
    record = base.facts.family
    with refused(f"{base.name} can't be loaded from {base.path}", _again(base)):
        wanted = [name for name in record.networks if only is None or name in only]
        # the fp16-safe VAE replaces SDXL's own, which overflows in fp16, only where it would run in fp16
        places = {VAE: base.vae_path} if base.vae_path is not None and dtype == torch.float16 else {}
        files = {name: find_files(base, name, places.get(name)) for name in wanted}
        pipe = _empty(base, files)
        for name, found in files.items():
            fill(getattr(pipe, name), found, dtype, lean=lean)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load_for_turns(base: Base) -> LatentDiffusion:
    """A base as a live family with only its VAE loaded, in float32 on the CPU. The other networks have been checked to fit their files and
    each other; `bring_back` loads them when it is their turn. Raises ModelUnavailable."""
    pipe = load_empty(base)
    with refused(f"{base.name} can't be loaded from {base.path}", _again(base)):
        fill(pipe.vae, find_files(base, VAE), torch.float32)
    pipe.vae.requires_grad_(False).eval()
    for name in base.facts.family.networks:
        if name != VAE:
            setattr(pipe, name, None)
    pipe.set_progress_bar_config(disable=True)
    return alive(base.facts.family, pipe)


def load_empty(base: Base) -> Any:
    """A base as a diffusers pipeline whose networks are on torch's meta device, without their weights. Raises ModelUnavailable."""
    with refused(f"{base.name} can't be loaded from {base.path}", _again(base)):
        return _empty(base, {name: find_files(base, name) for name in base.facts.family.networks})


def formats_of(base: Base) -> dict[str, torch.dtype]:
    """The number format that each network of a base is stored in; the widest one if its weights are in several. Raises
    ModelUnavailable."""
    with refused(f"{base.name} can't be loaded from {base.path}", _again(base)):
        return {name: stored_format(find_files(base, name)) for name in base.facts.family.networks}


def _empty(base: Base, files: Mapping[str, PartFiles]) -> Any:
    """A pipeline with these of its networks, without weights, checked to fit their files and, if all are there, each other."""
    record = base.facts.family
    options: dict[str, Any] = dict.fromkeys((*record.tokenizers, *record.networks))
    options |= {name: build(found) for name, found in files.items()}
    is_whole = list(files) == list(record.networks)
    options |= load_tokenizers(base) if is_whole else {}  # tokenizers are needed only by the whole
    options |= {"scheduler": load_scheduler(base), **record.pipeline_options, **flags_of(base)}
    with quiet():
        pipe = pipeline_class(record)(**options)
    if is_whole:
        try_networks(alive(record, pipe), torch.device("meta"))
    return pipe


def _again(base: Base) -> str:
    return f"fetch it again: dreambooth models pull {base.name}" if base.repository else "check its files"


def pipeline_class(record: Family) -> Any:
    """The diffusers class of a family's pipelines."""
    return getattr(diffusers, record.pipeline)


def parts_of(pipe: Any) -> dict[str, Any]:
    """The networks that are loaded in a pipeline, by their names in it."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}


def text_encoders_of(pipe: Any) -> dict[str, Any]:
    """The text encoders that are loaded in a pipeline, by their names in it."""
    return {name: part for name, part in parts_of(pipe).items() if name.startswith("text_encoder")}


def place(pipe: Any, names: Collection[str], device: torch.device) -> None:
    """Move these networks to the device and all others to the machine's memory. Those that leave the device go first."""
    parts = parts_of(pipe)
    for name in sorted(parts, key=lambda name: name in names):
        parts[name].to(device if name in names else "cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def alone(pipe: Any, names: Collection[str], device: torch.device) -> Iterator[None]:
    """Inside a `with` block, have these networks on the device and the others in the machine's memory and hidden from the pipeline, which
    takes its own device from the first network that it finds."""
    place(pipe, names, device)
    others = {name: part for name, part in parts_of(pipe).items() if name not in names}
    for name in others:
        setattr(pipe, name, None)
    try:
        yield
    finally:
        pipe.register_modules(**others)  # not setattr, with which diffusers would leave the part out when it saves


def let_go(pipe: Any, names: list[str]) -> None:
    """Free these parts of a pipeline."""
    for name in names:
        setattr(pipe, name, None)
    give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget_failed_attempt() -> None:
    """After memory ran out: free what the attempt still holds on the card, and reset the recorded peak."""
    give_back()  # collects cycles: the hooks of a step inside backward and their weights refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def bring_back(
    pipe: Any, base: Base, *, dtype: torch.dtype, device: torch.device, only: Collection[str] | None = None
) -> list[str]:
    """Load from the base those of the networks (or of `only` these) that have been freed. Returns their names, so that they can be freed
    again."""
    wanted = base.facts.family.networks if only is None else only
    gone = [name for name in wanted if getattr(pipe, name) is None]
    if gone:
        fresh = load_pipeline(base, dtype=dtype, only=gone)
        for name in gone:
            # not setattr, with which diffusers would leave the part out when it saves
            pipe.register_modules(**{name: getattr(fresh, name).to(device).requires_grad_(False).eval()})
    return gone
