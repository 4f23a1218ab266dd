"""Where people's faces are in a photo: upright ones, seen from the front or nearly so.

They are found by dlib's detector (King, Max-Margin Object Detection, 2015), whose model is a part of that library: nothing is downloaded,
and who a face belongs to is not looked at.
"""

from functools import cache
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from .crop import Box

SIDE = 512  # pixels of the longer side of the copy that is looked at: a face has 80 of them at least
SURE = 0.5  # of the detector's score, whose own threshold is 0: no other thing is to be taken for a face
ABOVE, ROUND = 0.4, 0.15  # of a face's side: what the hair takes above what is found, and what is let in at the other sides
_alone = Lock()  # a detector keeps what it works on


def find_faces(image: Image.Image) -> tuple[Box, ...]:
    """The box of each head with a face, in pixels of the picture, the surest first. Takes about 15 ms, and half a second once; none where
    dlib is not installed, as there is none for every machine."""
    detector = _detector()
    if detector is None:
        return ()
    scale = min(1.0, SIDE / max(image.size))
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BILINEAR)
    with _alone:
        found = detector.run(np.asarray(small.convert("L")), 0, SURE)[0]
    return tuple(_head(face, scale, image.size) for face in found)


@cache
def _detector() -> Any:
    try:
        import dlib  # few photos are new
    except ImportError:
        return None
    return dlib.get_frontal_face_detector()


def _head(face: Any, scale: float, size: tuple[int, int]) -> Box:
    """The head round a face, as far as it is in a picture of this size."""
    side = face.right() - face.left()
    edges = face.left() - ROUND * side, face.top() - ABOVE * side, face.right() + ROUND * side, face.bottom() + ROUND * side
    left, top, right, bottom = (round(min(max(0.0, edge / scale), size[axis % 2])) for axis, edge in enumerate(edges))
    return left, top, right, bottom
