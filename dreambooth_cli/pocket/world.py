"""The world of the pocket model: small scenes of 64 x 64 px that are drawn by code, and the captions that describe them.

An *individual* is one dog, one mug: its colours, its pattern, its own proportions, perhaps a mark. A *scene* is an
individual in a pose at a place. Class, body colour, pattern and place are chosen independently of each other. A *subject*
is an individual that no caption can describe in full: odd colours, odd proportions, a mark. DreamBooth has to learn it.

Everything depends only on `random.Random` and Pillow, so a seed gives the same picture everywhere.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from PIL import Image, ImageDraw, ImageFilter

SIZE = 64  # px, of a finished picture
SUPERSAMPLING = 3  # times larger pictures are drawn, then averaged, for smooth edges

RGB = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, RGB] = {
    "red": (214, 40, 44),
    "orange": (244, 132, 26),
    "yellow": (250, 216, 52),
    "green": (52, 158, 62),
    "turquoise": (48, 200, 190),
    "blue": (40, 86, 214),
    "purple": (128, 56, 180),
    "pink": (248, 134, 190),
    "brown": (124, 76, 40),
    "black": (38, 38, 44),
    "white": (244, 244, 240),
    "gray": (142, 146, 152),
}
PATTERNS = ("plain", "striped", "dotted", "checkered", "zigzag")
MARKS = ("patch", "star", "ring", "cross")
APART = 130  # the least distance between body and trim colour, in RGB units, so that a pattern can be seen


# What is in a scene


@dataclass(frozen=True)
class Mark:
    """A sign on the body that captions never mention; its place is in units of the body's radius."""

    kind: str
    rgb: RGB
    at: Point
    size: float


@dataclass(frozen=True)
class Individual:
    """One instance of a class. `proportions` are four numbers in -1..1, which each class uses in its own way."""

    class_name: str
    body: str
    trim: str
    pattern: str
    body_rgb: RGB
    trim_rgb: RGB
    proportions: tuple[float, float, float, float]
    mark: Mark | None = None


@dataclass(frozen=True)
class Pose:
    """Where and how an individual stands: centre and size as shares of the picture, tilt in degrees, light as a factor."""

    x: float
    y: float
    size: float
    tilt: float
    mirrored: bool
    light: float


@dataclass(frozen=True)
class Scene:
    """An individual in a pose at a place; `seed` decides the place's own details."""

    individual: Individual
    place: str
    pose: Pose
    seed: int


def draw_individual(random: Random, class_name: str | None = None) -> Individual:
    """A random individual as the world has them: with colours near the named ones, one in three with a mark."""
    body = random.choice(list(COLOURS))
    trim = random.choice([name for name in COLOURS if _distance(COLOURS[name], COLOURS[body]) > APART])
    body_rgb, trim_rgb = _jitter(COLOURS[body], random), _jitter(COLOURS[trim], random)
    return Individual(
        class_name=class_name or random.choice(list(CLASSES)),
        body=body,
        trim=trim,
        pattern=random.choice(PATTERNS),
        body_rgb=body_rgb,
        trim_rgb=trim_rgb,
        proportions=_proportions(random),
        mark=_draw_mark(random, body_rgb) if random.random() < 1 / 3 else None,
    )


def draw_scene(random: Random, individual: Individual | None = None, place: str | None = None) -> Scene:
    """A random scene; the individual and the place are random too, unless they are given."""
    return Scene(
        individual=individual or draw_individual(random),
        place=place or random.choice(list(PLACES)),
        pose=_draw_pose(random),
        seed=random.getrandbits(32),
    )


def draw_subject(number: int, class_name: str | None = None) -> Individual:
    """Subject `number`: odd colours (between two named ones), odd proportions, a mark. The same number gives the same subject.

    The pocket model has never seen these: its pictures come from other seeds, and no individual in them is so odd.
    """
    random = Random(f"subject {number}")
    ordinary = draw_individual(random, class_name or list(CLASSES)[number % len(CLASSES)])
    other = random.choice([name for name in COLOURS if 100 < _distance(COLOURS[name], ordinary.body_rgb) < 260])
    odd = _mix(ordinary.body_rgb, COLOURS[other], 0.3)
    return replace(
        ordinary,
        body_rgb=odd,
        proportions=_odd(random),
        mark=_draw_mark(random, odd),
    )


def draw_look_alikes(subject: Individual, count: int, seed: int = 0) -> list[Individual]:
    """`count` others of the same class: the subject with one attribute changed, taking body colour, trim, pattern, build and mark in turn.

    At most 20, because there are only four other patterns.
    """
    random = Random(f"look-alikes {seed}")
    found: list[Individual] = []
    while len(found) < count:
        other = _change(subject, _ATTRIBUTES[len(found) % len(_ATTRIBUTES)], random)
        if other not in found:
            found.append(other)
    return found


_ATTRIBUTES = ("body", "trim", "pattern", "proportions", "mark")


