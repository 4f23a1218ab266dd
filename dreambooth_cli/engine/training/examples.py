"""Prepared photos and class images -> latents, once. What is kept is their distribution: each step takes a fresh sample of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ...errors import DreamboothError
from ..families.latent_diffusion import LatentDiffusion, LatentDistribution
from ..families.noising import Noising
from ..seeds import Place, Randomness, example_at, generator_of

LEAST_WEIGHT = 0.1  # of what a mask leaves out: with none at all the network would be free to draw anything there


@dataclass(frozen=True)
class Example:
    """One prepared picture. `latents`: their distribution, [1, c, h, w] each, in the machine's memory; `mirrored`: that of its
    mirrored twin. `prompts`: the rows of the run's prompts, under one of which it is trained in a step. `mask` [1, 1, h, w]: what each
    place of the latents counts in the loss; None: all alike. `sizes` and `mirrored_sizes`: the numbers that tell its size to a family
    that is told them."""

    latents: LatentDistribution
    prompts: tuple[int, ...]
    mirrored: LatentDistribution | None = None
    mask: Tensor | None = None
    sizes: tuple[int, ...] = ()
    mirrored_sizes: tuple[int, ...] = ()

    @property
    def shape(self) -> torch.Size:
        """That of its latents: c, h, w."""
        return self.latents.mean.shape[1:]


def latent_mask(path: Path, shape: torch.Size) -> Tensor:
    """A mask as the loss weighs latents of this shape [c, h, w]: [1, 1, h, w], the mean of the mask over what each place of the latents
    stands for, 1 where that is white, never under LEAST_WEIGHT."""
    with Image.open(path) as image:
        grey = torch.from_numpy(np.array(image.convert("L"), dtype=np.float32) / 255)
    return functional.adaptive_avg_pool2d(grey[None, None], tuple(shape[1:])).clamp(min=LEAST_WEIGHT)


def read_pixels(path: Path, *, mirror: bool = False) -> Tensor:
    """A picture as [1, 3, H, W] in -1..1."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32) / 127.5 - 1)
    pixels = pixels.permute(2, 0, 1)[None]
    return pixels.flip(-1) if mirror else pixels


def encode_pictures(family: LatentDiffusion, paths: Iterable[Path], *, mirror: bool = False) -> Iterator[LatentDistribution]:
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


def stack(encoded: Iterable[LatentDistribution]) -> LatentDistribution:
    """Distributions of single pictures of one size as one of n rows."""
    several = list(encoded)
    return LatentDistribution(torch.cat([one.mean for one in several]), torch.cat([one.std for one in several]))


def randomness_of(noising: Noising, examples: Sequence[Example], place: Place) -> Randomness:
    """What chance decides for a row, which is one of these examples, all of its kind."""
    number = example_at(place.seed, place.kind, place.step * place.rows + place.row, len(examples))
    example, generator = examples[number], generator_of(place.seed, place.step, place.kind, place.row)
    mirrored = example.mirrored is not None and bool(torch.rand((), generator=generator) < 0.5)
    chosen = 0
    if len(example.prompts) > 1:  # from a generator of its own: the other numbers are those of a run with one prompt
        ways = generator_of(place.seed, place.step, place.kind, place.row, "prompt")
        chosen = int(torch.randint(len(example.prompts), (), generator=ways))
    return Randomness(
        example=number,
        prompt=example.prompts[chosen],
        mirrored=mirrored,
        time=noising.random_time(generator, example.shape),
        latent_noise=torch.randn(example.shape, generator=generator),
        noise=torch.randn(example.shape, generator=generator),
    )
