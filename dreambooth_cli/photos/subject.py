"""Where the subject of a photo most likely lies, by plain statistics, no network; and where there are faces.

Two things set a subject apart in most photos, and each is measured against the photo itself. It is in focus, so it has fine detail where
what is behind it has less. And its colours are rare along the photo's rim, beside how much there is of them (as in boundary
connectivity: Zhu et al., Saliency Optimization from Robust Background Detection, CVPR 2014). So it finds what stands out, which need
not be what is meant: of a person it may be the coat. So a face, where one is found, has a say beside it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .crop import Box, Size, scaled_box, square_box
from .faces import find_faces
from .pixels import Photo

Floats = NDArray[Any]
MAP = 64  # places of the map along the longer side
LOOKED_AT = 256  # pixels of the longer side of the small copy
COLOURS, ROUNDS = 12, 6  # clusters, and rounds of k-means
NEAR = 10.0  # the distance in Lab within which colours are taken for the same
RIM = 0.04  # of the longer side
DETAIL, RARITY = 0.5, 1.0  # least range, in natural logarithms, that is taken for more than noise
HEIGHT, LENGTH = 0.7, 2.0  # deviation of the prior across the photo and along it, in halves of its sides
FLOOR = 0.002  # what everywhere may be subject, beside a highest value of about 0.5
LEAST = 0.2  # by which the highest value is over the mean, of 1, where anything stands out
NEARLY = 0.01  # of the weight: squares that hold so little less are as good
STANDS_OUT = 0.15  # the confidence under which the middle is kept, unless there is a face
FACES = 0.4  # their share, and that of the map the rest: a dog is not left out for who holds it, nor a face for a coat


@dataclass(frozen=True)
class Subject:
    """What looks like the subject of a photo.

    `weight` [rows, columns] float32, 64 on the longer side, sums to 1: how much of the subject lies at each place. `box` holds nearly
    all of it, in pixels of the turned photo. `confidence`, 0 to 1: by how much more of the weight lies in the box than its area would
    hold of an even one; near 0 where nothing stands out. `faces` are people's heads, in the same pixels as the box; the map knows nothing
    of them.
    """

    weight: Floats
    box: Box
    confidence: float
    faces: tuple[Box, ...] = ()


def find_subject(photo: Photo) -> Subject:
    """What looks like the subject of a photo, and the faces in it. Takes about 30 ms."""
    weight = _weigh(photo.image)
    rows, columns = weight.shape
    left, top, right, bottom = _box_of(weight)
    confidence = float(weight[top:bottom, left:right].sum()) - (right - left) * (bottom - top) / weight.size
    width, height = photo.size
    box = left * width // columns, top * height // rows, -(-right * width // columns), -(-bottom * height // rows)
    faces = tuple(_whole(scaled_box(face, photo.image.size, photo.size)) for face in find_faces(photo.image))
    return Subject(weight, box, max(0.0, confidence), faces)


def _whole(box: Iterable[float]) -> Box:
    left, top, right, bottom = (round(edge) for edge in box)
    return left, top, right, bottom


def square_of(subject: Subject, size: Size) -> Box:
    """The largest square of a photo of this upright size that holds most of its subject, as central on it as there is room; the middle
    where nothing stands out."""
    length, side = max(size), min(size)
    if (subject.confidence < STANDS_OUT and not subject.faces) or length == side:
        return square_box(size, "center")
    lies = size[0] > size[1]
    along = subject.weight.sum(0 if lies else 1)
    if subject.faces:
        heads = [_inside(len(along), length, *face[0 if lies else 1 :: 2]) for face in subject.faces]
        along = (1 - FACES) * along + FACES * np.mean([head / head.sum() for head in heads], axis=0)
    edges = np.linspace(0, length, len(along) + 1)
    up_to = np.concatenate([[0.0], np.cumsum(along)])
    starts = np.arange(length - side + 1)
    held = np.interp(starts + side, edges, up_to) - np.interp(starts, edges, up_to)
    good = starts[held >= held.max() - NEARLY]
    start = int(good[np.abs(good + side / 2 - _middle(along, edges, starts[held.argmax()], side)).argmin()])
    return (start, 0, start + side, side) if lies else (0, start, side, start + side)


def _middle(along: Floats, edges: Floats, start: int, side: int) -> float:
    """The middle of what a square from `start` holds of the weight along a photo, 3% of it left off at either end."""
    places = (edges[1:] + edges[:-1]) / 2
    up_to = np.cumsum(np.where((places >= start) & (places <= start + side), along, 0))
    low, high = np.searchsorted(up_to, [0.03 * up_to[-1], 0.97 * up_to[-1]])
    return float(places[low] + places[high]) / 2


def cut_share(subject: Subject, box: Box, size: Size) -> float:
    """The share of what looks like the subject, faces too, that lies outside of a box in pixels of a photo of this upright size: 0 to 1.

    What is faint counts for little: it is as likely no part of the subject.
    """
    sure = np.square(subject.weight)
    across, down = _inside(sure.shape[1], size[0], box[0], box[2]), _inside(sure.shape[0], size[1], box[1], box[3])
    lost = max(0.0, 1.0 - float(down @ sure @ across / sure.sum()))
    if not subject.faces:
        return lost
    return (1 - FACES) * lost + FACES * sum(_outside(face, box) for face in subject.faces) / len(subject.faces)


def _outside(face: Box, box: Box) -> float:
    """The share of one box that lies outside of another."""
    across, down = (max(0, min(face[end + 2], box[end + 2]) - max(face[end], box[end])) for end in (0, 1))
    return 1 - across * down / max(1, (face[2] - face[0]) * (face[3] - face[1]))


def _inside(count: int, length: int, start: int, stop: int) -> Floats:
    """Of each of `count` even parts of `length` the share that lies between start and stop."""
    edges = np.linspace(0, length, count + 1)
    inside = np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start)
    return np.clip(inside * count / length, 0, 1)


def _weigh(image: Image.Image) -> Floats:
    """How much each place looks like subject: [rows, columns] float32, MAP on the longer side, sums to 1."""
    scale = LOOKED_AT / max(image.size)
    small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BOX)
    light = np.asarray(small.convert("L"), np.float32) / 2.55
    cells = tuple(max(1, round(length * MAP / max(light.shape))) for length in light.shape)
    detail = _blurred(np.log1p(_pooled(_detail(light), cells)), 2.0)
    colours = small.resize((cells[1], cells[0]), Image.Resampling.BOX)
    rare = _blurred(_rarity_at_rim(_lab(np.asarray(colours))), 1.5)
    looks = np.sqrt(_stretched(detail, DETAIL) * _stretched(rare, RARITY)) * _prior(cells)  # both, not either
    if looks.max() - looks.mean() < LEAST:
        looks = np.zeros_like(looks)
    weight = np.maximum(looks - looks.mean(), 0) + FLOOR
    return np.asarray(weight / weight.sum(), np.float32)


def _lab(pixels: Floats) -> Floats:
    """sRGB bytes [..., 3] as CIE Lab under D65."""
    share = pixels.astype(np.float32) / 255
    linear = np.where(share > 0.04045, ((share + 0.055) / 1.055) ** 2.4, share / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], np.float32)
    x, y, z = np.moveaxis(np.cbrt(np.maximum(linear @ (to_xyz / [[0.9505], [1], [1.089]]).T, 1e-4)), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _detail(light: Floats) -> Floats:
    """How far each pixel's light, in hundredths, is from the mean of its four neighbours."""
    padded = np.pad(light, 1, mode="edge")
    around = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4
    return np.asarray(np.abs(light - around))


