"""Scenes with a known subject, made of the square photos of ../shared/subjects: off-centre, in three shapes.

A photo is *cut* so that its subject lies at an edge or in a corner; or it is *set* off-centre into a wider background that is not flat:
another subject's photo, blurred or mirrored, or what lies between its own subject and its edges, mirrored on. `subject_boxes.txt` says
where the subject of each photo lies.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from dreambooth_cli.photos.crop import Box, Size

SUBJECTS = Path(__file__).parents[3] / "shared" / "subjects"
BOXES = Path(__file__).with_name("subject_boxes.txt")
SHAPES: dict[str, Size] = {"3:2": (3, 2), "2:3": (2, 3), "16:9": (16, 9)}
CUT = ("cut at an edge", "cut in a corner")
SET = ("set into a blurred photo", "set into a mirrored photo", "set into its own edges mirrored")
SIDE = 720  # pixels of a photo that scenes are made of


@dataclass(frozen=True)
class Scene:
    """A picture, the box of its subject in its pixels, and how it was made: of which photo, of which kind, in which shape."""

    image: Image.Image
    box: Box
    photo: str
    kind: str
    shape: str

    @property
    def fits(self) -> bool:
        """Whether the square of the shorter side can hold the whole subject."""
        left, top, right, bottom = self.box
        return max(right - left, bottom - top) <= min(self.image.size)


@cache
def true_boxes() -> dict[str, tuple[float, float, float, float]]:
    """The subject's box of each photo, `dog/00.jpg`, as shares of its side: left, top, right, bottom."""
    rows = [line.split() for line in BOXES.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {name: tuple(int(edge) / 100 for edge in edges) for name, *edges in rows}  # type: ignore[misc] # four of them


def subjects() -> list[str]:
    """The names of the subjects."""
    return sorted({name.split("/")[0] for name in true_boxes()})


def scenes_of(subject: str, seed: int) -> Iterator[Scene]:
    """The scenes of each photo of a subject: each kind once in each shape, where there is room for it. The same for the same seed."""
    for name in true_boxes():
        if name.split("/")[0] == subject:
            for shape in SHAPES:
                for kind in (*CUT, *SET):
                    scene = _scene(name, kind, shape, random.Random(f"{seed} {name} {kind} {shape}"))
                    if scene is not None:
                        yield scene


@cache
def _photo(name: str) -> Image.Image:
    with Image.open(SUBJECTS / name) as image:
        return image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _scene(name: str, kind: str, shape: str, chance: random.Random) -> Scene | None:
    image = _photo(name)
    left, top, right, bottom = (round(edge * SIDE) for edge in true_boxes()[name])
    if kind in CUT:
        window = _window((left, top, right, bottom), SHAPES[shape], kind == CUT[1], chance)
        if window is None:
            return None
        box = (left - window[0], top - window[1], right - window[0], bottom - window[1])
        return Scene(image.crop(window), box, name, kind, shape)
    scale = chance.uniform(0.75, 1.0)
    side = round(SIDE * scale)
    size, (x, y) = _place(SHAPES[shape], side, chance)
    small = image.resize((side, side), Image.Resampling.LANCZOS)
    box = (round(left * scale) + x, round(top * scale) + y, round(right * scale) + x, round(bottom * scale) + y)
    if kind == SET[2]:
        wide = _mirrored_on(np.asarray(small), size, (x, y), box)
        return None if wide is None else Scene(Image.fromarray(wide), box, name, kind, shape)
    picture = _other(name, kind, size, chance)
    picture.paste(small, (x, y))
    return Scene(picture, box, name, kind, shape)


def _window(box: Box, shape: Size, corner: bool, chance: random.Random) -> Box | None:
    """A part of the photo in this shape, its subject at one of its sides, or at two that meet; None where there is no room."""
    left, top, right, bottom = box
    unit = SIDE / max(shape)
    least = max((right - left) / shape[0], (bottom - top) / shape[1])
    if least * 1.02 > unit:
        return None
    grown = chance.uniform(min(unit, 1.15 * least), unit)
    width, height = round(grown * shape[0]), round(grown * shape[1])
    margin = round(chance.uniform(0, 0.04) * SIDE)
    x = left - margin if chance.random() < 0.5 else right + margin - width
    y = top - margin if chance.random() < 0.5 else bottom + margin - height
    if not corner:  # the other way the subject lies anywhere
        lies_along = shape[0] >= shape[1]
        if lies_along:
            y = chance.randint(min(bottom - height, top), max(bottom - height, top))
        else:
            x = chance.randint(min(right - width, left), max(right - width, left))
    x, y = min(max(0, x), SIDE - width), min(max(0, y), SIDE - height)
    holds = x <= left and y <= top and right <= x + width and bottom <= y + height
    return (x, y, x + width, y + height) if holds else None


def _place(shape: Size, side: int, chance: random.Random) -> tuple[Size, tuple[int, int]]:
    """The size of a scene whose shorter side is that of a photo, and where a photo of `side` pixels is set: near one end."""
    unit = SIDE / min(shape)
    size = (round(unit * shape[0]), round(unit * shape[1]))
    room = (size[0] - side, size[1] - side)
    along = 0 if size[0] > size[1] else 1
    share = [chance.random(), chance.random()]
    share[along] = chance.choice([chance.uniform(0, 0.25), chance.uniform(0.75, 1)])
    return size, (round(room[0] * share[0]), round(room[1] * share[1]))


def _other(name: str, kind: str, size: Size, chance: random.Random) -> Image.Image:
    """Another subject's photo at this size, blurred or mirrored."""
    others = [each for each in true_boxes() if each.split("/")[0] != name.split("/")[0]]
    other = ImageOps.fit(_photo(chance.choice(others)), size, Image.Resampling.LANCZOS)
    return other.filter(ImageFilter.GaussianBlur(SIDE / 45)) if kind == SET[0] else ImageOps.mirror(other)


def _mirrored_on(pixels: np.ndarray, size: Size, place: tuple[int, int], box: Box) -> np.ndarray | None:
    """A photo made wider by its own edges, mirrored to and fro; None where the subject leaves no edge to mirror."""
    for axis, at, whole, low, high in ((1, place[0], size[0], box[0], box[2]), (0, place[1], size[1], box[1], box[3])):
        side = pixels.shape[axis]
        for before, room, free in ((True, at, low - at), (False, whole - at - side, at + side - high)):
            if room == 0:
                continue
            if free < 0.08 * side:
                return None
            strip = np.take(pixels, range(free) if before else range(-free, 0), axis=axis)
            pads = [(0, 0)] * 3
            pads[axis] = (room, 0) if before else (0, room)
            padded = np.pad(strip, pads, mode="symmetric")
            added = np.take(padded, range(room) if before else range(-room, 0), axis=axis)
            pixels = np.concatenate([added, pixels] if before else [pixels, added], axis=axis)
    return pixels
