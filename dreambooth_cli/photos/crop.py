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
