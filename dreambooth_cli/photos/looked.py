"""What is known of a photo however it is cropped: where its subject lies, what is measured of it, and how it looks on the contact sheet.

It is kept in the cache under the content of the photo and its mask, so that a photo that was looked at is not decoded again.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..disk import make_folder, write_whole
from ..paths import cache_folder
from .crop import Size
from .frame import Bar, Frame
from .mask import Mask, masked, subject_of
from .measures import Measures, measure, smaller
from .pixels import Photo
from .sheet import small_picture
from .subject import Subject, find_subject

VERSION = 4  # counts up when the same photo would be known otherwise
MOST_KEPT = 2000  # photos, 200 KB each
FIGURES = ("blur", "bright", "clipped", "paired", "white", "clipped_subject", "heaped", "detail")
ARRAYS = ("thumb", "colours", "weight")
BARS = ("left", "top", "right", "bottom")


@dataclass(frozen=True, eq=False)
class Looked:
    """A photo of this upright size: what looks like its subject, or what its mask says it is; what is measured of it; and a small copy of
    the whole of it, its mask laid over."""

    size: Size
    subject: Subject
    measures: Measures
    shown: Image.Image


def look_at(photo: Photo, mask: Mask | None) -> Looked:
    """Look at a photo that was read. Takes about 50 ms."""
    small = Photo(smaller(photo.image), photo.size)
    subject = find_subject(small) if mask is None else subject_of(mask)
    shown = small_picture(small.image)
    measures = measure(small.image, photo.size, subject)
    return Looked(photo.size, subject, measures, shown if mask is None else masked(shown, mask.image))


def recall(key: str) -> Looked | None:
    """What is kept under a key, where it is there and whole."""
    path = _place(key)
    try:
        looked = _unpacked(path.read_bytes())
        path.touch()  # it is in use
    except Exception:  # what is damaged may fail anyhow, and is made anew
        return None
    return looked


def keep(key: str, looked: Looked) -> None:
    """Keep it under a key."""
    with suppress(OSError):  # a cache that can't be written costs time, nothing else
        make_folder(_place(key).parent)
        write_whole(_place(key), _packed(looked))


def forget_old() -> None:
    """Remove what was not used for the longest time, where more is kept than is worth it."""
    with suppress(OSError):
        kept = sorted(_place("").iterdir(), key=lambda path: path.stat().st_mtime)
        for path in kept[:-MOST_KEPT]:
            path.unlink()


def _place(key: str) -> Path:
    return cache_folder() / "looks" / key


def _packed(looked: Looked) -> bytes:
    one, subject = looked.measures, looked.subject
    told = {
        "size": looked.size,
        "box": subject.box,
        "confidence": subject.confidence,
        "faces": subject.faces,
        "figures": {name: float(getattr(one, name)) for name in FIGURES},
        "frame": asdict(one.frame),
    }
    arrays = {name: getattr(one, name) for name in ARRAYS} | {"subject": subject.weight, "shown": np.asarray(looked.shown)}
    file = BytesIO()
    np.savez(file, told=np.frombuffer(json.dumps(told).encode(), np.uint8), **arrays)
    return file.getvalue()


def _unpacked(data: bytes) -> Looked:
    """Raises nearly anything where it is damaged: its checksums are the archive's own."""
    with np.load(BytesIO(data), allow_pickle=False) as held:
        arrays: dict[str, Any] = {name: held[name] for name in (*ARRAYS, "subject", "shown")}
        told = json.loads(held["told"].tobytes())
    width, height = told["size"]
    left, top, right, bottom = told["box"]
    frame = Frame(*(bar and Bar(bar["depth"], tuple(bar["colour"]), bar["marks"]) for bar in (told["frame"][name] for name in BARS)))
    faces = tuple((face[0], face[1], face[2], face[3]) for face in told["faces"])
    subject = Subject(arrays["subject"], (left, top, right, bottom), told["confidence"], faces)
    measures = Measures(
        size=(width, height), frame=frame, **{name: told["figures"][name] for name in FIGURES}, **{name: arrays[name] for name in ARRAYS}
    )
    return Looked((width, height), subject, measures, Image.fromarray(arrays["shown"]))
