"""What is measured of a photo, once, on a small copy of it: enough to judge it by itself and beside the others, and little to keep."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 512  # pixels of the longer side of the small copy
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
Floats = NDArray[Any]


@dataclass(frozen=True)
class Measures:
    """One photo's figures. Light from 0 (black) to 1."""

    bright: float  # the light that 1 pixel of 20 surpasses


def measure(image: Image.Image) -> Measures:
    """The figures of a photo in RGB, of any size."""
    small = np.asarray(smaller(image), np.float32) / 255
    light = small @ LUMA
    return Measures(bright=float(np.percentile(light, 95)))


def smaller(image: Image.Image, side: int = SIDE) -> Image.Image:
    """The picture with `side` pixels on its longer side, or as it is where it has no more."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
