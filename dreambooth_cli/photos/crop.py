"""Which square of a photo is kept. Geometry only: sizes in, boxes out."""

from typing import Literal

Size = tuple[int, int]  # width, height in pixels
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom lie outside
Crop = Literal["center", "top"]


def square_box(size: Size, crop: Crop) -> Box:
    """The largest square of a picture of this size: its middle, or, of an upright one, its top."""
    width, height = size
    side = min(size)
    left = (width - side) // 2
    top = (height - side) // 2 if crop == "center" else 0
    return left, top, left + side, top + side


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
