"""A photo as it is prepared: read where it has to be, the part of it that is kept, and its training picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from .buckets import bucket_for, cover_box
from .crop import Box, Size, moved, size_of, square_box, square_round, within
from .inspect import judge_cover, judge_size
from .looked import Looked
from .mask import Mask, read_mask, training_mask
from .pixels import Photo, read_photo, training_picture
from .subject import STANDS_OUT, Subject, cut_share, square_of

Crop = Literal["auto", "center", "top", "bottom", "left", "right", "pad", "none"]


@dataclass(frozen=True)
class Cut:
    """How photos are cut: to squares of `resolution` pixels, or, where there are `buckets`, in their own shapes."""

    crop: Crop
    resolution: int
    buckets: tuple[Size, ...] = ()


@dataclass(frozen=True)
class Part:
    """What is kept of a photo that is `kept`, `warned` about or `refused`, for a reason: its `box`, which is brought to the size `into`.
    `lost` is the share of what looks like its subject that the crop leaves out, where it chose."""

    status: str
    reason: str
    box: Box
    into: Size
    lost: float


@dataclass(frozen=True)
class Opened:
    """A photo that was read for its training pictures, with its mask where it has one."""

    photo: Photo
    mask: Mask | None

    def pictures(self, part: Part) -> tuple[Image.Image, Image.Image | None]:
        """What is trained on, and the mask of that. Raises PhotoError, the mask's."""
        mask = None if self.mask is None else training_mask(self.mask, part.box, part.into)
        return training_picture(self.photo, part.box, part.into), mask


def open_photo(path: Path, mask: Path | None, cut: Cut, own: Box | None = None) -> Opened:
    """Read a photo, and its mask; `own` is a box of its own, in pixels of the turned photo, all of it within.

    Raises PhotoError: without a hint it is the photo's, and its message the reason alone; with one it is the mask's.
    """
    photo = read_photo(path, cut.resolution)
    if own is not None:  # a large JPEG is decoded to what the whole photo needs, and its part may need more
        part = max(1, *size_of(within(own, photo.size)))
        photo = read_photo(path, max(cut.resolution, -(-cut.resolution * min(photo.size) // part)))
    return Opened(photo, None if mask is None else read_mask(mask, photo.size))


def part_of(looked: Looked, cut: Cut, own: Box | None) -> Part:
    """The part of a photo that is kept, and what is to be said of its size."""
    into, box = kept_part(looked.size, cut, own, looked.subject)
    seen = size_of(within(box, looked.size))
    status, reason = judge_cover(looked.size if own is None else seen, into) if cut.buckets else judge_size(seen, cut.resolution)
    chose = own is None and cut.crop not in ("pad", "none") and looked.subject.confidence > STANDS_OUT
    return Part(status, reason, box, into, cut_share(looked.subject, box, looked.size) if chose else 0.0)


def kept_part(size: Size, cut: Cut, own: Box | None, subject: Subject) -> tuple[Size, Box]:
    """The size that a photo of this upright size is brought to, and the part of it that is kept, in its pixels; a square round its own
    box, and one that holds all of it (`pad`), may reach beyond it."""
    square = cut.resolution, cut.resolution
    if own is not None and cut.buckets:
        into = bucket_for(size_of(own), cut.buckets)
        return into, moved(cover_box(size_of(own), into), own[:2])
    if own is not None:
        return square, square_round(own, size)
    if cut.crop == "none":
        into = bucket_for(size, cut.buckets)
        return into, cover_box(size, into)
    return square, square_of(subject, size) if cut.crop == "auto" else square_box(size, cut.crop)
