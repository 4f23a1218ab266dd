"""Sizes for photos that keep their shape: about as many pixels as the base's square has, the sides in whole steps. A small set, so
that many photos share a size (aspect ratio bucketing). Geometry only."""

from collections.abc import Sequence

from .crop import Box, Size

STEP = 64  # pixels: what a VAE of factor 8 and three halvings of a UNet divide evenly
APART = 0.1  # a bucket's pixels and the square's, at most
FINE = 12  # steps in the square's side from which on the nearest size alone is near enough
LONGEST = 2.5  # sides to one


def bucket_sizes(resolution: int, step: int = STEP) -> tuple[Size, ...]:
    """The sizes that photos may have on a base of this side in pixels: the square first, each other lying and standing.

    Where the base is small, steps are an eighth of its side; such wide ones leave few shapes, so both sides next to the exact one count.
    """
    step, area = min(step, max(8, resolution // 64 * 8)), resolution * resolution
    found = {(resolution, resolution): None}
    for longer in range(resolution + step, int(resolution * LONGEST), step):
        below = area // longer // step * step
        nearest = min(below, below + step, key=lambda shorter: abs(shorter * longer - area))
        for shorter in (nearest,) if resolution >= FINE * step else (below, below + step):
            if 0 < shorter < longer <= LONGEST * shorter and abs(longer * shorter - area) <= APART * area:
                found |= {(longer, shorter): None, (shorter, longer): None}
    return tuple(found)


def largest_of(buckets: Sequence[Size]) -> int:
    """The pixels of the largest."""
    return max(width * height for width, height in buckets)


def bucket_for(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket that a photo of this size fills with the least cut off; of equals the one with more pixels."""
    return max(buckets, key=lambda bucket: (_kept(size, bucket), bucket[0] * bucket[1]))


def cover_box(size: Size, bucket: Size) -> Box:
    """The largest part, from the middle, of a photo of this size that has the shape of a bucket."""
    width, height = size
    across = min(width, round(height * bucket[0] / bucket[1]))
    down = min(height, round(width * bucket[1] / bucket[0]))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _kept(size: Size, bucket: Size) -> float:
    one, other = size[0] * bucket[1], size[1] * bucket[0]
    return min(one, other) / max(one, other)
