"""How long a run may take, before anything of it was measured: a prediction from counted arithmetic and the card's own figures. No torch.

What was measured is one card and one kind of processor (tests/benchmarks/card.md, speed.md). Another NVIDIA card is held against that
one by its cores and their clock; of other GPUs nothing is known, and nothing is said. The first steps of a run correct all of it.
"""

from dataclasses import dataclass

from ..bases.catalog import BaseFacts
from ..gpu import Gpu
from ..machine import cores_allowed
from ..settings import TrainSettings
from .plan import Plan

# Of one core: float32 measured at 0.025 (laptops differ by a factor of two); bf16 where the processor multiplies it, speed.md's true size.
CPU_TFLOPS = {"fp32": 0.03, "bf16": 0.12, "fp16": 0.03}
MEASURED_TFLOPS = 66.9  # the H100's, in float32, by its cores and clock
# Seconds a step of one photo and one class image on it (card.md), at the family's own size.
MEASURED_STEP = {"sd": (0.242, 512), "sdxl": (0.587, 1024)}
FORWARD = 1 / 3  # of a row's forward and backward
SHORT = 180  # seconds; what takes no longer needs no word before it
GUIDED = 2  # passes of a denoising step


@dataclass(frozen=True)
class Prediction:
    """Seconds of a whole run and of one step, and by what they are predicted: `2 cores`, `the card's figures`."""

    seconds: float
    step: float
    by: str


def tflop_of(facts: BaseFacts, resolution: int) -> float:
    """Of forward and backward of one row."""
    figures = facts.family.figures
    linear, square = figures.tflop
    pixels = (resolution**2 + figures.prompt_pixels) / (512**2 + figures.prompt_pixels)
    return (linear * pixels + square * pixels**2) * facts.denoiser / figures.denoiser


def predict(plan: Plan, facts: BaseFacts, settings: TrainSettings, gpu: Gpu | None, *, cores: int | None = None) -> Prediction | None:
    """How long a run may take; None on a card of which nothing is known."""
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
    """TFLOP a second that a card may reach on a base: what the measured one reached, and on a slower card its share of it."""
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
    """How long a run may take, or that this is not known."""
    if found is None:
        return "Time: not known, as no such GPU has been measured; train measures its first steps and then says."
    return f"Time: {words_of_time(found.seconds)}, predicted from {found.by}; train corrects it after its first steps."
