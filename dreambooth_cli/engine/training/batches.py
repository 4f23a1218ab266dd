"""Rows of one size that go through the network in one pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..families.latent_diffusion import LatentDiffusion
from ..seeds import Randomness
from .examples import Example, stack


@dataclass(frozen=True)
class Row:
    """One row of a step: a photo or a class image, and what chance decides for it."""

    is_photo: bool
    example: Example
    random: Randomness


@dataclass(frozen=True)
class Batch:
    """Rows of one size, photos first, on the CPU: `latents` and `noise` [rows, c, h, w], `times` [rows], `prompts` (for each row, the
    number of its prompt among the run's prompts), `mask` (how much each place counts, [rows, 1, h, w]; None: all the same) and `sizes`
    (the numbers that tell each row's size, [rows, n]; None: the family is told none).

    The first `photos` rows are photos; `of` is how many photos and class images the whole loss has, of which this batch is a part.
    """

    latents: Tensor
    noise: Tensor
    times: Tensor
    prompts: tuple[int, ...]
    mask: Tensor | None
    sizes: Tensor | None
    photos: int
    of: tuple[int, int]


def batches_of(family: LatentDiffusion, rows: Sequence[Row], *, of: tuple[int, int]) -> Iterator[Batch]:
    """Put rows into as few batches as their sizes allow: one for each size. `of`: as in `Batch`."""
    for shape in dict.fromkeys(row.example.shape for row in rows):
        yield _batch(family, [row for row in rows if row.example.shape == shape], of)


def _batch(family: LatentDiffusion, rows: list[Row], of: tuple[int, int]) -> Batch:
    sources = [row.example.mirrored if row.random.mirrored and row.example.mirrored else row.example.latents for row in rows]
    latent_noise = torch.stack([row.random.latent_noise for row in rows])
    return Batch(
        latents=family.sample_latents(stack(sources), latent_noise),
        noise=torch.stack([row.random.noise for row in rows]),
        times=torch.tensor([row.random.time for row in rows]),
        prompts=tuple(row.random.prompt for row in rows),
        mask=_mask(rows),
        sizes=_sizes(rows),
        photos=sum(row.is_photo for row in rows),
        of=of,
    )


def _sizes(rows: list[Row]) -> Tensor | None:
    told = [row.example.mirrored_sizes if row.random.mirrored else row.example.sizes for row in rows]
    return torch.tensor(told, dtype=torch.float32) if all(told) else None


def _mask(rows: list[Row]) -> Tensor | None:
    if all(row.example.mask is None for row in rows):
        return None
    everywhere = torch.ones(1, 1, *rows[0].example.shape[1:])
    masks = [everywhere if row.example.mask is None else row.example.mask for row in rows]
    return torch.cat([mask.flip(-1) if row.random.mirrored else mask for row, mask in zip(rows, masks, strict=True)])
