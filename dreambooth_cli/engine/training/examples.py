"""Prepared photos and class images -> latents, encoded once. Their distribution is kept, and each step takes a fresh sample from it."""

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

LEAST_WEIGHT = 0.1  # of what a mask leaves out: with weight 0 the network would be free to draw anything there


@dataclass(frozen=True)
class Example:
    """One prepared picture. `latents`: the distribution of its latents, mean and deviation [1, c, h, w], in the machine's memory;
    `mirrored`: the same of its mirror image. `prompts`: the numbers, among the run's prompts, of those that it may be trained under, one
    in each step. `mask` [1, 1, h, w]: how much each place of the latents counts in the loss; None: all the same. `sizes` and
    `mirrored_sizes`: the numbers that tell its size to a family that is told sizes."""

    latents: LatentDistribution
    prompts: tuple[int, ...]
    mirrored: LatentDistribution | None = None
    mask: Tensor | None = None
    sizes: tuple[int, ...] = ()
    mirrored_sizes: tuple[int, ...] = ()

    @property
    def shape(self) -> torch.Size:
        """The shape of its latents: c, h, w."""
        return self.latents.mean.shape[1:]


def latent_mask(path: Path, shape: torch.Size) -> Tensor:
    """A mask's picture as weights [1, 1, h, w] for the loss of latents of this shape [c, h, w]: the mean of the mask over the pixels that
    each place of the latents stands for, 1 where it is white, never less than LEAST_WEIGHT."""
    with Image.open(path) as image:
        grey = torch.from_numpy(np.array(image.convert("L"), dtype=np.float32) / 255)
    return functional.adaptive_avg_pool2d(grey[None, None], (shape[1], shape[2])).clamp(min=LEAST_WEIGHT)


def read_pixels(path: Path, *, mirror: bool = False) -> Tensor:
    """A picture as float32 [1, 3, H, W] in -1..1, mirrored left to right if `mirror`."""
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32) / 127.5 - 1)
    pixels = pixels.permute(2, 0, 1)[None]
    return pixels.flip(-1) if mirror else pixels


def encode_pictures(family: LatentDiffusion, paths: Iterable[Path], *, mirror: bool = False) -> Iterator[LatentDistribution]:
    """The latent distribution of each picture, on the CPU, one picture at a time: a batch would save little and need more memory.

    Raises DreamboothError if the latents of a picture are not finite.
    """
    for path in paths:
        encoded = family.encode_images(read_pixels(path, mirror=mirror))
        if not (encoded.mean.isfinite().all() and encoded.std.isfinite().all()):
            raise DreamboothError(
                f"the VAE turns {path} into latents that are not finite", "look at that picture, or use another base"
            )
        yield LatentDistribution(encoded.mean.cpu(), encoded.std.cpu())


def stack(encoded: Iterable[LatentDistribution]) -> LatentDistribution:
    """The distributions of n pictures of one size, stacked into one of n rows."""
    several = list(encoded)
    return LatentDistribution(torch.cat([one.mean for one in several]), torch.cat([one.std for one in several]))


def randomness_of(noising: Noising, examples: Sequence[Example], place: Place) -> Randomness:
    """What chance decides for the row at this place; `examples` are all examples of its kind."""
    number = example_at(place.seed, place.kind, place.step * place.rows + place.row, len(examples))
    example, generator = examples[number], generator_of(place.seed, place.step, place.kind, place.row)
    mirrored = example.mirrored is not None and bool(torch.rand((), generator=generator) < 0.5)
    chosen = 0
    if len(example.prompts) > 1:  # from a generator of its own, so that the other numbers are those of a run with one prompt
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
