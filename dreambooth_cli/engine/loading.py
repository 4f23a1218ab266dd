"""A base on disk -> a live family. Parts that idle can be let go and brought back later."""

import gc
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
import transformers
from accelerate.utils.memory import should_reduce_batch_size
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import SafetensorError

from ..base import Base, read_json, weight_variant
from ..catalog import FamilyName
from ..errors import DoesNotFit, ModelUnavailable, UsageError
from .sdxl import StableDiffusionXL
from .stable_diffusion import StableDiffusion

PIPELINES: dict[FamilyName, type[Any]] = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
FAMILIES: dict[FamilyName, type[StableDiffusion]] = {"sd": StableDiffusion, "sdxl": StableDiffusionXL}
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()


def out_of_memory_words(error: Exception) -> str | None:
    """What to say where an error says that a GPU's or the machine's memory ran out; None for any other."""
    told = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "Cannot allocate memory")
    on_cpu = str(error) == "could not create a primitive"  # oneDNN's word for it
    if (
        isinstance(error, MemoryError)
        or should_reduce_batch_size(error)
        or on_cpu
        or any(t in str(error) for t in told)
    ):
        return f"memory ran out: {first_line(error)}"
    return None


def raise_if_out_of_memory(error: Exception, hint: str) -> None:
    """Raise DoesNotFit where an error says that a GPU's or the machine's memory ran out."""
    if words := out_of_memory_words(error):
        raise DoesNotFit(words, hint) from error


def with_causes(error: BaseException | None) -> Iterator[Exception]:
    """An error, what it was raised from, and so on: a library may wrap what happened in words of its own."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: Exception) -> str:
    """The first line of what a library says, or the error's kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


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
    """A base as a family, its weights in `dtype` on `device`, frozen, ready to draw. Raises ModelUnavailable."""
    pipe = load_pipeline(base, dtype=dtype)
    for part in parts_of(pipe).values():
        part.requires_grad_(False)
        part.eval()
    return FAMILIES[base.facts.family](pipe.to(device))


def load_pipeline(base: Base, *, dtype: torch.dtype, only: Collection[str] = PARTS) -> Any:
    """A base as a diffusers pipeline on the CPU, its networks but `only` these, without safety checker and without bars.

    Raises ModelUnavailable, MemoryError where the machine has no room for it.
    """
    kind = PIPELINES[base.facts.family]
    options: dict[str, Any] = {"local_files_only": True, "dtype": dtype}
    options |= {name: None for name in PARTS if name not in only and name in kind.__init__.__annotations__}
    if base.facts.family == "sd":
        options |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    try:
        # the fp16-safe VAE takes the place of SDXL's own only where it would run in fp16: there the stock one overflows
        if base.vae_path is not None and dtype == torch.float16 and "vae" in only:
            options["vae"] = AutoencoderKL.from_pretrained(base.vae_path, local_files_only=True, dtype=dtype)
        if base.is_single_file:
            pipe = kind.from_single_file(str(base.path), config=str(base.config_path), **options)
        else:
            pipe = kind.from_pretrained(base.path, use_safetensors=True, **options, **_halves(base, options))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        if short := next((one for one in with_causes(error) if out_of_memory_words(one)), None):
            raise MemoryError(first_line(short)) from error
        raise ModelUnavailable(
            f"{base.name} can't be loaded from {base.path}: {first_line(error)}",
            f"fetch it again: dreambooth models pull {base.name}" if base.repository else "check its files",
        ) from error
    if base.is_single_file:
        # the configs came from elsewhere; what the file itself says of its prediction stands
        pipe.scheduler = pipe.scheduler.from_config(pipe.scheduler.config, prediction_type=base.facts.prediction_type)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _halves(base: Base, options: Mapping[str, Any]) -> dict[str, Any]:
    """What makes diffusers read parts that are there in fp16 alone: the variant, where that is all of them, or those parts."""
    folders = [path for name in PARTS if name not in options and (path := base.path / name).is_dir()]
    halves = [path for path in folders if weight_variant(path) == "fp16"]
    if len(halves) == len(folders):
        return {"variant": "fp16"} if halves else {}
    more = {"variant": "fp16", "local_files_only": True, "dtype": options["dtype"]}
    return {path.name: _class_of(base, path.name).from_pretrained(path, **more) for path in halves}


def _class_of(base: Base, part: str) -> Any:
    """The class of a part, as the pipeline's model_index.json names it."""
    library, name = read_json(base.path / "model_index.json")[part]
    return getattr({"diffusers": diffusers, "transformers": transformers}[library], name)


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
def ready_to_draw(pipe: Any, device: torch.device, *, in_parts: bool) -> Iterator[None]:
    """All networks on the device, or in parts: only the one at work, which accelerate's hooks fetch and send back."""
    if not in_parts:
        place(pipe, PARTS, device)
        yield
        return
    place(pipe, (), device)
    pipe.enable_model_cpu_offload(device=device)
    try:
        yield
    finally:
        pipe.remove_all_hooks()


def let_go(pipe: Any, names: list[str]) -> None:
    """Let idle parts leave memory."""
    for name in names:
        setattr(pipe, name, None)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget_failed_attempt() -> None:
    """After memory ran out: let what the attempt held leave the card, and its peak be forgotten."""
    gc.collect()  # the hooks of a step inside backward hold their weights in a ring
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def bring_back(pipe: Any, base: Base, *, dtype: torch.dtype, device: torch.device) -> list[str]:
    """Load the parts that were let go once more from the base. Returns their names, so that they can be let go again."""
    gone = [name for name in PARTS if name in pipe.components and getattr(pipe, name) is None]
    if gone:
        fresh = load_pipeline(base, dtype=dtype, only=gone)
        for name in gone:
            # not setattr: diffusers would keep the part out of what it saves
            pipe.register_modules(**{name: getattr(fresh, name).to(device).requires_grad_(False).eval()})
    return gone
