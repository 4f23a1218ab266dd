"""Noise schedulers: the names that `--scheduler` takes, and the diffusers classes that a base may come with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Noise = Literal["diffusion", "flow"]
SchedulerName = Literal["ddim", "ddpm", "pndm", "euler", "euler-a", "heun", "dpm++", "unipc"]


@dataclass(frozen=True)
class Scheduler:
    """A diffusers class that draws with one kind of noise. `options`: arguments in addition to the base's own config."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    noise: Noise = "diffusion"


SCHEDULERS: dict[SchedulerName, Scheduler] = {
    "ddim": Scheduler("DDIMScheduler"),
    "ddpm": Scheduler("DDPMScheduler"),
    "pndm": Scheduler("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": Scheduler("EulerDiscreteScheduler"),
    "euler-a": Scheduler("EulerAncestralDiscreteScheduler"),
    "heun": Scheduler("HeunDiscreteScheduler"),
    "dpm++": Scheduler("DPMSolverMultistepScheduler"),
    "unipc": Scheduler("UniPCMultistepScheduler"),
}
# What a base's own scheduler may be. For diffusion: those that add noise as DDPM does, with alpha and sigma of whole timesteps from betas.
TRAINED: Mapping[Noise, tuple[str, ...]] = {
    "diffusion": (
        *(scheduler.kind for scheduler in SCHEDULERS.values() if scheduler.noise == "diffusion"),
        "LMSDiscreteScheduler",
        "DPMSolverSinglestepScheduler",
        "DPMSolverSDEScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "DEISMultistepScheduler",
        "SASolverScheduler",
        "DDIMParallelScheduler",
        "DDPMParallelScheduler",
    ),
    "flow": ("FlowMatchEulerDiscreteScheduler",),
}
# Why a base with another scheduler is refused, by a piece of the class's name.
NOT_TRAINED = {
    "EDM": "it was trained on EDM's continuous noise (Playground 2.5, CosXL and the like)",
    "FlowMatch": "it was trained by flow matching",
    "LCM": "it is distilled to draw in a few steps (a latent consistency model)",
    "TCD": "it is distilled to draw in a few steps (trajectory consistency)",
    "CMStochastic": "it is a consistency model",
}
# Schedulers that need a package which this program does not depend on, and what draws instead if it is not installed.
NEEDS = {
    "LMSDiscreteScheduler": ("scipy", "EulerDiscreteScheduler"),
    "DPMSolverSDEScheduler": ("torchsde", "DPMSolverMultistepScheduler"),
}
BETA_SIGMAS_NEED = "scipy"
# Schedulers that can draw from a last timestep of pure noise (zero terminal SNR).
KEEP_ZERO_SNR = (
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
)


def names_for(noise: Noise) -> tuple[SchedulerName, ...]:
    """The names for `--scheduler` that draw with a kind of noise."""
    return tuple(name for name, scheduler in SCHEDULERS.items() if scheduler.noise == noise)