def _change(subject: Individual, attribute: str, random: Random) -> Individual:
    other = draw_individual(random, subject.class_name)
    if attribute == "body":
        while min(_distance(other.body_rgb, rgb) for rgb in (subject.body_rgb, subject.trim_rgb)) < APART:
            other = draw_individual(random, subject.class_name)
        return replace(subject, body=other.body, body_rgb=other.body_rgb)
    if attribute == "trim":
        while min(_distance(other.trim_rgb, rgb) for rgb in (subject.body_rgb, subject.trim_rgb)) < APART:
            other = draw_individual(random, subject.class_name)
        return replace(subject, trim=other.trim, trim_rgb=other.trim_rgb)
    if attribute == "pattern":
        others = [pattern for pattern in PATTERNS if pattern != subject.pattern]
        return replace(subject, pattern=random.choice(others))
    if attribute == "proportions":
        flipped = random.sample(range(4), random.choice((2, 3, 4)))
        a, b, c, d = (-value if place in flipped else value for place, value in enumerate(subject.proportions))
        return replace(subject, proportions=(a, b, c, d))
    mark = subject.mark
    assert mark is not None, "every subject has a mark"
    kinds = [kind for kind in MARKS if kind != mark.kind]
    return replace(subject, mark=replace(_draw_mark(random, subject.body_rgb), kind=random.choice(kinds)))


def _draw_mark(random: Random, body_rgb: RGB) -> Mark:
    seen = [rgb for rgb in COLOURS.values() if _distance(rgb, body_rgb) > APART]
    angle, radius = random.uniform(0, 2 * math.pi), random.uniform(0.0, 0.4)
    return Mark(
        kind=random.choice(MARKS),
        rgb=random.choice(seen),
        at=(radius * math.cos(angle), radius * math.sin(angle)),
        size=random.uniform(0.5, 0.68),
    )


def _draw_pose(random: Random) -> Pose:
    return Pose(
        x=random.uniform(0.4, 0.6),
        y=random.uniform(0.5, 0.58),
        size=random.uniform(0.62, 0.8),
        tilt=random.gauss(0, 5),
        mirrored=random.random() < 0.5,
        light=random.uniform(0.9, 1.06),
    )


def _proportions(random: Random) -> tuple[float, float, float, float]:
    a, b, c, d = (random.uniform(-1, 1) for _ in range(4))
    return a, b, c, d


def _odd(random: Random) -> tuple[float, float, float, float]:
    a, b, c, d = (random.choice((-1, 1)) * random.uniform(0.7, 1.2) for _ in range(4))
    return a, b, c, d


# Captions

_OPENINGS = ("a photo of", "a picture of", "a drawing of", "an image of", "")


def describe(scene: Scene) -> str:
    """The whole caption: `a photo of a blue striped mug with a red handle on the moon`."""
    one = scene.individual
    pattern = "" if one.pattern == "plain" else f"{one.pattern} "
    return f"a photo of a {one.body} {pattern}{one.class_name} with {one.trim} {TRIMS[one.class_name]} {scene.place}"


def draw_caption(scene: Scene, random: Random) -> str:
    """A caption with words dropped at random, as people write captions; the class is always named."""
    one = scene.individual
    words = [random.choice(_OPENINGS), "a" if random.random() < 0.85 else ""]
    words += [one.body if random.random() < 0.7 else ""]
    if one.pattern != "plain" or random.random() < 0.5:
        words += [one.pattern if random.random() < 0.7 else ""]
    words += [one.class_name]
    words += [f"with {one.trim} {TRIMS[one.class_name]}" if random.random() < 0.4 else ""]
    words += [scene.place if random.random() < 0.85 else ""]
    return " ".join(word for word in words if word)


def words() -> list[str]:
    """Every word that a caption can contain, in a fixed order."""
    texts = [*_OPENINGS, "a with", *COLOURS, *PATTERNS, *CLASSES, *TRIMS.values(), *PLACES]
    return list(dict.fromkeys(word for text in texts for word in text.split()))


# Drawing


