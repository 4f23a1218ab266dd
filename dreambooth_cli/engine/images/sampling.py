"""Prompts and seeds -> pictures: for samples, class images and `generate`.

Every picture has a seed of its own, so that any one can be drawn again by itself: from the same noise whatever the batch, its pixels
equal up to the rounding of the kernels, which depends on the batch.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import diffusers
import torch
from PIL import Image
from torch import Tensor

from ... import stopping
from ...errors import DoesNotFit, UsageError
from ...families.family import VAE, Family
from ...families.schedulers import KEEP_ZERO_SNR, SCHEDULERS, names_for
from ...libraries import refusal_of
from ...machine import free_memory
from ...settings import Scheduler
from ..families.latent_diffusion import LatentDiffusion
from ..families.parts import shift_for

AtWork = Callable[[Collection[str]], AbstractContextManager[None]]  # has the networks of these names ready inside it, and no others

SOLVERS_OWN = ("algorithm_type", "solver_type")  # settings whose values only one class of scheduler understands
BLACK = 8  # of 255: a picture with no channel of any pixel above this counts as black


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How pictures are drawn: denoising steps, guidance scale, size in pixels."""

    steps: int
    guidance_scale: float
    width: int
    height: int


def check_sampler(record: Family, name: Scheduler) -> None:
    """Raise UsageError if a scheduler does not work with a family."""
    names = names_for(record.noise)
    if name not in ("auto", *names):
        known = f"use one of {', '.join(names)}, or leave --scheduler out" if names else "leave --scheduler out"
        raise UsageError(f"the scheduler {name} does not work with {record.title}", known)


def use_scheduler(pipe: Any, name: Scheduler) -> None:
    """Give a pipeline another noise scheduler by name, with the pipeline's own betas and prediction type; `auto` leaves it as it is. Raises
    UsageError if it does not work with this model."""
    if name == "auto":
        return
    scheduler = SCHEDULERS[name]
    if pipe.scheduler.config.get("rescale_betas_zero_snr") and scheduler.kind not in KEEP_ZERO_SNR:
        raise UsageError(
            f"the scheduler {name} does not work with this model, whose last timestep is pure noise (zero terminal SNR)",
            "try --scheduler ddim, euler, dpm++ or unipc",
        )
    config = dict(pipe.scheduler.config)
    if type(pipe.scheduler).__name__ != scheduler.kind:  # these names mean nothing to another class of scheduler
        config = {key: value for key, value in config.items() if key not in SOLVERS_OWN}
    try:
        pipe.scheduler = getattr(diffusers, scheduler.kind).from_config(config, **scheduler.options)
    except Exception as error:
        if (versions := refusal_of(error)) is not None:
            raise versions from error
        raise UsageError(f"the scheduler {name} can't be used with this model: {error}", "try another, or leave --scheduler out") from error


@contextmanager
def scheduled(pipe: Any, name: Scheduler) -> Iterator[None]:
    """Draw with another noise scheduler for a while, as by `use_scheduler`; then the pipeline has its own again."""
    own = pipe.scheduler
    use_scheduler(pipe, name)
    try:
        yield
    finally:
        pipe.scheduler = own


def check_steps(pipe: Any, steps: int, flag: str) -> None:
    """Raise UsageError if a pipeline's scheduler can't draw in `steps` steps; `flag` is the option that asked for them."""
    most = int(pipe.scheduler.config.num_train_timesteps)
    if steps > most:
        raise UsageError(f"{flag} {steps} is more than the {most} timesteps of this model", f"it takes at most {most}")
    try:
        pipe.scheduler.set_timesteps(steps, **shift_for(pipe.scheduler))
    except Exception as error:
        if (versions := refusal_of(error)) is not None:
            raise versions from error
        raise UsageError(
            f"{flag} {steps} does not work with {type(pipe.scheduler).__name__}: {error}", "try another number of steps"
        ) from error


def check_memory(pipe: Any, drawing: Drawing, batch: int) -> None:
    """Raise DoesNotFit if on a CPU even the least that pictures take, one tensor of the decoder's last layer, is more than the machine's
    free memory: a system that runs out of memory kills any process it likes. A GPU refuses by itself."""
    values = pipe.vae.config.block_out_channels[0] + 3 * batch  # for each pixel
    needed, free = drawing.width * drawing.height * values * pipe.vae.dtype.itemsize, free_memory()
    if pipe.device.type == "cpu" and needed > free:
        raise DoesNotFit(
            f"pictures of {drawing.width} x {drawing.height} pixels take more than {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB of "
            "the machine's memory are free",
            "draw smaller ones, or fewer at a time: --width, --height, --batch-size",
        )


