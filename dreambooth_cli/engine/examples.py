"""Prepared photos and class images -> latents, once. What is kept is their distribution: each step draws a fresh sample."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DreamboothError
from .draws import Draw, example_at, generator_of
from .families.latent_diffusion import LatentDiffusion, LatentDistribution


@dataclass(frozen=True)
class Examples:
    """Encoded pictures, n of them: `mean` and `std` float32 [n, c, h, w], in the machine's memory; `mirrored` the same of their
    mirrored twins, or None."""

    distribution: LatentDistribution
    mirrored: LatentDistribution | None = None

    def __len__(self) -> int:
        return len(self.distribution.mean)

    def sample(self, family: LatentDiffusion, draws: list[Draw]) -> Tensor:
        """Scaled latents [rows, c, h, w], a fresh draw for each row."""
        sources = [self.mirrored if draw.mirrored and self.mirrored else self.distribution for draw in draws]
        mean = torch.stack([source.mean[draw.example] for source, draw in zip(sources, draws, strict=True)])
        std = torch.stack([source.std[draw.example] for source, draw in zip(sources, draws, strict=True)])
        noise = torch.stack([draw.latent_noise for draw in draws])
        return family.sample_latents(LatentDistribution(mean, std), noise)


def read_pixels(path: Path, *, mirror: bool = False) -> Tensor:
    """A picture as [1, 3, H, W] in -1..1."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32) / 127.5 - 1)
    pixels = pixels.permute(2, 0, 1)[None]
    return pixels.flip(-1) if mirror else pixels


def encode_pictures(family: LatentDiffusion, paths: list[Path], *, mirror: bool = False) -> Iterator[LatentDistribution]:
    """The latent distribution of each picture in turn, one at a time: a batch would save little and peak higher.

    Raises DreamboothError where the VAE makes something that is not finite of a picture.
    """
    for path in paths:
        encoded = family.encode_images(read_pixels(path, mirror=mirror))
        if not (encoded.mean.isfinite().all() and encoded.std.isfinite().all()):
            raise DreamboothError(
                f"the VAE makes latents of {path} that are not finite", "look at that picture, or use another base"
            )
        yield LatentDistribution(encoded.mean.cpu(), encoded.std.cpu())


def stack(encoded: list[LatentDistribution]) -> LatentDistribution:
    """Distributions of single pictures as one of n rows."""
    return LatentDistribution(torch.cat([one.mean for one in encoded]), torch.cat([one.std for one in encoded]))


def draw_row(
    family: LatentDiffusion, *, seed: int, step: int, row: int, rows: int, kind: str, count: int, mirror: bool, shape: torch.Size
) -> Draw:
    """The draws of row `row` of step `step`. `rows` is the number of rows of this kind (instance, class) in the global batch."""
    generator = generator_of(seed, step, kind, row)
    mirrored = mirror and bool(torch.rand((), generator=generator) < 0.5)
    return Draw(
        example=example_at(seed, kind, step * rows + row, count),
        mirrored=mirrored,
        time=family.noising.draw_time(generator, shape),
        latent_noise=torch.randn(shape, generator=generator),
        noise=torch.randn(shape, generator=generator),
    )