def render(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, 64 x 64."""
    large = SIZE * SUPERSAMPLING
    random = Random(scene.seed)
    picture = Image.new("RGB", (large, large))
    PLACES[scene.place](_Brush(picture), random)
    parts, seat = CLASSES[scene.individual.class_name](*_shape(scene.individual.proportions))
    frame = _Frame.of(scene.pose, large)
    if scene.place not in FLOATING:
        _cast_shadow(picture, frame)
    _paint_parts(picture, parts, scene.individual, frame)
    if scene.individual.mark is not None:
        _paint_mark(picture, scene.individual.mark, seat, frame)
    lit = picture.point([min(255, round(value * scene.pose.light)) for value in range(256)] * 3)
    return lit.resize((SIZE, SIZE), Image.Resampling.BOX)


def render_mask(scene: Scene) -> Image.Image:
    """The mask of the individual in `render(scene)`: L, 64 x 64, 255 inside."""
    large = SIZE * SUPERSAMPLING
    parts, _ = CLASSES[scene.individual.class_name](*_shape(scene.individual.proportions))
    frame = _Frame.of(scene.pose, large)
    mask = Image.new("L", (large, large))
    pen = ImageDraw.Draw(mask)
    for part in parts:
        points = frame.place(part.points)
        pen.polygon(points, fill=255)
        pen.line([*points, points[0]], fill=255, width=_LINE, joint="curve")
    return mask.resize((SIZE, SIZE), Image.Resampling.BOX)


_LINE = 3  # px at the large size: one px of the finished picture


@dataclass(frozen=True)
class _Part:
    """A polygon of an individual, in the individual's own frame (x to the right, y down, about -1..1), and what it is painted with."""

    points: Sequence[Point]
    paint: str  # body (with the pattern), trim, dark, glass, white


@dataclass(frozen=True)
class _Seat:
    """Where a mark is on the body: a centre and a radius in the individual's frame."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class _Frame:
    """The way from an individual's frame to px."""

    x: float
    y: float
    scale: float
    tilt: float
    mirrored: bool

    @classmethod
    def of(cls, pose: Pose, large: int) -> "_Frame":
        return cls(pose.x * large, pose.y * large, pose.size * large / 2, math.radians(pose.tilt), pose.mirrored)

    def place(self, points: Sequence[Point]) -> list[Point]:
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        side = -1 if self.mirrored else 1
        return [
            (self.x + self.scale * (side * x * cos - y * sin), self.y + self.scale * (side * x * sin + y * cos))
            for x, y in points
        ]


def _paint_parts(picture: Image.Image, parts: Sequence[_Part], one: Individual, frame: _Frame) -> None:
    texture = _texture(picture.size, one, frame)
    paints = {"trim": one.trim_rgb, "dark": (28, 26, 30), "glass": (196, 232, 246), "white": (248, 248, 248)}
    pen = ImageDraw.Draw(picture)
    for part in parts:
        points = frame.place(part.points)
        if part.paint == "body":
            mask = Image.new("1", picture.size)
            ImageDraw.Draw(mask).polygon(points, fill=1)
            picture.paste(texture, mask=mask)
            line = one.body_rgb
        else:
            line = paints[part.paint]
            pen.polygon(points, fill=line)
        pen.line([*points, points[0]], fill=_shade(line, 0.45), width=_LINE, joint="curve")


def _texture(size: tuple[int, int], one: Individual, frame: _Frame) -> Image.Image:
    """The body's colour with the pattern on it, in the individual's frame, so that it moves and tilts with the individual."""
    texture = Image.new("RGB", size, one.body_rgb)
    pen = ImageDraw.Draw(texture)
    for polygon in _PATTERN_SHAPES[one.pattern]():
        pen.polygon(frame.place(polygon), fill=one.trim_rgb)
    return texture


def _paint_mark(picture: Image.Image, mark: Mark, seat: _Seat, frame: _Frame) -> None:
    x, y = seat.x + mark.at[0] * seat.radius, seat.y + mark.at[1] * seat.radius
    size = mark.size * seat.radius
    points = [(x + size * u, y + size * v) for u, v in _MARK_SHAPES[mark.kind]]
    pen = ImageDraw.Draw(picture)
    if mark.kind == "ring":
        placed = frame.place(points)
        pen.line([*placed, placed[0], placed[1]], fill=mark.rgb, width=round(0.45 * size * frame.scale), joint="curve")
        return
    pen.polygon(frame.place(points), fill=mark.rgb)


def _cast_shadow(picture: Image.Image, frame: _Frame) -> None:
    mask = Image.new("L", picture.size)
    x, y, r = frame.x, frame.y + 0.97 * frame.scale, 0.8 * frame.scale
    ImageDraw.Draw(mask).ellipse((x - r, y - 0.13 * r, x + r, y + 0.13 * r), fill=90)
    picture.paste((20, 20, 30), mask=mask.filter(ImageFilter.BoxBlur(3)))


# Patterns and marks, in an individual's frame


def _stripes() -> list[list[Point]]:
    return [_box(x, -1.6, x + 0.15, 1.6) for x in _steps(-1.55, 0.38)]


def _dots() -> list[list[Point]]:
    rows = enumerate(_steps(-1.5, 0.43))
    return [_ellipse(x + 0.24 * (row % 2), y, 0.15, 0.15, 12) for row, y in rows for x in _steps(-1.5, 0.48)]


def _checks() -> list[list[Point]]:
    step = 0.36
    rows = enumerate(_steps(-1.5, step))
    return [
        _box(x + step * (row % 2), y, x + step * (row % 2 + 1), y + step)
        for row, y in rows
        for x in _steps(-1.5, 2 * step)
    ]


def _zigzags() -> list[list[Point]]:
    across = _steps(-1.6, 0.3)
    bands = []
    for y in _steps(-1.5, 0.58):
        top = [(x, y + 0.3 * (place % 2)) for place, x in enumerate(across)]
        bands.append(top + [(x, level + 0.2) for x, level in reversed(top)])
    return bands


def _steps(start: float, step: float) -> list[float]:
    return [start + step * place for place in range(math.ceil(-2 * start / step))]


_PATTERN_SHAPES: dict[str, Callable[[], list[list[Point]]]] = {
    "plain": list,
    "striped": _stripes,
    "dotted": _dots,
    "checkered": _checks,
    "zigzag": _zigzags,
}


def _star() -> list[Point]:
    return [
        (radius * math.sin(math.pi * corner / 5), -radius * math.cos(math.pi * corner / 5))
        for corner, radius in enumerate((1.1, 0.45) * 5)
    ]


def _cross() -> list[Point]:
    a, b = 0.32, 1.0
    return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]


def _blob() -> list[Point]:
    angles = [2 * math.pi * corner / 24 for corner in range(24)]
    radii = [0.85 + 0.2 * math.sin(3 * angle + 0.7) for angle in angles]
    return [(1.1 * r * math.cos(angle), 0.8 * r * math.sin(angle)) for r, angle in zip(radii, angles, strict=True)]


def _ellipse(
    x: float, y: float, rx: float, ry: float, corners: int = 28, start: float = 0, end: float = 360
) -> list[Point]:
    span = end - start
    count = corners if span == 360 else corners + 1
    angles = (math.radians(start + span * corner / corners) for corner in range(count))
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def _box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


_MARK_SHAPES = {"patch": _blob(), "star": _star(), "ring": _ellipse(0, 0, 0.8, 0.8, 20), "cross": _cross()}


# Classes. Each uses four proportions (0..1): roughly how long and how tall it is, how large its head or top is, how large its trim is.

