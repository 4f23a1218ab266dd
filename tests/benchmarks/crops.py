"""The square that follows the subject against the middle one, in scenes with a known subject: `python -m tests.benchmarks.photos` writes
the table into photos.md.

The constants of `subject.py` were chosen on every other subject (`triage.halves`) and the first seeds; the table is of other seeds.
"""

from collections import Counter
from dataclasses import dataclass, field

from dreambooth_cli.photos.crop import Box, square_box
from dreambooth_cli.photos.pixels import Photo
from dreambooth_cli.photos.subject import find_subject, square_of

from .scenes import CUT, SET, SHAPES, scenes_of
from .triage import halves, interval

KNOWN, FRESH = range(3), range(10, 13)  # seeds that the constants are from, and others
ENOUGH = 0.95  # of the subject's box


@dataclass
class Held:
    """Of scenes in which the subject fits into a square: how many there were, and in how many the chosen and the middle square hold it."""

    scenes: Counter[str] = field(default_factory=Counter)
    chosen: Counter[str] = field(default_factory=Counter)
    middle: Counter[str] = field(default_factory=Counter)


def measure(subjects: list[str], seeds: range) -> Held:
    """Crop every scene of these subjects and seeds in which the subject fits; counted by kind and by shape."""
    held = Held()
    for seed in seeds:
        for scene in (scene for subject in subjects for scene in scenes_of(subject, seed) if scene.fits):
            size = scene.image.size
            chosen = square_of(find_subject(Photo(scene.image, size)), size)
            for key in (scene.kind, scene.shape):
                held.scenes[key] += 1
                held.chosen[key] += share_held(scene.box, chosen) >= ENOUGH
                held.middle[key] += share_held(scene.box, square_box(size, "center")) >= ENOUGH
    return held


def share_held(subject: Box, square: Box) -> float:
    """The share of a subject's box that lies in a square."""
    across, down = (min(subject[end + 2], square[end + 2]) - max(subject[end], square[end]) for end in (0, 1))
    return max(0, across) * max(0, down) / ((subject[2] - subject[0]) * (subject[3] - subject[1]))


def table() -> str:
    """Both halves of the subjects in fresh scenes, by kind and by shape, in Markdown."""
    known, others = halves()
    found = {"other subjects": measure(others, FRESH), "subjects that the constants are from": measure(known, FRESH)}
    lines = ["| of | scenes | square of the subject | exact 95% interval | middle square |", "| --- | --- | --- | --- | --- |"]
    for who, held in found.items():
        lines += [_row(f"**{who}**", held, [*CUT, *SET])]
        lines += [_row(key, held, [key]) for key in (*CUT, *SET, *SHAPES)]
    return "\n".join(lines)


def _row(name: str, held: Held, keys: list[str]) -> str:
    scenes, chosen, middle = (sum(count[key] for key in keys) for count in (held.scenes, held.chosen, held.middle))
    low, high = interval(chosen, scenes)
    share = f"{chosen}/{scenes} ({100 * chosen / scenes:.1f}%)"
    return f"| {name} | {scenes} | {share} | {100 * low:.1f} to {100 * high:.1f}% | {middle} ({100 * middle / scenes:.1f}%) |"
