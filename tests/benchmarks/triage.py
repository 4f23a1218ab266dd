"""The triage against damage that was planted: `python -m tests.benchmarks.photos` writes its table into photos.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from . import damages
from .damages import ALONE, Shares, opened

SUBJECTS = Path(__file__).parents[3] / "shared" / "subjects"
SEEDS = 3
STRENGTHS = (0, 1, 2)


@dataclass(frozen=True)
class Planted:
    """A set of photos, files by name, one of which was damaged; of the set as a whole `name` is ""."""

    subject: str
    damage: str
    kind: str
    strength: int
    name: str
    files: dict[str, bytes]


def photos_of(subject: str) -> dict[str, bytes]:
    """A subject's photos, untouched."""
    return {path.name: path.read_bytes() for path in sorted((SUBJECTS / subject).glob("*.jpg"))}


def planted(subject: str, others: list[str], boxes: dict[str, dict[str, Shares]], seeds: range) -> Iterator[Planted]:
    """Every damage to a subject's photos at each strength and seed; `others` are the subjects that strange photos and places come from."""
    photos = photos_of(subject)
    for seed in seeds:
        for strength in STRENGTHS:
            for damage, (kind, work) in ALONE.items():
                random = Random(f"{subject} {damage} {strength} {seed}")
                able = [name for name in photos if kind != "cut_subject" or is_whole(boxes[subject][name])]
                if not able:
                    continue
                name = random.choice(able)
                file = damages.as_jpeg(work(opened(photos[name]), boxes[subject][name], strength, random))
                yield Planted(subject, damage, kind, strength, name, photos | {name: file})
            random = Random(f"{subject} other {strength} {seed}")
            name = random.choice(list(photos))
            copy = damages.near_duplicate(opened(photos[name]), boxes[subject][name], strength, random)
            yield Planted(subject, "near duplicate", "near_duplicate", strength, "z.jpg", photos | {"z.jpg": damages.as_jpeg(copy)})
            other = random.choice(others)
            strange = random.choice(list(photos_of(other).values()))
            file = damages.as_jpeg(damages.other_subject(opened(strange), opened(photos[name]), strength))
            yield Planted(subject, "another subject", "odd_one_out", strength, "z.jpg", photos | {"z.jpg": file})
            other = random.choice(others)
            place, ground = random.choice(list(photos_of(other).items()))
            count = (max(3, len(photos) - 2), len(photos) - 1, len(photos))[strength]
            moved = {
                name: damages.as_jpeg(damages.in_place(opened(photos[name]), boxes[subject][name], opened(ground), boxes[other][place], random))
                for name in random.sample(list(photos), min(count, len(photos)))
            }
            yield Planted(subject, "same place", "same_place", strength, "", photos | moved)


def is_whole(box: Shares) -> bool:
    """Whether a box keeps off the photo's edges."""
    return min(box) > 0.02 and max(box) < 0.98
