"""Which square of a photo is kept. Geometry only: sizes in, boxes out."""

from typing import Literal

Size = tuple[int, int]  # width, height in pixels
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom lie outside
Crop = Literal["center", "top", "bottom", "left", "right", "pad"]


def square_box(size: Size, crop: Crop) -> Box:
    """The largest square of a picture of this size: its middle, or what lies at a side, where it is longer that way. With `pad` the
    smallest square that holds all of it, which reaches beyond it."""
    width, height = size
    side = max(size) if crop == "pad" else min(size)
    left = {"left": 0, "right": width - side}.get(crop, (width - side) // 2)
    top = {"top": 0, "bottom": height - side}.get(crop, (height - side) // 2)
    return left, top, left + side, top + side


def square_round(box: Box, size: Size) -> Box:
    """The smallest square round a box, central on it where there is room; it reaches beyond a picture of this size only where that is
    narrower than the box is long."""
    side = max(box[2] - box[0], box[3] - box[1])
    left, top = (_start(box[axis], box[axis + 2], side, size[axis]) for axis in (0, 1))
    return left, top, left + side, top + side


def _start(low: int, high: int, side: int, length: int) -> int:
    if side > length:
        return (length - side) // 2
    return min(max(0, (low + high - side) // 2), length - side)


def within(box: Box, size: Size) -> Box:
    """The part of a box that lies in a picture of this size."""
    return max(0, box[0]), max(0, box[1]), min(size[0], box[2]), min(size[1], box[3])


def scaled_box(box: Box, size: Size, scaled: Size) -> tuple[float, float, float, float]:
    """A box of a picture of `size` in the same picture at size `scaled`, within its edges."""
    across, down = scaled[0] / size[0], scaled[1] / size[1]
    left, top, right, bottom = box
    return left * across, top * down, min(right * across, scaled[0]), min(bottom * down, scaled[1])


def size_of(box: Box) -> Size:
    """The width and the height of a box."""
    return box[2] - box[0], box[3] - box[1]


def moved(box: Box, by: tuple[int, int]) -> Box:
    """The same box elsewhere: so many pixels to the right, and down."""
    return box[0] + by[0], box[1] + by[1], box[2] + by[0], box[3] + by[1]
