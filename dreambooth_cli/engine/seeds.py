"""Every random number of a step, from (seed, step, row) alone: so there is no random state to save, a resume is exact, and
accumulation, batch split and number of processes change none.

Generators live on the CPU, so that a GPU gets the same numbers. Seeds are hashes, never `seed + step`, which would make
step 1 of seed 0 and step 0 of seed 1 the same.
"""

from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor


@dataclass(frozen=True)
class Place:
    """Where a row stands: the `row`-th of the `rows` of its kind (instance, class) in the global batch of a run's step."""

    seed: int
    step: int
    kind: str
    row: int
    rows: int


@dataclass(frozen=True)
class Randomness:
    """What chance decides for a row of a step: which example, under which of its prompts, mirrored or not, its time (a timestep or a
    sigma), the noise of its latents and eps."""

    example: int
    prompt: int
    mirrored: bool
    time: int | float
    latent_noise: Tensor
    noise: Tensor


def part_of(rows: int, parts: int, part: int) -> range:
    """The rows of one of so many equal parts of a global batch: of a process, of a pass."""
    each = rows // parts
    return range(part * each, (part + 1) * each)


def seed_of(*parts: object) -> int:
    """63 bits of a hash of the parts."""
    digest = blake2b("/".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_of(*parts: object) -> torch.Generator:
    """A CPU generator seeded with a hash of the parts."""
    return torch.Generator("cpu").manual_seed(seed_of(*parts))


def example_at(seed: int, kind: str, position: int, count: int) -> int:
    """Which of `count` examples stands at `position` of the endless sequence of shuffled epochs."""
    epoch, place = divmod(position, count)
    order = torch.randperm(count, generator=generator_of(seed, kind, "epoch", epoch))
    return int(order[place])
