"""A photo as it is prepared: read once, the part of it that is kept, its training picture, and small copies, so that it can go itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from .buckets import bucket_for, cover_box
from .crop import Box, Size, moved, size_of, square_box, square_round, within
from .files import Photo, read_photo, training_picture
from .inspect import judge_cover, judge_size
from .mask import masked, read_mask, subject_of, training_mask
from .measures import smaller
from .sheet import small_picture
from .subject import STANDS_OUT, Subject, cut_share, find_subject, square_of

Crop = Literal["auto", "center", "top", "bottom", "left", "right", "pad", "none"]


@dataclass(frozen=True)
class Cut:
    """How photos are cut: to squares of `resolution` pixels, or, where there are `buckets`, in their own shapes."""

    crop: Crop
    resolution: int
    buckets: tuple[Size, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A photo that was read, and is `kept`, `warned` about or `refused`, for a reason. `box` of it is brought to the size `into`.

    `picture` is what is trained on, `mask` the mask of that; `small` a copy of the whole photo, `subject` what looks like its subject,
    or what its mask says it is, and `lost` the share of that which the crop leaves out, where it chose; `shown` is for the contact
    sheet.
    """

    status: str
    reason: str
    box: Box
    into: Size
    picture: Image.Image
    mask: Image.Image | None
    small: Photo
    subject: Subject
    lost: float
    shown: Image.Image


def open_photo(path: Path, mask: Path | None, cut: Cut, own: Box | None = None) -> Opened:
    """Read a photo, and its mask, and cut it; `own` is a box of its own, in pixels of the turned photo, all of it within.

    Raises PhotoError: without a hint it is the photo's, and its message the reason alone; with one it is the mask's.
    """
    photo = read_photo(path, cut.resolution)
    if own is not None:  # a large JPEG is decoded to what the whole photo needs, and its part may need more
        part = max(1, *size_of(within(own, photo.size)))
        photo = read_photo(path, max(cut.resolution, -(-cut.resolution * min(photo.size) // part)))
    small = Photo(smaller(photo.image), photo.size)
    whole = None if mask is None else read_mask(mask, photo.size)
    subject = find_subject(small) if whole is None else subject_of(whole)
    into, box = kept_part(photo.size, cut, own, subject)
    seen = size_of(within(box, photo.size))
    status, reason = judge_cover(photo.size if own is None else seen, into) if cut.buckets else judge_size(seen, cut.resolution)
    shown = small_picture(small.image)
    chose = own is None and cut.crop not in ("pad", "none") and subject.confidence > STANDS_OUT
    return Opened(
        status=status,
        reason=reason,
        box=box,
        into=into,
        picture=training_picture(photo, box, into),
        mask=None if whole is None or status == "refused" else training_mask(whole, box, into),
        small=small,
        subject=subject,
        lost=cut_share(subject, box, photo.size) if chose else 0.0,
        shown=shown if whole is None else masked(shown, whole.image),
    )


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
