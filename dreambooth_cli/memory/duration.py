"""How long a run may take, before any of it has been measured: a prediction from counted operations and the card's own figures. No torch.

One card and one kind of processor were measured (tests/benchmarks/card.md, speed.md). Another NVIDIA card is compared with that one by its
number of cores and their clock; nothing is predicted for other GPUs. A run's first steps correct the prediction.
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
MEASURED_TFLOPS = 66.9  # the H100's, in float32, by its cores and clock
# On it, seconds for a step with one photo and one class image (card.md), and the pictures' side in px.
MEASURED_STEP = {"sd": (0.242, 512), "sdxl": (0.587, 1024)}
FORWARD = 1 / 3  # share of the forward pass in forward and backward
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
    cores = cores or cores_allowed()
    rate = rate_of(gpu, facts) if plan.device != "cpu" else CPU_TFLOPS[plan.precision] * cores
    if rate is None:
        return None
    row = tflop_of(facts, plan.resolution)
    again = 1 + FORWARD if plan.gradient_checkpointing else 1
    step = row * again * sum(settings.rows) * settings.gradient_accumulation / rate
    images = settings.class_images * settings.class_image_steps * GUIDED * row * FORWARD / rate if settings.with_prior else 0.0
    by = f"{cores} core{'s' if cores > 1 else ''}" if plan.device == "cpu" else "the card's figures"
    return Prediction(step * settings.steps + images, step, by)


def rate_of(gpu: Gpu | None, facts: BaseFacts) -> float | None:
    """TFLOP a second that a card may reach on a base: what the measured card reached, less in proportion on a slower one. None where
    nothing is known."""
    if gpu is None or gpu.tflops is None or facts.family.name not in MEASURED_STEP:
        return None
    seconds, side = MEASURED_STEP[facts.family.name]
    figures = facts.family.figures
    linear, square = figures.tflop
    pixels = (side / 512) ** 2
    reached = 2 * (linear * pixels + square * pixels**2) / seconds
    return reached * min(1.0, gpu.tflops / MEASURED_TFLOPS)


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
