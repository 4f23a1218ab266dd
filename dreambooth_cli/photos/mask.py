"""A photo's mask: white where the subject is, black where nothing is to be learned, of the photo's own size."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from ..errors import PhotoError
from .crop import Box, Size
from .files import printable
from .pixels import BLACK, Photo, read_photo, training_picture
from .subject import MAP, Subject

LEAST = 26  # of 255: what is darker counts as little as black
MEND = "mend that mask, or take it out of the folder: white is the subject, black the rest"
PALE = 0.25  # of what lies outside, on the contact sheet


@dataclass(frozen=True)
class Mask(Photo):
    """The mask of a photo, in greys; `name` is its file's."""

    name: str


def read_mask(path: Path, size: Size) -> Mask:
    """The mask of a photo of this upright size. Raises PhotoError that names it."""
    name = printable(path.name)
    try:
        mask = read_photo(path, max(size), under=BLACK)
    except PhotoError as error:
        raise PhotoError(f"{name}: {error.message}", MEND) from error
    if mask.size != size:
        told = f"a mask of {mask.size[0]} x {mask.size[1]} pixels, and its photo has {size[0]} x {size[1]}"
        raise PhotoError(f"{name}: {told}", "a mask has the size of its photo, as that is upright")
    grey = mask.image.convert("L")
    if not _has_white(grey):
        raise PhotoError(f"{name}: an empty mask: nothing in it is white", MEND)
    return Mask(grey, mask.size, name)


def subject_of(mask: Mask) -> Subject:
    """What a mask shows, which is the user's own word for where the subject of the photo lies."""
    width, height = mask.size
    scale = MAP / max(width, height)
    cells = mask.image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BOX)
    weight = np.asarray(cells, np.float32)
    box = mask.image.point(lambda value: 255 if value >= LEAST else 0).getbbox()
    return Subject(weight / weight.sum(), box or (0, 0, width, height), confidence=1.0)


def training_mask(mask: Mask, box: Box, into: Size) -> Image.Image:
    """A mask as its photo is cut and resized. Raises PhotoError where nothing is left of what it shows."""
    picture = training_picture(mask, box, into, by=Image.Resampling.BOX)  # means alone: Lanczos would draw seams along edges
    if not _has_white(picture):
        raise PhotoError(
            f"{mask.name}: the crop leaves nothing of what this mask shows",
            "keep another part of that photo: --crop, or a box of its own in project.toml",
        )
    return picture


def masked(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture in which what its mask leaves out is pale, to be looked at."""
    pale = Image.blend(Image.new("RGB", picture.size, "white"), picture, PALE)
    return Image.composite(picture, pale, mask.resize(picture.size))


def _has_white(mask: Image.Image) -> bool:
    return cast(tuple[int, int], mask.getextrema())[1] >= LEAST
