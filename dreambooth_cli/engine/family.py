"""What a model family must do for the loop. A new architecture is one new file that does this.

Shapes: B rows, T tokens, D embedding width, h x w latents of c channels.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """What a prompt tells the network: `embeddings` [B, T, D]; `pooled` [B, P] where the family has it (SDXL)."""

    embeddings: Tensor
    pooled: Tensor | None = None

    def rows(self, index: list[int]) -> "Conditioning":
        """One row for each entry of `index`. Row by row: a list as an index would be copied to the GPU, and waited for."""
        pooled = None if self.pooled is None else torch.stack([self.pooled[row] for row in index])
        return Conditioning(torch.stack([self.embeddings[row] for row in index]), pooled)

    def to(self, device: torch.device) -> "Conditioning":
        """The same on another device."""
        return Conditioning(self.embeddings.to(device), None if self.pooled is None else self.pooled.to(device))


@dataclass(frozen=True)
class LatentDistribution:
    """What the VAE makes of a picture: the mean and standard deviation of its latents, unscaled, float32 [B, c, h, w]."""

    mean: Tensor
    std: Tensor


class Family(Protocol):
    """A latent diffusion model that can be fine-tuned. `pipe` is a live diffusers pipeline; parts that idle are None in it."""

    pipe: Any

    def encode_images(self, pixels: Tensor) -> LatentDistribution:
        """Pixels [B, 3, H, W] in -1..1 -> the distribution of their latents."""

    def sample_latents(self, distribution: LatentDistribution, noise: Tensor) -> Tensor:
        """One draw of scaled latents: (mean + std * noise), shifted and scaled as the network expects them."""

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Prompts -> conditioning, a row each, with gradients where the text encoder is trained."""

    def draw_timestep(self, generator: torch.Generator) -> int:
        """One timestep, as this family trains on them."""

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The latents at their timesteps: alpha_t z + sigma_t eps."""

    def predict(self, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's prediction, [B, c, h, w]."""

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should predict: the noise, or the velocity."""

    def loss_weights(self, timesteps: Tensor, snr_gamma: float) -> Tensor:
        """Min-SNR weight of each row by its own timestep [B]; ones where `snr_gamma` is 0."""
