"""Noise schedulers: the names that `--scheduler` takes, and the classes of diffusers that a base may come with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Noise = Literal["diffusion", "flow"]
SchedulerName = Literal["ddim", "ddpm", "pndm", "euler", "euler-a", "heun", "dpm++", "unipc"]


@dataclass(frozen=True)
class Scheduler:
    """A class of diffusers that draws from the noise of one kind. `options`: what it is told beside the base's own config."""

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
# What a base's own scheduler may be. Diffusion: those that add noise as DDPM does, alpha and sigma of whole timesteps, from betas.
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
# Why a base with any other is refused, by a piece of the class's name.
NOT_TRAINED = {
    "EDM": "it was trained on EDM's continuous noise (Playground 2.5, CosXL and the like)",
    "FlowMatch": "it was trained by flow matching",
    "LCM": "it is distilled to draw in a few steps (a latent consistency model)",
    "TCD": "it is distilled to draw in a few steps (trajectory consistency)",
    "CMStochastic": "it is a consistency model",
}
# Those that need a package which this program does not ask for, and what draws in their place where it is not here.
NEEDS = {
    "LMSDiscreteScheduler": ("scipy", "EulerDiscreteScheduler"),
    "DPMSolverSDEScheduler": ("torchsde", "DPMSolverMultistepScheduler"),
}
BETA_SIGMAS_NEED = "scipy"
# Those that draw from a last timestep which is noise alone (zero terminal SNR).
KEEP_ZERO_SNR = (
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "UniPCMultistepScheduler",
)


def names_for(noise: Noise) -> tuple[SchedulerName, ...]:
    """The names that draw from a kind of noise."""
    return tuple(name for name, scheduler in SCHEDULERS.items() if scheduler.noise == noise)
