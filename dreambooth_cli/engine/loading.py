"""A base on disk -> a live family. Parts that idle can be let go and brought back later."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from ..base import Base
from ..catalog import FamilyName
from ..errors import UsageError
from ..machine import give_back
from .parts import build, fill, find_files, load_scheduler, load_tokenizers, quiet, zeros_for_no_prompt
from .refusal import refused
from .sdxl import StableDiffusionXL
from .stable_diffusion import StableDiffusion
from .trial import try_networks

PIPELINES: dict[FamilyName, type[Any]] = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
FAMILIES: dict[FamilyName, type[StableDiffusion]] = {"sd": StableDiffusion, "sdxl": StableDiffusionXL}
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def find_device(name: str) -> torch.device:
    """The device that the plan names. Raises UsageError where torch can't reach it."""
    if name == "cuda" and not torch.cuda.is_available():
        build = torch.version.cuda or "none"
        raise UsageError(
            f"there is an NVIDIA GPU, but this PyTorch ({torch.__version__}, CUDA: {build}) can't use it",
            "install a CUDA build of PyTorch (the README's section Install says how)",
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise UsageError("this PyTorch can't use the Apple GPU", "install PyTorch's macOS build for arm64")
    return torch.device(name)


def load_family(base: Base, *, dtype: torch.dtype, device: torch.device) -> StableDiffusion:
    """A base as a family, its weights in `dtype` on `device`, frozen, tried once, ready to draw. Raises ModelUnavailable."""
    pipe = load_pipeline(base, dtype=dtype)
    for part in parts_of(pipe).values():
        part.requires_grad_(False)
        part.eval()
    family = FAMILIES[base.facts.family](pipe.to(device))
    if device.type != "cpu" or dtype == torch.float32:  # a processor is slow at half precision, which it only passes on here
        try_networks(pipe, device)
    return family


def load_pipeline(base: Base, *, dtype: torch.dtype, only: Collection[str] = PARTS) -> Any:
    """A base as a diffusers pipeline on the CPU, its networks but `only` these, without safety checker and without bars.

    That they fit their files and each other is known before any weights are read. Raises ModelUnavailable, MemoryError where the
    machine has no room for it.
    """
    kind = PIPELINES[base.facts.family]
    again = f"fetch it again: dreambooth models pull {base.name}" if base.repository else "check its files"
    with refused(f"{base.name} can't be loaded from {base.path}", again):
        wanted = [name for name in PARTS if name in kind.__init__.__annotations__]
        # the fp16-safe VAE takes the place of SDXL's own only where it would run in fp16: there the stock one overflows
        places = {"vae": base.vae_path} if base.vae_path is not None and dtype == torch.float16 else {}
        files = {name: find_files(base, name, places.get(name)) for name in wanted if name in only}
        networks = {name: build(found) for name, found in files.items()}
        is_whole = set(wanted) <= set(only)
        options: dict[str, Any] = {name: None for name in kind.__init__.__annotations__ if name.startswith("tokenizer")}
        options |= {"scheduler": load_scheduler(base)}
        options |= load_tokenizers(base) if is_whole else {}  # some of the networks alone read no prompts
        if base.facts.family == "sd":
            options |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        else:
            options |= {"add_watermarker": False, "force_zeros_for_empty_prompt": zeros_for_no_prompt(base)}
        with quiet():
            pipe = kind(**options, **{name: networks.get(name) for name in wanted})
        if is_whole:
            try_networks(pipe, torch.device("meta"))
        for name, found in files.items():
            fill(networks[name], found, dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def parts_of(pipe: Any) -> dict[str, Any]:
    """The networks of a pipeline that are there: unet, vae, text_encoder, text_encoder_2."""
    return {name: part for name in PARTS if (part := getattr(pipe, name, None)) is not None}


def text_encoders_of(pipe: Any) -> dict[str, Any]:
    """The text encoders of a pipeline that are there."""
    return {name: part for name, part in parts_of(pipe).items() if name.startswith("text_encoder")}


def place(pipe: Any, names: Collection[str], device: torch.device) -> None:
    """Have these networks on the device and the others in the machine's memory. They leave before the others come."""
    parts = parts_of(pipe)
    for name in sorted(parts, key=lambda name: name in names):
        parts[name].to(device if name in names else "cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def alone(pipe: Any, names: Collection[str], device: torch.device) -> Iterator[None]:
    """These networks on the device, the others in the machine's memory and out of the pipeline's sight: it takes its own device from
    the first network that it finds."""
    place(pipe, names, device)
    others = {name: part for name, part in parts_of(pipe).items() if name not in names}
    for name in others:
        setattr(pipe, name, None)
    try:
        yield
    finally:
        pipe.register_modules(**others)  # not setattr: diffusers would keep the part out of what it saves


def let_go(pipe: Any, names: list[str]) -> None:
    """Let idle parts leave memory."""
    for name in names:
        setattr(pipe, name, None)
    give_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget_failed_attempt() -> None:
    """After memory ran out: let what the attempt held leave the card, and its peak be forgotten."""
    give_back()  # the hooks of a step inside backward hold their weights in a ring
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def bring_back(
    pipe: Any, base: Base, *, dtype: torch.dtype, device: torch.device, only: Collection[str] = PARTS
) -> list[str]:
    """Load the parts that were let go, of these, once more from the base. Returns their names, so that they can be let go again."""
    gone = [name for name in only if name in pipe.components and getattr(pipe, name) is None]
    if gone:
        fresh = load_pipeline(base, dtype=dtype, only=gone)
        for name in gone:
            # not setattr: diffusers would keep the part out of what it saves
            pipe.register_modules(**{name: getattr(fresh, name).to(device).requires_grad_(False).eval()})
    return gone
