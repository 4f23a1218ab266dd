"""What is measured of a photo, once, on a small copy of it: enough to judge it by itself and beside the others, and little to keep."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.ma  # loaded at the first median otherwise, where threads that come to it together recurse without end
from PIL import Image, ImageCms

from .crop import Size
from .frame import Frame, frame_of
from .subject import Subject

SIDE = 512  # pixels of the longer side of the small copy
THUMB = 64  # pixels of both sides of the copy that photos are held against each other by
CELLS = 48  # on the longer side of the colours' grid
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
END, NEARLY = 254, 232  # of 255, from which a colour is at its end, and from which it is nearly there
REBLUR = 1.0  # pixels, the sigma of the second blur by which the first is told
WAYS = 6  # directions of edges
EDGES, FEWEST_EDGES = 0.005, 40  # the strongest of one direction that are looked at: share of the photo's pixels, and at least
CLEAR = 0.25  # of the slope of the strongest direction
FAINT = 0.012  # of the light from black to white in a pixel: fainter edges are noise
Floats = Any  # an array of numbers, or of bools: what numpy returns is rarely typed any closer


@dataclass(frozen=True, eq=False)
class Measures:
    """One photo's figures. Light goes from 0 (black) to 1, `size` is the photo's own.

    `blur` is the blur of its sharpest edges, of the direction in which they are least sharp: sigma in pixels of the small copy.
    `bright` is the light that 1 pixel of 50 surpasses; `clipped` is the share of the photo in which a colour is at its end, `paired` that
    in which two are, `white` that in which all are, `clipped_subject` the subject's; `heaped` is how many times as much of a colour is at
    its end as is nearly there. `detail` is the share of the photo that its finest detail takes. `colours`
    [rows, columns, 3] are LAB, `weight` [rows, columns], sum 1, says where the subject lies.
    """

    size: Size
    blur: float
    bright: float
    clipped: float
    paired: float
    white: float
    clipped_subject: float
    heaped: float
    detail: float
    frame: Frame
    thumb: Floats
    colours: Floats
    weight: Floats


def measure(image: Image.Image, size: Size, subject: Subject) -> Measures:
    """The figures of a photo in RGB whose own upright size is `size`."""
    small = smaller(image)
    pixels = np.asarray(small)
    light = pixels @ (LUMA / 255)
    colours = _lab(small)
    weight = _at(subject.weight, colours.shape[1::-1])
    red, green, blue = (pixels[..., each] for each in range(3))  # a reduction over so short an axis takes ten times as long
    at_end = np.maximum(np.maximum(red, green), blue) >= END
    slope = np.hypot(*np.gradient(light)) if min(light.shape) > 1 else np.zeros_like(light)
    return Measures(
        size=size,
        blur=blur_of(light),
        bright=float(np.percentile(light, 98)),
        clipped=float(at_end.mean()),
        paired=float((np.maximum(np.minimum(red, green), np.minimum(np.maximum(red, green), blue)) >= END).mean()),
        white=float((np.minimum(np.minimum(red, green), blue) >= END).mean()),
        clipped_subject=float(_at(np.square(subject.weight), small.size)[at_end].sum()),  # what is faint may as well be the background
        heaped=_heaped(small.histogram()),
        detail=_detail(slope),
        frame=frame_of(pixels),
        thumb=np.asarray(small.resize((THUMB, THUMB), Image.Resampling.BOX)),
        colours=colours,
        weight=weight,
    )


def smaller(image: Image.Image, side: int = SIDE) -> Image.Image:
    """The picture with `side` pixels on its longer side, or as it is where it has no more."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=1.5)


def blur_of(light: Floats) -> float:
    """How wide the sharpest edges of each direction are, of the direction with the widest but one: sigma in pixels; 0 without edges.

    An edge of sigma s has 1/s of the slope that a step has; blurred once more by r, 1/sqrt(s^2 + r^2). So s follows from the ratio of
    the slopes (Zhuo and Sim, Defocus map estimation from a single image, 2011). Taken by direction it also tells a photo that was
    moved, whose edges along the movement stay sharp. One direction alone is no witness, nor is one with faint edges only.
    """
    if min(light.shape) < 16:
        return 0.0
    down, across = np.gradient(light)
    slope, again = np.hypot(down, across), np.hypot(*np.gradient(_blurred(light)))
    clear = again >= FAINT
    slope, again, way = slope[clear], again[clear], np.arctan2(down[clear], across[clear]) % np.pi * WAYS / np.pi
    widths: list[tuple[float, float]] = []  # how strong the edges of a direction are, and how wide
    for each in range(WAYS):
        there = way.astype(int) % WAYS == each
        values, count = again[there], max(FEWEST_EDGES, int(EDGES * light.size))
        strongest = np.argpartition(values, -count)[-count:] if len(values) > count else np.argsort(values)
        if len(strongest) >= FEWEST_EDGES:
            sharp = float(np.percentile(slope[there][strongest] / again[there][strongest], 80))
            widths.append((float(again[there][strongest[0]]), REBLUR / float(np.sqrt(max(sharp**2 - 1, 1e-3)))))
    least = CLEAR * max(widths, default=(0.0, 0.0))[0]
    told = sorted((width for strength, width in widths if strength >= least), reverse=True)
    return told[min(1, len(told) - 1)] if told else 0.0


def _blurred(light: Floats) -> Floats:
    kernel = np.exp(-0.5 * (np.arange(-3, 4) / REBLUR) ** 2).astype(np.float32)
    for _ in range(2):  # down, then across
        padded = np.pad(light, ((3, 3), (0, 0)), mode="edge")
        light = sum(weight * padded[start : start + len(light)] for start, weight in enumerate(kernel / kernel.sum())).T
    return light


def _heaped(counts: list[int]) -> float:
    """Of the colour of which that is most, what is at its end beside what is nearly there; counts are of 256 values of each colour. In
    light that a photo can hold the counts run out; in more of it they pile up at the end."""
    colours = [counts[start : start + 256] for start in range(0, len(counts), 256)]
    return max(sum(one[END:]) / max(sum(one[NEARLY:END]), 0.001 * sum(one)) for one in colours)


def _detail(slope: Floats) -> float:
    """The share of the photo in which its finest detail lies: that of so many places with equal detail and none elsewhere."""
    rows, columns = (np.linspace(0, length, min(CELLS, length), endpoint=False).astype(int) for length in slope.shape)
    cells = np.add.reduceat(np.add.reduceat(slope, rows, axis=0), columns, axis=1)
    fine = np.maximum(cells - 1.5 * np.median(cells), 0) ** 2
    return float(fine.sum() ** 2 / max(float((fine**2).sum()), 1e-12) / fine.size) if fine.any() else 1.0


def _at(weight: Floats, size: Size) -> Floats:
    """A subject's weight on the grid of a picture of this size, its sum 1."""
    large = np.asarray(Image.fromarray(np.float32(weight)).resize(size, Image.Resampling.BILINEAR))
    return large / max(float(large.sum()), 1e-12)


@cache
def _to_lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")


def _lab(small: Image.Image) -> Floats:
    """The mean colour of each place, CELLS on the longer side, in LAB: light to 100, colours about 0."""
    scale = CELLS / max(small.size)
    size = max(1, round(small.width * scale)), max(1, round(small.height * scale))
    cells = np.asarray(ImageCms.applyTransform(small.resize(size, Image.Resampling.BOX), _to_lab()))
    light, colours = cells[..., :1].astype(np.float32) / 2.55, cells[..., 1:].astype(np.int8).astype(np.float32)
    return np.concatenate([light, colours], axis=2)
