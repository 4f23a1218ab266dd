"""Photos that keep their shape (`--crop none`), in the scenes of `scenes`: the size that each is brought to, what its edges lose, and
whether SDXL is told the truth of it. `python -m tests.benchmarks.photos buckets` writes the table into photos.md.

What is told is held against what is seen: a picture whose colours say where each of its pixels comes from is cut as the scene is.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from dreambooth_cli.photos.buckets import bucket_for, bucket_sizes, cover_box
from dreambooth_cli.photos.crop import Box, Size, size_of
from dreambooth_cli.photos.pixels import Photo, training_picture
from dreambooth_cli.workflows.prepared import PreparedPhoto

from .crops import ENOUGH, FRESH, share_held
from .scenes import SHAPES, Scene, scenes_of, subjects

BASES = {"sd15": 512, "sdxl": 1024}


def table() -> str:
    """Each shape at each base's size, in Markdown."""
    scenes = [scene for seed in FRESH for subject in subjects() for scene in scenes_of(subject, seed)]
    lines = [
        "| base | shape | scenes | sizes | of the square's pixels | most that the edges lose | subject held | SDXL is told the truth |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for base, side in BASES.items():
        lines += [_row(base, shape, side, [scene for scene in scenes if scene.shape == shape]) for shape in SHAPES]
    return "\n".join(lines)


def _row(base: str, shape: str, side: int, scenes: list[Scene]) -> str:
    buckets = bucket_sizes(side)
    into = [bucket_for(scene.image.size, buckets) for scene in scenes]
    boxes = [cover_box(scene.image.size, one) for scene, one in zip(scenes, into, strict=True)]
    sizes = ", ".join(f"{width} x {height}" for width, height in sorted(set(into)))
    area = _span(width * height / side**2 for width, height in into)
    lost = max(1 - _area(size_of(box)) / _area(scene.image.size) for scene, box in zip(scenes, boxes, strict=True))
    held = sum(share_held(scene.box, box) >= ENOUGH for scene, box in zip(scenes, boxes, strict=True))
    true = sum(is_true(scene.image.size, box, one) for scene, box, one in zip(scenes, boxes, into, strict=True))
    return f"| {base} | {shape} | {len(scenes)} | {sizes} | {area} | {lost:.1%} | {held}/{len(scenes)} | {true}/{len(scenes)} |"


def _span(values: Iterable[float]) -> str:
    found = sorted(f"{value:.3f}" for value in values)
    return found[0] if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def _area(size: Size) -> int:
    return size[0] * size[1]


def is_true(size: Size, box: Box, into: Size) -> bool:
    """Whether SDXL is told the photo's size, the size of what is cut from it, and to the pixel where that lies in the resized photo."""
    told = PreparedPhoto(path=Path(), sha256="", size=size, box=box, into=into).sizes()
    top, left = seen_corner(size, box, into)
    return told[:2] == size[::-1] and told[4:] == into[::-1] and max(abs(told[2] - top), abs(told[3] - left)) <= 1


def seen_corner(size: Size, box: Box, into: Size) -> tuple[float, float]:
    """Top and left of what is kept, in pixels of the resized photo, as the training picture of a map of places shows it."""
    width, height = size
    places = np.zeros((height, width, 3))
    places[..., 0], places[..., 1] = np.linspace(0, 255, width)[None], np.linspace(0, 255, height)[:, None]
    picture = np.asarray(training_picture(Photo(Image.fromarray(np.uint8(places.round())), size), box, into), dtype=float)
    corner = []
    for channel, axis, length in ((1, 1, height), (0, 0, width)):
        seen = picture[..., channel].mean(axis=axis) * (length - 1) / 255
        scale, first = np.polyfit(np.arange(len(seen)), seen, 1)
        corner.append((first + (1 - scale) / 2) / scale)  # a pixel's place is that of its middle
    return corner[0], corner[1]
