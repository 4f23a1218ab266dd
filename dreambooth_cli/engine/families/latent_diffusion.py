"""What a model family does, alive: the loop, the drawing and the saving ask this and no more of it.

Shapes: B rows, T tokens, D embedding width, h x w latents of c channels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from ...families.family import Family
from .noising import Noising


@dataclass(frozen=True)
class Conditioning:
    """What a prompt tells the network: `embeddings` [B, T, D]; `pooled` [B, P] where the family has it (SDXL); `lengths`, of the
    families whose prompts are not read to the end of T, the tokens of each row. Beside it `sizes` [B, n], where the network is told the
    sizes of pictures that are not simply whole ones of the training size."""

    embeddings: Tensor
    pooled: Tensor | None = None
    lengths: tuple[int, ...] | None = None
    sizes: Tensor | None = None

    def rows(self, index: list[int]) -> "Conditioning":
        """One row for each entry of `index`. Row by row: a list as an index would be copied to the GPU, and waited for."""
        lengths = None if self.lengths is None else tuple(self.lengths[row] for row in index)
        return self._each(lambda value: torch.stack([value[row] for row in index]), lengths)

    def to(self, device: torch.device) -> "Conditioning":
        """The same on another device."""
        return self._each(lambda value: value.to(device), self.lengths)

    def _each(self, change: Callable[[Tensor], Tensor], lengths: tuple[int, ...] | None) -> "Conditioning":
        pooled, sizes = (None if one is None else change(one) for one in (self.pooled, self.sizes))
        return Conditioning(change(self.embeddings), pooled, lengths, sizes)


@dataclass(frozen=True)
class LatentDistribution:
    """What the VAE makes of a picture: the mean and standard deviation of its latents, unscaled, float32 [B, c, h, w]."""

    mean: Tensor
    std: Tensor


class LatentDiffusion(Protocol):
    """A latent diffusion model that can be fine-tuned. `pipe` is a live diffusers pipeline; parts that idle are None in it."""

    record: Family
    pipe: Any
    noising: Noising

    def encode_images(self, pixels: Tensor) -> LatentDistribution:
        """Pixels [B, 3, H, W] in -1..1 -> the distribution of their latents."""

    def sample_latents(self, distribution: LatentDistribution, noise: Tensor) -> Tensor:
        """One sample of scaled latents: (mean + std * noise), shifted and scaled as the network expects them."""

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, c, h, w] -> pixels [B, 3, H, W] in -1..1, in the VAE's number format."""

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Prompts -> conditioning, a row each, with gradients where the text encoder is trained."""

    def predict(self, noisy_latents: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's prediction of `noising`'s target, [B, c, h, w], at its times [B]."""

    def prompted(self, prompts: list[str], negative_prompt: str) -> Mapping[str, Any]:
        """What the pipeline's call takes of prompts, and of one that it is guided away from ("": none but the empty one)."""

    def embed(self, prompt: str, *, guided: bool) -> Mapping[str, Any]:
        """What the pipeline's call takes in place of a prompt, one row: tensors with a first axis of 1, lists of one, None."""

    def unpack(self, drawn: Tensor, height: int, width: int) -> Tensor:
        """What the pipeline's last step leaves of pictures of this size in pixels, as latents [B, c, h, w]."""

    @staticmethod
    def small_networks() -> dict[str, Any]:
        """The family's trainable networks by name, of the real classes and a few weights."""

    @staticmethod
    def small_pass(networks: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Tensor:
        """A forward pass through the small networks: a scalar in float32 with gradients."""


def alive(record: Family, pipe: Any) -> LatentDiffusion:
    """A pipeline as what its family does. Raises ModelUnavailable where the pipeline can't be trained."""
    family: LatentDiffusion = live_class(record)(pipe)
    return family


def live_class(record: Family) -> Any:
    """The class that a family's record names."""
    module, _, name = record.live.partition(":")
    return getattr(import_module(module), name)


def denoiser_of(family: LatentDiffusion) -> Any:
    """The network that a family's noise is taken away by: a UNet, a transformer."""
    return getattr(family.pipe, family.record.denoiser)


def encode_frozen(family: LatentDiffusion, prompts: list[str]) -> Conditioning:
    """The embeddings of prompts whose encoder stays as it is, without gradients."""
    with torch.no_grad():
        return family.encode_prompts(prompts)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The number format of a forward pass on the device that works (between its turns a network may lie elsewhere); fp32 is none at
    all."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
