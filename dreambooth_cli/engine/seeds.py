"""Every random number of a step follows from (seed, step, row) alone: there is no random state to save, a resume is exact, and neither
accumulation nor the batch split nor the number of processes changes any of them.

Generators live on the CPU, so that a GPU gets the same numbers. Seeds are hashes, never `seed + step`, which would make
step 1 of seed 0 and step 0 of seed 1 the same.
"""

from dataclasses import dataclass
from hashlib import blake2b

import torch
from torch import Tensor


@dataclass(frozen=True)
class Place:
    """Where a row stands: row `row` (from 0) of the `rows` rows of its kind (`instance` or `class`) in the global batch of a step."""

    seed: int
    step: int
    kind: str
    row: int
    rows: int


@dataclass(frozen=True)
class Randomness:
    """What chance decides for a row of a step: the number of its example and of its prompt, whether it is mirrored, its time (a timestep
    or a sigma), the noise [c, h, w] that samples its latents, and the noise eps [c, h, w] that is added to them."""

    example: int
    prompt: int
    mirrored: bool
    time: int | float
    latent_noise: Tensor
    noise: Tensor


def part_of(rows: int, parts: int, part: int) -> range:
    """The rows of part number `part` when a global batch is split into `parts` equal parts, for processes or for passes."""
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
    """Which of `count` examples is at `position` in the endless sequence of shuffled epochs."""
    epoch, place = divmod(position, count)
    order = torch.randperm(count, generator=generator_of(seed, kind, "epoch", epoch))
    return int(order[place])
