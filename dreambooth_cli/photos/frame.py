"""What lies round a photo that belongs to no photo: a border of one colour, or a phone's screen with its bars."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAME = 4  # of 255, by which pixels of one paper differ at most
DEEPEST = 0.6  # of the picture
MOSTLY = 0.6  # of a bar, that is paper
DROP = 0.4  # by how much of a row the paper's share falls where it ends
MARKS = (0.002, 0.25)  # the least and the most of a phone's bar that its signs take
NARROWEST = 0.025  # of a phone's screen, that a bar takes
PLAIN, WIDEST = 0.02, 0.35  # marks on a border, and its depth, at most

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Bar:
    """Paper along one edge: its depth as a share of the picture, its colour, and the share of it that is written on."""

    depth: float
    colour: tuple[float, ...]
    marks: float


@dataclass(frozen=True)
class Frame:
    """The bars at the left, top, right and bottom of a picture, where there are any."""

    left: Bar | None
    top: Bar | None
    right: Bar | None
    bottom: Bar | None

    @property
    def is_screen(self) -> bool:
        """Whether it has a phone's bars: above and below of one colour, with signs on them. What goes all round it, with hardly a mark on
        it, is a border."""
        bars = [bar for bar in (self.top, self.bottom) if bar]
        is_all_round = _alike(self.left, self.right) and all(bar.marks < PLAIN for bar in bars)
        if is_all_round or not _alike(self.top, self.bottom):
            return False
        return min(bar.depth for bar in bars) >= NARROWEST and MARKS[0] <= max(bar.marks for bar in bars) <= MARKS[1]

    @property
    def width(self) -> float:
        """The share of the picture that its border takes on its widest side; 0 where it has none."""
        pairs = [(one, other) for one, other in ((self.left, self.right), (self.top, self.bottom)) if _alike(one, other)]
        plain = [pair for pair in pairs if all(bar and bar.marks < PLAIN and bar.depth < WIDEST for bar in pair)]
        return max((bar.depth for pair in plain for bar in pair if bar), default=0.0)


def frame_of(pixels: Pixels) -> Frame:
    """The bars round a picture [rows, columns, 3], uint8."""
    # every other place along a row tells as much
    sideways, pixels = np.ascontiguousarray(pixels[::2].transpose(1, 0, 2)), pixels[:, ::2]
    return Frame(_bar(sideways), _bar(pixels), _bar(sideways[::-1]), _bar(pixels[::-1]))


def _bar(rows: Pixels) -> Bar | None:
    """The bar at the start of these rows: paper of one colour that ends all along a straight line."""
    if len(rows) < 32:
        return None
    head = rows[: int(len(rows) * DEEPEST) + 4].astype(np.int16)
    paper = np.median(head[:2].reshape(-1, 3), axis=0)
    same = (np.abs(head - paper.astype(np.int16)) <= SAME).all(axis=2)
    share = same.mean(axis=1)
    ends = np.arange(2, len(share) - 3)
    drops = (share[ends - 2] + share[ends - 1] - share[ends + 1] - share[ends + 2]) / 2
    drops[np.cumsum(share)[ends - 1] / ends < MOSTLY] = 0
    end = int(ends[drops.argmax()])
    if drops.max() < DROP:
        return None
    marks = float(1 - same[: max(1, end - 2)].mean())
    return Bar(end / len(rows), tuple(float(part) for part in paper), marks)


def _alike(one: Bar | None, other: Bar | None) -> bool:
    return one is not None and other is not None and max(abs(a - b) for a, b in zip(one.colour, other.colour, strict=True)) <= 2 * SAME