def _rarity_at_rim(lab: Floats) -> Floats:
    """How rare each cell's colour is along the rim, beside how much of the photo has it, in natural logarithms."""
    colours = lab.reshape(-1, 3)
    centres = _clusters(colours)
    alike = np.exp(-0.5 * np.square(colours[:, None] - centres).sum(-1) / NEAR**2) + 1e-9
    alike /= alike.sum(1, keepdims=True)
    rim = np.zeros(lab.shape[:2], bool)
    deep = max(1, round(RIM * max(rim.shape)))
    rim[:deep] = rim[-deep:] = rim[:, :deep] = rim[:, -deep:] = True
    ratio = alike[rim.ravel()].mean(0) / alike.mean(0)
    return np.reshape(-(alike @ np.log(ratio + 0.05)), rim.shape)


def _clusters(colours: Floats) -> Floats:
    """The means of clusters of colours, by k-means from the colours that are farthest from each other: no chance in it."""
    centres = [colours[np.square(colours - colours.mean(0)).sum(1).argmax()]]
    away = np.square(colours - centres[0]).sum(1)
    while len(centres) < COLOURS:
        centres.append(colours[away.argmax()])
        away = np.minimum(away, np.square(colours - centres[-1]).sum(1))
    found = np.array(centres)
    for _ in range(ROUNDS):
        nearest = np.square(colours[:, None] - found).sum(-1).argmin(1)
        counts = np.bincount(nearest, minlength=COLOURS)
        sums = np.stack([np.bincount(nearest, weights=colours[:, each], minlength=COLOURS) for each in range(3)], axis=1)
        found = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], found)
    return found


def _pooled(values: Floats, cells: tuple[int, ...]) -> Floats:
    """The mean of each of rows x columns cells of [height, width]."""
    edges = [np.arange(count) * length // count for count, length in zip(cells, values.shape, strict=True)]
    sums = np.add.reduceat(np.add.reduceat(values, edges[0], axis=0), edges[1], axis=1)
    counts = [np.diff(np.append(edge, length)) for edge, length in zip(edges, values.shape, strict=True)]
    return sums / np.outer(*counts)


def _blurred(values: Floats, deviation: float) -> Floats:
    """Cells blurred by a Gaussian, of which those beyond the edges are no part."""
    for _ in range(2):
        places = np.arange(len(values))
        kernel = np.exp(-0.5 * np.square((places[:, None] - places) / deviation))
        values = (kernel / kernel.sum(1, keepdims=True) @ values).T
    return values


def _stretched(values: Floats, least: float) -> Floats:
    """Values from 0 to 1 over their own range, or over `least` where they differ by less."""
    low, high = np.quantile(values, [0.02, 0.98])
    return np.asarray(np.clip((values - low) / max(high - low, least), 0, 1))


def _prior(cells: tuple[int, ...]) -> Floats:
    """A mild preference for the middle: along the photo nearly none, as that is where the square has a choice."""
    spread = [LENGTH if count == max(cells) else HEIGHT for count in cells]
    down, across = (np.exp(-0.5 * np.square(np.linspace(-1, 1, n) / wide)) for n, wide in zip(cells, spread, strict=True))
    return np.outer(down, across)


def _box_of(weight: Floats) -> Box:
    """The box of cells beyond which, on each side, lies 2% of the weight that is more than even: left, top, right, bottom."""
    sure = np.maximum(weight - weight.mean(), 0)
    sure = sure / sure.sum() if sure.any() else weight
    ends = []
    for axis in (0, 1):
        up_to = np.cumsum(sure.sum(axis))
        ends.append((int(np.searchsorted(up_to, 0.02)), min(int(np.searchsorted(up_to, 0.98)), len(up_to) - 1) + 1))
    (left, right), (top, bottom) = ends
    return left, top, right, bottom
