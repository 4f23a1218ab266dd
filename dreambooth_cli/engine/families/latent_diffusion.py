"""What a model family must be able to do: this is all that training, drawing and saving ask of it.

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
    """What prompts tell the network: `embeddings` [B, T, D]; `pooled` [B, P] in families that have it (SDXL); `lengths`, the number of
    tokens in each row, in families where not all of T is read. Besides, `sizes` [B, n]: the numbers that tell the network a picture's
    size, where it is not simply a whole one of the training size."""

    embeddings: Tensor
    pooled: Tensor | None = None
    lengths: tuple[int, ...] | None = None
    sizes: Tensor | None = None

    def rows(self, index: list[int]) -> "Conditioning":
        """The rows of these numbers, which may repeat. Taken one by one: a list used as an index would be copied to the GPU, and waited
        for."""
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
    """What the VAE makes of pictures: the mean and standard deviation of their latents, unscaled, float32 [B, c, h, w] each."""

    mean: Tensor
    std: Tensor


class LatentDiffusion(Protocol):
    """A latent diffusion model that can be fine-tuned. `pipe` is its diffusers pipeline, in which parts that are not needed may be
    None."""

    record: Family
    pipe: Any
    noising: Noising

    def encode_images(self, pixels: Tensor) -> LatentDistribution:
        """Pixels [B, 3, H, W] in -1..1 -> the distribution of their latents."""

    def sample_latents(self, distribution: LatentDistribution, noise: Tensor) -> Tensor:
        """One sample of the latents, mean + std * noise, shifted and scaled as the network expects them; `noise` is standard normal."""

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, c, h, w] -> pixels [B, 3, H, W] in -1..1, in the VAE's number format."""

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Prompts -> conditioning, a row each, with gradients if the text encoder is trained."""

    def predict(self, noisy_latents: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """The network's prediction of `noising`'s target, [B, c, h, w], for noisy latents at these times [B]."""

    def prompted(self, prompts: list[str], negative_prompt: str) -> Mapping[str, Any]:
        """The arguments of the pipeline's call for prompts, and for the negative prompt to guide it away from ("": the empty one)."""

    def embed(self, prompt: str, *, guided: bool) -> Mapping[str, Any]:
        """The arguments of the pipeline's call in place of one prompt: tensors with a first axis of 1, lists of one, or None. `guided`:
        also those in place of the empty prompt, which it is guided away from."""

    def unpack(self, drawn: Tensor, height: int, width: int) -> Tensor:
        """What the pipeline's last step gives for pictures of this size in pixels, as latents [B, c, h, w]."""

    @staticmethod
    def small_networks() -> dict[str, Any]:
        """The family's trainable networks by name, of the real classes but tiny."""

    @staticmethod
    def small_pass(networks: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Tensor:
        """A forward pass through the small networks that gives a scalar loss in float32, with gradients."""


def alive(record: Family, pipe: Any) -> LatentDiffusion:
    """A pipeline as its family's live class. Raises ModelUnavailable if it can't be trained."""
    family: LatentDiffusion = live_class(record)(pipe)
    return family


def live_class(record: Family) -> Any:
    """The class that a family's record names as its live one."""
    module, _, name = record.live.partition(":")
    return getattr(import_module(module), name)


def denoiser_of(family: LatentDiffusion) -> Any:
    """The network that removes noise: a UNet or a transformer."""
    return getattr(family.pipe, family.record.denoiser)


def encode_frozen(family: LatentDiffusion, prompts: list[str]) -> Conditioning:
    """The embeddings of prompts by text encoders that are not trained, without gradients."""
    with torch.no_grad():
        return family.encode_prompts(prompts)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context of a forward pass on `device`, the one that computes (a network that waits may be elsewhere); for fp32 it does
    nothing."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)
