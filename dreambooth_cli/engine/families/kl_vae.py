"""diffusers' AutoencoderKL as the families use it: one scale, and in some families one shift, for all channels."""

from typing import Any

import torch
from torch import Tensor

from .latent_diffusion import LatentDistribution


def encode(vae: Any, pixels: Tensor) -> LatentDistribution:
    """Pixels [B, 3, H, W] in -1..1 -> the distribution of their latents, float32 [B, c, H/f, W/f]."""
    with torch.no_grad():
        distribution = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
    return LatentDistribution(distribution.mean.float(), distribution.std.float())


def sample(config: Any, distribution: LatentDistribution, noise: Tensor) -> Tensor:
    """One sample of scaled latents, float32 [B, c, h, w] (Kingma and Welling 2013, eq. 10; scaled as by Rombach et al. 2022, appendix G).
    It takes the VAE's `config`, since the VAE itself may have been freed by then."""
    scaled: Tensor = (distribution.mean + distribution.std * noise - (config.shift_factor or 0.0)) * config.scaling_factor
    return scaled


def decode(vae: Any, latents: Tensor) -> Tensor:
    """Scaled latents [B, c, h, w] -> pixels [B, 3, H, W] in -1..1, in the VAE's number format."""
    unscaled = latents.to(vae.dtype) / vae.config.scaling_factor
    if vae.config.shift_factor:
        unscaled = unscaled + vae.config.shift_factor
    pixels: Tensor = vae.decode(unscaled, return_dict=False)[0]
    return pixels