_Drawn = tuple[list[_Part], _Seat]


def _shape(proportions: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    a, b, c, d = (0.5 + 0.5 * value for value in proportions)
    return a, b, c, d


def _dog(a: float, b: float, c: float, d: float) -> _Drawn:
    length, leg, head, ear = 0.52 + 0.2 * a, 0.22 + 0.26 * b, 0.3 + 0.1 * c, 0.16 + 0.16 * d
    back = 0.95 - leg - 0.52
    hx, hy = length - 0.02, back - 0.12
    parts = [
        _Part(
            [
                (-length + 0.1, back + 0.2),
                (-length - 0.25, back - 0.35),
                (-length - 0.12, back - 0.4),
                (-length + 0.22, back + 0.05),
            ],
            "body",
        ),
        *(
            _Part(_box(x, back + 0.3, x + 0.17, 0.97), "body")
            for x in (-length, -length + 0.26, length - 0.42, length - 0.17)
        ),
        _Part(_ellipse(0, back + 0.28, length + 0.05, 0.3), "body"),
        _Part(_ellipse(hx + 0.24, hy + 0.1, 0.26, 0.15), "body"),
        _Part(_ellipse(hx, hy, head, head * 0.92), "body"),
        _Part(_ellipse(hx - 0.2, hy + 0.02 + ear / 2, 0.12, 0.12 + ear), "trim"),
        _Part(_ellipse(hx + 0.47, hy + 0.04, 0.07, 0.07, 12), "dark"),
        _Part(_ellipse(hx + 0.1, hy - 0.07, 0.055, 0.055, 12), "dark"),
    ]
    return parts, _Seat(-0.12, back + 0.28, 0.3)


def _cat(a: float, b: float, c: float, d: float) -> _Drawn:
    width, height, head, ear = 0.38 + 0.2 * a, 0.5 + 0.16 * b, 0.36 + 0.1 * c, 0.22 + 0.22 * d
    hy = 0.95 - 2 * height * 0.82 - head * 0.45
    tail = [(0.2, 0.92), (0.8, 0.86), (0.92, 0.35), (0.8, 0.05), (0.7, 0.12), (0.78, 0.4), (0.68, 0.72), (0.2, 0.75)]
    parts = [
        _Part(tail, "body"),
        _Part(_ellipse(0, 0.95 - height * 0.85, width, height * 0.87), "body"),
        _Part(_ellipse(-0.2, 0.9, 0.16, 0.1, 16), "body"),
        _Part(_ellipse(0.2, 0.9, 0.16, 0.1, 16), "body"),
        _Part([(-head, hy - 0.05), (-head * 0.85, hy - head * 0.7 - ear), (-head * 0.1, hy - head * 0.7)], "trim"),
        _Part([(head, hy - 0.05), (head * 0.85, hy - head * 0.7 - ear), (head * 0.1, hy - head * 0.7)], "trim"),
        _Part(_ellipse(0, hy, head * 1.1, head * 0.9), "body"),
        _Part(_ellipse(-0.17, hy - 0.05, 0.075, 0.1, 14), "white"),
        _Part(_ellipse(0.17, hy - 0.05, 0.075, 0.1, 14), "white"),
        _Part(_ellipse(-0.17, hy - 0.05, 0.03, 0.08, 10), "dark"),
        _Part(_ellipse(0.17, hy - 0.05, 0.03, 0.08, 10), "dark"),
        _Part([(-0.06, hy + 0.1), (0.06, hy + 0.1), (0, hy + 0.17)], "dark"),
    ]
    return parts, _Seat(0, 0.95 - height * 0.8, 0.36)


def _bird(a: float, b: float, c: float, d: float) -> _Drawn:
    length, leg, head, wing = 0.5 + 0.16 * a, 0.18 + 0.3 * b, 0.22 + 0.12 * c, 0.3 + 0.2 * d
    y = 0.95 - leg - 0.36
    hx, hy = length * 0.85, y - 0.42
    parts = [
        *(_Part(_box(x, y + 0.2, x + 0.07, 0.97), "dark") for x in (-0.14, 0.1)),
        _Part(
            [(-length + 0.15, y), (-length - 0.42, y - 0.32), (-length - 0.42, y + 0.02), (-length + 0.1, y + 0.2)],
            "trim",
        ),
        _Part(_ellipse(0, y, length, 0.4), "body"),
        _Part([(hx + head * 0.6, hy - 0.1), (hx + head + 0.28, hy + 0.04), (hx + head * 0.6, hy + 0.14)], "trim"),
        _Part(_ellipse(hx, hy, head, head), "body"),
        _Part([(0.2, y - 0.12), (-0.1, y - 0.3), (-0.3 - wing, y + 0.06), (-0.1, y + 0.22), (0.16, y + 0.14)], "trim"),
        _Part(_ellipse(hx + 0.07, hy - 0.05, 0.06, 0.06, 12), "dark"),
    ]
    return parts, _Seat(0.24, y + 0.1, 0.27)


def _fish(a: float, b: float, c: float, d: float) -> _Drawn:
    length, height, tail, fin = 0.58 + 0.14 * a, 0.34 + 0.22 * b, 0.28 + 0.24 * c, 0.2 + 0.24 * d
    parts = [
        _Part(
            [(-length + 0.1, 0.1), (-length - 0.34, 0.1 - tail), (-length - 0.2, 0.1), (-length - 0.34, 0.1 + tail)],
            "trim",
        ),
        _Part([(-0.3, 0.1 - height * 0.7), (-0.1, 0.05 - height - fin), (0.3, 0.1 - height * 0.8)], "trim"),
        _Part([(-0.1, 0.1 + height * 0.7), (-0.15, 0.1 + height + fin * 0.8), (0.22, 0.1 + height * 0.8)], "trim"),
        _Part(_ellipse(0.05, 0.1, length, height), "body"),
        _Part(_ellipse(length * 0.62, 0, 0.13, 0.13, 16), "white"),
        _Part(_ellipse(length * 0.65, 0, 0.06, 0.06, 12), "dark"),
        _Part([(length * 0.8, 0.28), (length * 1.0, 0.2), (length * 0.86, 0.22)], "dark"),
    ]
    return parts, _Seat(-0.12, 0.1, height * 0.8)


def _robot(a: float, b: float, c: float, d: float) -> _Drawn:
    width, leg, head, arm = 0.34 + 0.2 * a, 0.18 + 0.24 * b, 0.28 + 0.14 * c, 0.12 + 0.1 * d
    hip, neck = 0.97 - leg, -0.2
    parts = [
        *(_Part(_box(x - 0.1, hip - 0.05, x + 0.1, 0.97), "body") for x in (-width * 0.55, width * 0.55)),
        *(
            _Part(_box(side * (width + arm) - arm, neck + 0.08, side * (width + arm) + arm, neck + 0.62), "trim")
            for side in (-1, 1)
        ),
        _Part(_box(-0.035, neck - 0.9, 0.035, neck - 0.5), "dark"),
        _Part(_ellipse(0, neck - 0.92, 0.1, 0.1, 14), "trim"),
        _Part(_box(-width, neck, width, hip), "body"),
        _Part(_box(-head, neck - 0.62, head, neck - 0.04), "body"),
        *(_Part(_ellipse(side * head * 0.48, neck - 0.38, 0.1, 0.1, 16), "white") for side in (-1, 1)),
        *(_Part(_ellipse(side * head * 0.48, neck - 0.38, 0.045, 0.045, 10), "dark") for side in (-1, 1)),
        _Part(_box(-head * 0.55, neck - 0.2, head * 0.55, neck - 0.12), "dark"),
    ]
    return parts, _Seat(0, (neck + hip) / 2, 0.34)


def _car(a: float, b: float, c: float, d: float) -> _Drawn:
    length, height, cabin, wheel = 0.82 + 0.16 * a, 0.3 + 0.14 * b, 0.34 + 0.22 * c, 0.18 + 0.1 * d
    floor = 0.95 - wheel
    top = floor - height
    roof = top - 0.28 - 0.16 * b
    parts = [
        _Part([(-cabin - 0.26, top + 0.04), (-cabin, roof), (cabin * 0.7, roof), (cabin + 0.24, top + 0.04)], "body"),
        _Part(
            [(-cabin - 0.08, top - 0.02), (-cabin + 0.06, roof + 0.09), (-0.06, roof + 0.09), (-0.06, top - 0.02)],
            "glass",
        ),
        _Part(
            [(0.06, top - 0.02), (0.06, roof + 0.09), (cabin * 0.66, roof + 0.09), (cabin + 0.06, top - 0.02)], "glass"
        ),
        _Part(
            [
                (-length, top + 0.06),
                (-length + 0.08, top),
                (length - 0.2, top),
                (length, top + 0.14),
                (length, floor + 0.06),
                (-length, floor + 0.06),
            ],
            "body",
        ),
        *(_Part(_ellipse(x, floor, wheel, wheel, 22), "dark") for x in (-length * 0.55, length * 0.55)),
        *(_Part(_ellipse(x, floor, wheel * 0.6, wheel * 0.6, 18), "trim") for x in (-length * 0.55, length * 0.55)),
    ]
    return parts, _Seat(0, (top + floor) / 2, 0.26)


def _boat(a: float, b: float, c: float, d: float) -> _Drawn:
    length, hull, mast, sail = 0.7 + 0.25 * a, 0.36 + 0.16 * b, 0.95 + 0.3 * c, 0.34 + 0.3 * d
    deck = 0.9 - hull
    parts = [
        _Part(_box(-0.08, deck - mast, 0.0, deck + 0.04), "dark"),
        _Part([(0.04, deck - mast + 0.05), (0.04 + sail * 1.2, deck - 0.12), (0.04, deck - 0.12)], "trim"),
        _Part([(-0.12, deck - mast + 0.2), (-0.12 - sail, deck - 0.12), (-0.12, deck - 0.12)], "white"),
        _Part([(-length, deck), (length, deck), (length * 0.7, 0.92), (-length * 0.7, 0.92)], "body"),
    ]
    return parts, _Seat(0, deck + hull / 2, hull * 0.62)


def _rocket(a: float, b: float, c: float, d: float) -> _Drawn:
    width, height, nose, fin = 0.24 + 0.16 * a, 0.72 + 0.22 * b, 0.3 + 0.26 * c, 0.18 + 0.22 * d
    top = 0.8 - 1.2 * height
    parts = [
        *(
            _Part(
                [
                    (side * width * 0.8, 0.3),
                    (side * (width + fin), 0.7),
                    (side * (width + fin), 0.97),
                    (side * width * 0.8, 0.78),
                ],
                "trim",
            )
            for side in (-1, 1)
        ),
        _Part([(-0.12, 0.78), (0.12, 0.78), (0.18, 0.95), (-0.18, 0.95)], "dark"),
        _Part(
            [(-width, top), (width, top), (width, 0.6), (width * 0.8, 0.82), (-width * 0.8, 0.82), (-width, 0.6)],
            "body",
        ),
        _Part(
            [
                (-width, top),
                (-width * 0.6, top - nose * 0.6),
                (0, top - nose),
                (width * 0.6, top - nose * 0.6),
                (width, top),
            ],
            "trim",
        ),
        _Part(_ellipse(0, top + 0.26, 0.16, 0.16, 20), "glass"),
    ]
    return parts, _Seat(0, 0.42, width * 1.1)


def _house(a: float, b: float, c: float, d: float) -> _Drawn:
    width, height, roof, eaves = 0.52 + 0.22 * a, 0.66 + 0.3 * b, 0.4 + 0.34 * c, 0.06 + 0.16 * d
    top = 0.95 - height
    parts = [
        _Part(_box(width * 0.4, top - roof * 0.95, width * 0.4 + 0.18, top), "dark"),
        _Part(_box(-width, top, width, 0.95), "body"),
        _Part([(-width - eaves, top + 0.02), (0, top - roof), (width + eaves, top + 0.02)], "trim"),
        _Part(_box(-width + 0.12, 0.5, -width + 0.38, 0.95), "dark"),
        _Part(_box(width - 0.42, top + 0.16, width - 0.1, top + 0.44), "glass"),
    ]
    return parts, _Seat(0.02, 0.62, 0.32)


def _mug(a: float, b: float, c: float, d: float) -> _Drawn:
    width, height, flare, handle = 0.42 + 0.18 * a, 0.56 + 0.18 * b, 0.12 * (c - 0.5), 0.24 + 0.16 * d
    top = 0.92 - 2 * height * 0.85
    middle = (top + 0.92) / 2
    outer = _ellipse(width - 0.04, middle, handle + 0.14, handle + 0.1, 20, -90, 90)
    inner = _ellipse(width - 0.04, middle, handle - 0.04, handle - 0.08, 20, 90, -90)
    parts = [
        _Part([*outer, *inner], "trim"),
        _Part([(-width - flare, top), (width + flare, top), (width - flare, 0.92), (-width + flare, 0.92)], "body"),
        _Part(_ellipse(0, top, width + flare, 0.13, 28), "trim"),
        _Part(_ellipse(0, top, (width + flare) * 0.82, 0.07, 28), "dark"),
    ]
    return parts, _Seat(-0.04, middle + 0.06, width * 0.75)


def _teapot(a: float, b: float, c: float, d: float) -> _Drawn:
    width, height, spout, lid = 0.46 + 0.12 * a, 0.42 + 0.16 * b, 0.2 + 0.26 * c, 0.1 + 0.1 * d
    y = 0.92 - height
    outer = _ellipse(-width + 0.06, y, 0.4, 0.36, 18, 90, 270)
    inner = _ellipse(-width + 0.06, y, 0.24, 0.2, 18, 270, 90)
    parts = [
        _Part([*outer, *inner], "trim"),
        _Part(
            [
                (width - 0.14, y + 0.26),
                (width + 0.3, y - spout),
                (width + 0.46, y - spout + 0.04),
                (width - 0.02, y - 0.14),
            ],
            "trim",
        ),
        _Part(_ellipse(0, y, width + 0.06, height, 32), "body"),
        _Part(_ellipse(0, y - height + 0.04, 0.32, lid, 22), "trim"),
        _Part(_ellipse(0, y - height - lid - 0.02, 0.1, 0.09, 14), "trim"),
    ]
    return parts, _Seat(0, y + 0.08, height * 0.72)


def _ball(a: float, b: float, c: float, d: float) -> _Drawn:
    rx, ry, band, tilt = 0.62 + 0.14 * a, 0.62 + 0.14 * b, 0.08 + 0.1 * c, 0.4 * (d - 0.5)
    y = 0.95 - ry
    belt = [
        *((x, y - 0.42 * ry - band - tilt * x) for x in (-rx * 0.86, 0, rx * 0.86)),
        *((x, y - 0.42 * ry + band - tilt * x) for x in (rx * 0.92, 0, -rx * 0.92)),
    ]
    parts = [_Part(_ellipse(0, y, rx, ry, 36), "body"), _Part(belt, "trim")]
    return parts, _Seat(0, y + 0.3 * ry, 0.4)


CLASSES: dict[str, Callable[[float, float, float, float], _Drawn]] = {
    "dog": _dog,
    "cat": _cat,
    "bird": _bird,
    "fish": _fish,
    "robot": _robot,
    "car": _car,
    "boat": _boat,
    "rocket": _rocket,
    "house": _house,
    "mug": _mug,
    "teapot": _teapot,
    "ball": _ball,
}
TRIMS = {
    "dog": "ears",
    "cat": "ears",
    "bird": "wings",
    "fish": "fins",
    "robot": "arms",
    "car": "wheels",
    "boat": "sail",
    "rocket": "fins",
    "house": "roof",
    "mug": "handle",
    "teapot": "lid",
    "ball": "band",
}


# Places


class _Brush:
    """Draws in coordinates that are shares of the picture, 0..1 from the top left corner."""

    def __init__(self, picture: Image.Image) -> None:
        self.picture = picture
        self.pen = ImageDraw.Draw(picture)
        self.side = picture.width

    def sky(self, top: RGB, bottom: RGB, end: float = 1.0) -> None:
        """A vertical gradient from the upper edge down to `end`."""
        rows = round(end * self.side)
        for row in range(0, rows, SUPERSAMPLING):
            self.pen.rectangle((0, row, self.side, row + SUPERSAMPLING - 1), fill=_mix(top, bottom, row / rows))

    def polygon(self, points: Sequence[Point], rgb: RGB) -> None:
        self.pen.polygon([(x * self.side, y * self.side) for x, y in points], fill=rgb)

    def box(self, left: float, top: float, right: float, bottom: float, rgb: RGB) -> None:
        self.polygon(_box(left, top, right, bottom), rgb)

    def disc(self, x: float, y: float, radius: float, rgb: RGB, *, flat: float = 1.0) -> None:
        s, r = self.side, radius * self.side
        self.pen.ellipse((x * s - r, y * s - r * flat, x * s + r, y * s + r * flat), fill=rgb)

    def ring(self, x: float, y: float, radius: float, rgb: RGB) -> None:
        s, r = self.side, radius * self.side
        self.pen.ellipse((x * s - r, y * s - r, x * s + r, y * s + r), outline=rgb, width=_LINE)


def _beach(brush: _Brush, random: Random) -> None:
    brush.sky((118, 196, 246), (206, 236, 250), 0.4)
    brush.box(0, 0.38, 1, 0.58, (36, 148, 196))
    brush.box(0, 0.55, 1, 0.6, (226, 244, 248))
    brush.box(0, 0.59, 1, 1, (240, 214, 150))
    brush.disc(random.uniform(0.1, 0.9), random.uniform(0.08, 0.2), 0.09, (255, 232, 96))
    for _ in range(6):
        brush.disc(random.random(), random.uniform(0.68, 0.98), 0.013, (206, 174, 112))


def _snow(brush: _Brush, random: Random) -> None:
    brush.sky((150, 178, 204), (206, 220, 234), 0.7)
    for x in (random.uniform(0, 0.3), random.uniform(0.7, 1)):
        for level in range(3):
            y, half = 0.28 + 0.1 * level, 0.07 + 0.035 * level
            brush.polygon([(x, y - 0.12), (x - half, y + 0.1), (x + half, y + 0.1)], (44, 92, 84))
    brush.disc(random.uniform(0.2, 0.8), 1.4, 0.88, (240, 246, 252))
    brush.box(0, 0.68, 1, 1, (240, 246, 252))
    for _ in range(26):
        brush.disc(random.random(), random.random(), 0.013, (255, 255, 255))


def _moon(brush: _Brush, random: Random) -> None:
    brush.sky((8, 8, 22), (22, 20, 44), 0.62)
    for _ in range(22):
        brush.disc(random.random(), random.uniform(0, 0.56), random.choice((0.006, 0.01)), (250, 250, 236))
    x, y = random.uniform(0.12, 0.88), random.uniform(0.1, 0.2)
    brush.disc(x, y, 0.09, (58, 118, 210))
    brush.disc(x - 0.02, y - 0.02, 0.035, (84, 178, 96))
    brush.box(0, 0.58, 1, 1, (168, 166, 172))
    for _ in range(5):
        x, y, radius = random.random(), random.uniform(0.66, 0.98), random.uniform(0.04, 0.09)
        brush.disc(x, y, radius, (122, 120, 128), flat=0.4)


def _table(brush: _Brush, random: Random) -> None:
    brush.sky((236, 226, 206), (222, 208, 182), 0.6)
    brush.box(0, 0.56, 1, 1, (176, 112, 58))
    for y in (0.56, 0.66, 0.78, 0.92):
        brush.box(0, y, 1, y + 0.014, (118, 68, 30))
    for top, bottom in ((0.58, 0.66), (0.67, 0.78), (0.79, 0.92), (0.93, 1.0)):
        x = random.random()
        brush.box(x, top, x + 0.014, bottom, (118, 68, 30))


def _ocean(brush: _Brush, random: Random) -> None:
    brush.sky((40, 150, 204), (8, 44, 112))
    for _ in range(3):
        x = random.uniform(0, 1)
        brush.polygon([(x, 0), (x + 0.08, 0), (x - 0.1, 0.75), (x - 0.24, 0.75)], (52, 140, 196))
    for x in [random.uniform(0, 0.35), random.uniform(0.65, 1), random.uniform(0, 1)]:
        for level in range(4):
            brush.disc(x + 0.02 * (-1) ** level, 0.98 - 0.07 * level, 0.045, (18, 122, 92))
    for _ in range(9):
        brush.ring(random.random(), random.uniform(0.05, 0.9), random.uniform(0.015, 0.035), (196, 232, 246))


def _city(brush: _Brush, random: Random) -> None:
    brush.sky((24, 22, 62), (70, 44, 104), 0.75)
    x = -0.05
    while x < 1:
        width, top = random.uniform(0.12, 0.2), random.uniform(0.12, 0.42)
        brush.box(x, top, x + width - 0.01, 0.75, (16, 18, 36))
        for row in range(int((0.72 - top) / 0.08)):
            for column in range(int((width - 0.02) / 0.055)):
                if random.random() < 0.55:
                    left, up = x + 0.02 + 0.055 * column, top + 0.03 + 0.08 * row
                    brush.box(left, up, left + 0.03, up + 0.04, (255, 216, 96))
        x += width
    brush.box(0, 0.72, 1, 1, (58, 58, 70))
    for x in (0.02, 0.36, 0.7):
        brush.box(x, 0.9, x + 0.2, 0.93, (232, 220, 120))


def _desert(brush: _Brush, random: Random) -> None:
    brush.sky((250, 176, 96), (254, 226, 164), 0.75)
    brush.disc(random.uniform(0.15, 0.85), random.uniform(0.14, 0.26), 0.11, (255, 246, 214))
    brush.disc(random.uniform(0.0, 0.4), 1.05, 0.56, (226, 142, 66))
    brush.disc(random.uniform(0.6, 1.0), 1.1, 0.56, (212, 126, 54))
    brush.box(0, 0.72, 1, 1, (226, 142, 66))
    x = random.choice((random.uniform(0.04, 0.16), random.uniform(0.84, 0.96)))
    brush.box(x - 0.025, 0.34, x + 0.025, 0.74, (46, 124, 62))
    brush.box(x - 0.09, 0.46, x, 0.5, (46, 124, 62))
    brush.box(x - 0.09, 0.38, x - 0.055, 0.5, (46, 124, 62))


def _forest(brush: _Brush, random: Random) -> None:
    brush.sky((24, 66, 40), (52, 108, 58))
    for place in range(6):
        x = 0.02 + 0.18 * place + random.uniform(-0.04, 0.04)
        brush.box(x, 0, x + random.uniform(0.05, 0.09), 0.72, (66, 42, 26))
    for _ in range(9):
        brush.disc(random.random(), random.uniform(-0.02, 0.14), 0.12, random.choice(((30, 92, 46), (22, 76, 38))))
    brush.box(0, 0.7, 1, 1, (64, 70, 34))
    for _ in range(8):
        brush.disc(random.random(), random.uniform(0.74, 0.98), 0.03, (92, 100, 42), flat=0.5)


def _meadow(brush: _Brush, random: Random) -> None:
    brush.sky((126, 200, 248), (196, 232, 252), 0.55)
    for _ in range(2):
        x, y = random.random(), random.uniform(0.08, 0.24)
        for step in range(3):
            brush.disc(x + 0.07 * step, y, 0.06, (255, 255, 255), flat=0.7)
    brush.box(0, 0.5, 1, 1, (112, 192, 72))
    for _ in range(22):
        flower = random.choice(((250, 240, 90), (250, 250, 250), (242, 120, 170)))
        brush.disc(random.random(), random.uniform(0.56, 0.99), 0.018, flower)


def _room(brush: _Brush, random: Random) -> None:
    brush.box(0, 0, 1, 0.66, (206, 150, 148))
    for place in range(7):
        brush.box(0.15 * place, 0, 0.15 * place + 0.06, 0.66, (220, 172, 166))
    x = random.choice((random.uniform(0.03, 0.12), random.uniform(0.64, 0.7)))
    brush.box(x, 0.06, x + 0.28, 0.36, (250, 250, 250))
    brush.box(x + 0.03, 0.09, x + 0.25, 0.33, (150, 210, 246))
    brush.box(x + 0.13, 0.09, x + 0.15, 0.33, (250, 250, 250))
    brush.box(0, 0.63, 1, 0.67, (250, 244, 236))
    brush.box(0, 0.67, 1, 1, (128, 52, 60))
    brush.disc(0.5, 0.86, 0.42, (176, 82, 84), flat=0.25)


def _mountains(brush: _Brush, random: Random) -> None:
    brush.sky((166, 132, 196), (246, 190, 176), 0.7)
    for place in range(3):
        x, y = 0.1 + 0.4 * place + random.uniform(-0.1, 0.1), random.uniform(0.12, 0.26)
        brush.polygon([(x, y), (x - 0.34, 0.72), (x + 0.34, 0.72)], (92, 84, 118))
        brush.polygon([(x, y), (x - 0.09, y + 0.14), (x + 0.02, y + 0.1), (x + 0.09, y + 0.14)], (246, 246, 250))
    brush.box(0, 0.7, 1, 1, (120, 116, 96))
    for _ in range(7):
        brush.disc(random.random(), random.uniform(0.76, 0.98), random.uniform(0.02, 0.05), (150, 146, 126), flat=0.6)


def _clouds(brush: _Brush, random: Random) -> None:
    brush.sky((64, 142, 236), (140, 200, 252))
    for _ in range(7):
        x, y, size = random.uniform(-0.1, 1), random.uniform(0.05, 0.98), random.uniform(0.07, 0.11)
        for dx, dy in ((0, 0), (0.09, -0.03), (0.18, 0)):
            brush.disc(x + dx, y + dy, size, (250, 252, 255), flat=0.8)


PLACES: dict[str, Callable[[_Brush, Random], None]] = {
    "on the beach": _beach,
    "in the snow": _snow,
    "on the moon": _moon,
    "on a wooden table": _table,
    "in the ocean": _ocean,
    "in a city at night": _city,
    "in the desert": _desert,
    "in the forest": _forest,
    "in a meadow": _meadow,
    "in a living room": _room,
    "in the mountains": _mountains,
    "in the clouds": _clouds,
}
FLOATING = ("in the ocean", "in the clouds")  # no ground, no shadow


# Colours


def _jitter(rgb: RGB, random: Random) -> RGB:
    red, green, blue = (min(255, max(0, round(value + random.gauss(0, 7)))) for value in rgb)
    return red, green, blue


def _mix(first: RGB, second: RGB, share: float) -> RGB:
    """The first colour with a `share` of the second mixed in."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _shade(rgb: RGB, factor: float) -> RGB:
    red, green, blue = (round(value * factor) for value in rgb)
    return red, green, blue


def _distance(first: RGB, second: RGB) -> float:
    return math.dist(first, second)
