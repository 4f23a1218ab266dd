"""Where the subject of a photo most likely lies: what stands out in colour and sharpness from the photo's own rim.

A guess by plain statistics, with no network and no names of things: it finds what differs, not what is meant.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .crop import Box, Size
from .files import Photo

MAP = 64  # places of the map along the longer side
LOOKED = 256  # pixels of the longer side that is looked at
COLOURS = 6  # of the rim


@dataclass(frozen=True)
class Subject:
    """What looks like the subject of a photo.

    `weight` [rows, columns] float32, 64 on the longer side, sums to 1: how much of the subject lies at each place. `box` holds nearly
    all of it, in pixels of the turned photo. `confidence`, 0 to 1, is how far the box stands out from what is around it: the share
    of the weight in it, less its share of the area; 0 where nothing stands out.
    """

    weight: np.ndarray
    box: Box
    confidence: float


def find_subject(photo: Photo) -> Subject:
    """What looks like the subject of a photo; takes about 10 ms."""
    weight = subject_map(photo.image)
    box = _box_of(weight)
    rows, columns = weight.shape
    left, top, right, bottom = box
    share = (right - left) * (bottom - top) / (rows * columns)
    confidence = max(0.0, float(weight[top:bottom, left:right].sum()) - share)
    width, height = photo.size
    pixels = (left * width // columns, top * height // rows, -(-right * width // columns), -(-bottom * height // rows))
    return Subject(weight, pixels, confidence)


def subject_map(image: Image.Image) -> np.ndarray:
    """How much each place looks like subject: [rows, columns] float32, MAP on the longer side, sums to 1."""
    scale = LOOKED / max(image.size)
    size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
    small = np.asarray(image.resize(size, Image.Resampling.BOX).convert("LAB"), dtype=np.float32)
    cells = _cells(small.shape[:2])
    colour = _pooled(small, cells)
    stands_out = _unlike_rim(colour)
    gradient = np.abs(np.diff(small[..., 0], axis=0, prepend=small[:1, :, 0])) + np.abs(
        np.diff(small[..., 0], axis=1, prepend=small[:, :1, 0])
    )
    sharp = _smooth(_pooled(gradient, cells))
    found = _smooth(stands_out) * (0.3 + sharp / (sharp.max() + 1e-6)) * _prior(cells)
    found = np.maximum(found - found.mean(), 0)
    total = found.sum()
    return (found / total if total > 0 else np.full(cells, 1 / (cells[0] * cells[1]))).astype(np.float32)


def _cells(shape: tuple[int, ...]) -> tuple[int, int]:
    longer = max(shape)
    return max(2, round(shape[0] * MAP / longer)), max(2, round(shape[1] * MAP / longer))


def _pooled(values: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """The mean of each of rows x columns cells of [height, width, ...]."""
    edges = [np.arange(count) * length // count for count, length in zip(cells, values.shape, strict=False)]
    sums = np.add.reduceat(np.add.reduceat(values, edges[0], axis=0), edges[1], axis=1)
    counts = [np.diff(np.append(edge, length)) for edge, length in zip(edges, values.shape, strict=False)]
    area = np.outer(*counts).reshape(cells + (1,) * (values.ndim - 2))
    return sums / area


def _unlike_rim(colour: np.ndarray) -> np.ndarray:
    """How far each cell's colour is from those of the rim, 0 to 1."""
    rim = np.concatenate([colour[:3].reshape(-1, 3), colour[-3:].reshape(-1, 3), colour[:, :3].reshape(-1, 3), colour[:, -3:].reshape(-1, 3)])
    centres = rim[:: max(1, len(rim) // COLOURS)][:COLOURS]
    for _ in range(5):
        nearest = ((rim[:, None] - centres[None]) ** 2).sum(-1).argmin(1)
        centres = np.stack([rim[nearest == each].mean(0) if (nearest == each).any() else centre for each, centre in enumerate(centres)])
    distance = np.sqrt(((colour[:, :, None] - centres) ** 2).sum(-1)).min(-1)
    return distance / (distance.max() + 1e-6)


def _smooth(values: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
        padded = np.pad(values, [(2, 2) if each == axis else (0, 0) for each in (0, 1)], mode="edge")
        values = sum(np.take(padded, range(step, step + values.shape[axis]), axis=axis) for step in range(5)) / 5
    return values


def _prior(cells: tuple[int, int]) -> np.ndarray:
    rows, columns = (np.linspace(-1, 1, count) for count in cells)
    return np.exp(-0.5 * (rows[:, None] ** 2 + columns[None] ** 2))


def _box_of(weight: np.ndarray, share: float = 0.94) -> tuple[int, int, int, int]:
    """The smallest box of whole cells outside of which, on each side, lies little of the weight: left, top, right, bottom."""
    cut = (1 - share) / 4
    columns, rows = np.cumsum(weight.sum(0)), np.cumsum(weight.sum(1))
    left, top = int(np.searchsorted(columns, cut)), int(np.searchsorted(rows, cut))
    right, bottom = int(np.searchsorted(columns, 1 - cut)) + 1, int(np.searchsorted(rows, 1 - cut)) + 1
    return left, top, min(right, weight.shape[1]), min(bottom, weight.shape[0])


def cut_share(subject: Subject, box: Box, size: Size) -> float:
    """The share of what looks like the subject that lies outside of a box, in pixels of a photo of this upright size: 0 to 1."""
    rows, columns = subject.weight.shape
    across, down = _overlap(columns, size[0], box[0], box[2]), _overlap(rows, size[1], box[1], box[3])
    return max(0.0, 1.0 - float(down @ subject.weight @ across))


def _overlap(count: int, length: int, start: int, stop: int) -> np.ndarray:
    """Of each of `count` even parts of `length` the share that lies between start and stop."""
    edges = np.linspace(0, length, count + 1)
    inside = np.minimum(edges[1:], stop) - np.maximum(edges[:-1], start)
    return np.clip(inside * count / length, 0, 1)
