"""Which photos of a set are nearly the same picture: mirrored, cut at the edges, resized, brightened or written again too."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from .measures import LUMA, THUMB, Floats

COARSE, FINE = 20, 48  # pixels a side, at which pictures are held against each other: all, and the likeliest
CANDIDATE = 0.75  # correlation, over which two are looked at closely
CERTAIN = 0.995  # correlation of the coarse ones that leaves no doubt
SAME = 0.965  # correlation, from which two are nearly the same picture
HOPELESS, WAYS_APART = 0.7, 0.1  # correlation with the best window to begin with: too low to go on, and so much lower than mirrored
SMALLEST = 0.75 * THUMB  # of a picture's side, that another may show
Window = tuple[float, float, float, float]  # in pixels of a thumb
WHOLE: Window = (0, 0, THUMB, THUMB)


def near_twins(thumbs: Sequence[Floats]) -> list[tuple[int, int, float]]:
    """Pairs that show nearly the same, each photo with the one that it is most like: first, second, correlation.

    `thumbs` are [64, 64, 3] uint8, a whole photo each. Every photo is held against windows of every other.
    """
    if len(thumbs) < 2:
        return []
    greys = [Image.fromarray((thumb @ LUMA).astype(np.float32)) for thumb in thumbs]
    whole = np.stack([_vector(grey, WHOLE, COARSE) for grey in greys])
    alike = np.stack([_alike(grey, whole) for grey in greys])
    np.fill_diagonal(alike, -1)
    alike = np.maximum(alike, alike.T)
    pairs = {(min(one, mate), max(one, mate)) for one, mate in enumerate(alike.argmax(axis=1)) if alike[one, mate] >= CANDIDATE}
    close = [(one, other, _closely(greys[one], greys[other], float(alike[one, other]))) for one, other in sorted(pairs)]
    return [pair for pair in close if pair[2] >= SAME]


def _closely(one: Image.Image, other: Image.Image, alike: float) -> float:
    """The correlation of two pictures where they fit best; where they are the same already, no closer look is needed. One may be so much
    lighter that it has burnt out, so the other is made as light."""
    if alike >= CERTAIN:
        return alike
    one, other = _as_light(one, other), _as_light(other, one)
    return max(_closest(one, other), _closest(other, one))


def _as_light(grey: Image.Image, other: Image.Image) -> Image.Image:
    """A picture with as much light as another, where that has more: what is beyond white is white."""
    pixels, light = np.asarray(grey), float(np.asarray(other).mean())
    low, high = 1.0, 4.0
    for _ in range(20 if pixels.mean() < light else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(pixels * middle, 255).mean() < light else (low, middle)
    return Image.fromarray(np.minimum(pixels * low, 255))


def _windows() -> Iterator[Window]:
    """The whole, and nine places each for parts that are a little smaller."""
    yield WHOLE
    for scale in (0.94, 0.88):
        side = scale * THUMB
        for left in (0.0, 0.5, 1.0):
            for top in (0.0, 0.5, 1.0):
                x, y = left * (THUMB - side), top * (THUMB - side)
                yield x, y, x + side, y + side


def _vector(grey: Image.Image, window: Window, side: int) -> Floats:
    """What a window shows, without its light and its contrast: their product is the correlation."""
    values = np.asarray(grey.resize((side, side), Image.Resampling.BILINEAR, box=window)).ravel()
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-3)


def _alike(grey: Image.Image, whole: Floats) -> Floats:
    """How like each of the whole pictures any window of this one is, mirrored or not."""
    ways = (grey, grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    return (np.stack([_vector(way, window, COARSE) for way in ways for window in _windows()]) @ whole.T).max(axis=0)


def _closest(grey: Image.Image, other: Image.Image) -> float:
    """The correlation of the whole of one picture with the window of `grey` that fits it best, mirrored or not. The window is sought step
    by step, of the better of the two, or of both where they fit about as well; not where the best to begin with is too far off."""
    target = _vector(other, WHOLE, FINE)
    ways = (grey, grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    begun = [(way, *max((float(_vector(way, each, FINE) @ target), each) for each in _windows())) for way in ways]
    best = max(correlation for _, correlation, _ in begun)
    if best < HOPELESS:
        return best
    return max(_sought(way, target, correlation, window) for way, correlation, window in begun if correlation >= best - WAYS_APART)


def _sought(way: Image.Image, target: Floats, best: float, window: Window) -> float:
    """The correlation with the best window near this one, found step by step."""
    step = 2.0
    while step >= 0.25:
        nearer = max((float(_vector(way, each, FINE) @ target), each) for each in _moved(window, step))
        if nearer[0] > best + 1e-5:
            best, window = nearer
        else:
            step /= 2
    return best


def _moved(window: Window, step: float) -> Iterator[Window]:
    """The same window with one edge moved in or out."""
    yield window
    for edge in range(4):
        for way in (-step, step):
            moved = [value + way if each == edge else value for each, value in enumerate(window)]
            left, top, right, bottom = (min(float(THUMB), max(0.0, value)) for value in moved)
            if min(right - left, bottom - top) >= SMALLEST:
                yield left, top, right, bottom
