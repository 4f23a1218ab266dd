"""How long a run may take, before any of it has been measured: a prediction from counted operations and the card's own figures. No torch.

One kind of card and one kind of processor were measured (tests/benchmarks/card.md, speed.md). Another NVIDIA card is compared with that one
by its number of cores and their clock; nothing is predicted for other GPUs. A run's first steps correct the prediction.
"""

from dataclasses import dataclass

from ..bases.catalog import BaseFacts
from ..gpu import Gpu
from ..machine import cores_allowed
from ..settings import TrainSettings
from .plan import Plan

# TFLOP a second of one core: float32 was measured at 0.025 (laptops differ by a factor of two); bf16 on processors that multiply it, by
# speed.md's run at true size.
CPU_TFLOPS = {"fp32": 0.03, "bf16": 0.12, "fp16": 0.03}
# Pictures of at most so many pixels a side keep one core busy, and that one less: 0.2 s for a step of pocket with four photos and two class
# images.
SMALL, SMALL_TFLOPS = 128, 0.01
# The H100's and the H200's, in float32, by their cores and clock. What a step reached on them stands in each family's figures. Stable
# Diffusion's steps waited for the processor, as it seems; klein's large products kept the card at work.
MEASURED_TFLOPS = 66.9
# The matrix units of these cards do fifteen times what their cores do in float32, those of GeForce and workstation cards twice that
# (NVIDIA's whitepapers). Half of the latter is assumed here, since none of them was measured.
FOR_DATA_CENTRES = ((8, 0), (9, 0), (10, 0), (10, 3))  # compute capabilities
OF_CORES = 1.0
FORWARD = 1 / 3  # share of the forward pass in forward and backward
OF_BASE_PRIOR = 1 + FORWARD  # passes for the base's own prediction, in the steps that have it: the base's, and the LoRA's with its backward
SHORT = 180  # seconds; a run that takes no longer needs no warning
GUIDED = 2  # passes of a denoising step with guidance


@dataclass(frozen=True)
class Prediction:
    """Seconds for a whole run and for one step, and what they are predicted from: `2 cores`, `the card's figures`."""

    seconds: float
    step: float
    by: str


def tflop_of(facts: BaseFacts, resolution: int) -> float:
    """TFLOP for forward and backward of one row at this resolution (the side in px)."""
    figures = facts.family.figures
    linear, square = figures.tflop
    pixels = (resolution**2 + figures.prompt_pixels) / (512**2 + figures.prompt_pixels)
    return (linear * pixels + square * pixels**2) * facts.denoiser / figures.denoiser


def predict(plan: Plan, facts: BaseFacts, settings: TrainSettings, gpu: Gpu | None, *, cores: int | None = None) -> Prediction | None:
    """How long a run may take; None on a card that nothing is known about. `cores` are the processor's (None: looked up)."""
    is_small = plan.resolution <= SMALL
    cores = 1 if is_small else cores or cores_allowed()
    a_core = SMALL_TFLOPS if is_small else CPU_TFLOPS[plan.precision]
    rate = rate_of(gpu, facts) if plan.device != "cpu" else a_core * cores
    if rate is None:
        return None
    row = tflop_of(facts, plan.resolution)
    again = 1 + FORWARD if plan.gradient_checkpointing else 1
    step = row * again * sum(settings.rows) * settings.gradient_accumulation / rate
    with_base = 1 + OF_BASE_PRIOR / settings.prior_every if settings.with_base_prior else 1
    passes = GUIDED if facts.family.guidance_of_class_images(settings.class_guidance_scale) > facts.family.no_guidance else 1
    images = settings.class_images * settings.class_image_steps * passes * row * FORWARD / rate if settings.with_prior else 0.0
    by = f"{cores} core{'s' if cores > 1 else ''}" if plan.device == "cpu" else "the card's figures"
    return Prediction(step * with_base * settings.steps + images, step, by)


def rate_of(gpu: Gpu | None, facts: BaseFacts) -> float | None:
    """TFLOP a second that a card may reach on a base: what the measured cards reached, less in proportion on a slower one, and no more than
    its matrix units do. None where nothing is known."""
    if gpu is None or gpu.tflops is None:
        return None
    rate = facts.family.figures.reached * min(1.0, gpu.tflops / MEASURED_TFLOPS)
    return rate if gpu.capability in FOR_DATA_CENTRES else min(rate, OF_CORES * gpu.tflops)


def words_of_time(seconds: float) -> str:
    """`about 40 minutes`, `about 15 hours`, `about 3 days`."""
    for size, unit, least in ((86400, "day", 2), (3600, "hour", 2), (60, "minute", 1)):
        if seconds >= least * size:
            count = round(seconds / size)
            return f"about {count} {unit}{'s' if count > 1 else ''}"
    return "about a minute"


def time_line(found: Prediction | None) -> str:
    """The line of the plan that says how long a run may take, or that this is not known."""
    if found is None:
        return "Time: not known, as no such GPU has been measured; train measures its first steps and then says."
    return f"Time: {words_of_time(found.seconds)}, predicted from {found.by}; train corrects it after its first steps."