@dataclass(frozen=True)
class Embedded:
    """A prompt, and the empty one that guidance compares it with, encoded once: the arguments that a pipeline's call takes in place of
    prompts, one row each."""

    arguments: Mapping[str, Any]

    def to(self, device: torch.device) -> "Embedded":
        """The same on another device."""
        return Embedded({name: _moved(value, device) for name, value in self.arguments.items()})


def _moved(value: Any, device: torch.device) -> Any:
    return [each.to(device) for each in value] if isinstance(value, list) else value.to(device) if isinstance(value, Tensor) else value


def _together(embedded: Sequence[Embedded]) -> dict[str, Any]:
    """The arguments of a pipeline's call for a batch of prompts."""
    return {name: _joined([one.arguments[name] for one in embedded]) for name in embedded[0].arguments}


def _joined(values: Sequence[Any]) -> Any:
    if isinstance(values[0], Tensor):
        return torch.cat(list(values))
    return list(chain(*values)) if isinstance(values[0], list) else values[0]


@torch.no_grad()
def embed(family: LatentDiffusion, prompt: str, *, guidance_scale: float) -> Embedded:
    """Encode a prompt with the text encoders, on the device where they are."""
    return Embedded(family.embed(prompt, guided=guidance_scale > family.record.no_guidance))


def draw_latents(family: LatentDiffusion, embedded: Sequence[Embedded], seeds: list[int], drawing: Drawing) -> Tensor:
    """The latents [B, c, h, w] of one picture for each encoded prompt and seed, drawn as one batch.

    Raises Interrupted between denoising steps if a signal has come.
    """
    return _denoise(family, seeds, drawing, **_together(embedded))


def draw(
    family: LatentDiffusion, prompts: list[str], seeds: list[int], drawing: Drawing, *, negative_prompt: str = ""
) -> list[Image.Image]:
    """One picture for each prompt and seed, drawn as one batch.

    Raises Interrupted between denoising steps if a signal has come.
    """
    return decode(family, _denoise(family, seeds, drawing, **family.prompted(prompts, negative_prompt)))


def draw_in_turn(
    family: LatentDiffusion, prompt: str, seed: int, drawing: Drawing, at_work: AtWork, *, read: Embedded | None = None
) -> Image.Image:
    """One picture, for which the networks take turns: `at_work` has each of them ready only while it works. `read`: the prompt, if it has
    been encoded already.

    Raises Interrupted between denoising steps if a signal has come.
    """
    record = family.record
    if read is None:
        with at_work(record.text_encoders):
            read = embed(family, prompt, guidance_scale=drawing.guidance_scale)
    with at_work((record.denoiser, *record.beside_denoiser)):
        latents = draw_latents(family, [read], [seed], drawing)
    with at_work((VAE,)):
        return decode(family, latents)[0]


def _denoise(family: LatentDiffusion, seeds: list[int], drawing: Drawing, **prompted: Any) -> Tensor:
    drawn: dict[str, Tensor] = {}

    def after_each_step(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        stopping.check()
        drawn.update(tensors)
        return tensors

    family.pipe(
        **prompted,
        num_inference_steps=drawing.steps,
        guidance_scale=drawing.guidance_scale,
        width=drawing.width,
        height=drawing.height,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        output_type="latent",
        callback_on_step_end=after_each_step,
    )
    # taken from the last step: what some pipelines return as latents has been changed since
    return family.unpack(drawn["latents"], drawing.height, drawing.width)


@torch.no_grad()
def decode(family: LatentDiffusion, latents: Tensor) -> list[Image.Image]:
    """Latents [B, c, h, w] -> pictures, decoded one after the other, since the decoder's activations are the largest of all.

    A VAE that overflows in half precision (as SDXL's own does) decodes in float32 from then on.
    """
    pixels = torch.cat([_decode(family, row) for row in latents.split(1)])
    # what is still not finite becomes black, which `is_black` notices
    pictures: list[Image.Image] = family.pipe.image_processor.postprocess(
        torch.where(pixels.isfinite(), pixels, -1.0), output_type="pil", do_denormalize=[True] * len(pixels)
    )
    return pictures


def _decode(family: LatentDiffusion, latents: Tensor) -> Tensor:
    with torch.autocast(latents.device.type, enabled=False):
        pixels = family.decode(latents)
    if not pixels.isfinite().all() and family.pipe.vae.dtype != torch.float32:
        family.pipe.vae.to(torch.float32)
        return _decode(family, latents)
    return pixels


def is_black(image: Image.Image) -> bool:
    """Whether a picture is black all over, as from a model that overflowed or has broken weights."""
    return all(high <= BLACK for _, high in image.convert("RGB").getextrema())  # type: ignore[misc]
