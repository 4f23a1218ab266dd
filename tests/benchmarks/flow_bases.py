"""The flow families' bases at their full size, without values."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from dreambooth_cli.engine.families.latent_diffusion import Conditioning
from dreambooth_cli.families.klein import KLEIN
from dreambooth_cli.families.z_image import Z_IMAGE

# of a base: its transformer and VAE, its pipeline; the tokens and the width of its prompts, what its latents have of channels, and how
# many pixels stand behind one of them
Z_PROMPT = 24  # tokens of a short prompt with its chat
BASES = {"z-image": (Z_PROMPT, 2560, 16, 8), "klein": (512, 7680, 128, 16)}


def make_pipe(name: str) -> Any:
    """A base of this name on torch's meta device, without a text encoder."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    with torch.device("meta"):
        if name == "z-image":
            transformer, plain = ZImageTransformer2DModel(**Z_IMAGE.true_size["transformer"]), AutoencoderKL(**Z_IMAGE.true_size["vae"])
            return ZImagePipeline(scheduler, plain, None, None, transformer)
        other = Flux2Transformer2DModel(**KLEIN.true_size["transformer"])
        vae: Any = AutoencoderKLFlux2()
    vae.bn.running_mean, vae.bn.running_var = torch.zeros(128), torch.ones(128)  # kept when the VAE is gone
    return Flux2KleinPipeline(scheduler, vae, None, None, other)


def conditions(name: str, prompts: int, dtype: torch.dtype) -> Conditioning:
    """What the text encoder makes of so many prompts, on the card."""
    tokens, width, _, _ = BASES[name]
    lengths = (tokens,) * prompts if name == "z-image" else None
    return Conditioning(torch.empty(prompts, tokens, width, dtype=dtype, device="cuda"), lengths=lengths)


def latent_shape(name: str, resolution: int) -> tuple[int, int, int]:
    """Of one picture's latents: c, h, w."""
    _, _, channels, factor = BASES[name]
    return channels, resolution // factor, resolution // factor
