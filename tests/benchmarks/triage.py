"""The triage against damage that was planted: `python -m tests.benchmarks.photos` writes its table into photos.md.

The thresholds of `findings.py` were chosen on every other subject (KNOWN) and the first seeds; the table is of the other subjects and
seeds.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from math import comb
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np

from dreambooth_cli.events import FindingKind
from dreambooth_cli.photos.findings import judge_photos, judge_set
from dreambooth_cli.photos.looked import look_at
from dreambooth_cli.photos.measures import Measures
from dreambooth_cli.photos.pixels import read_photo

from .damages import ALONE, as_jpeg, in_place, near_duplicate, opened, other_subject
from .scenes import SUBJECTS, subjects, true_boxes

SEEDS = 3  # of each half
STRENGTHS = (0, 1, 2)
ADDED = "z.jpg"
MOST_HIDDEN, PLAIN = 0.5, 5.0  # of a place, by its own subject; of 255, the spread of plain paper


@dataclass(frozen=True)
class Planted:
    """A set of photos, files by name, of which `name` was damaged; of a set as a whole `name` is ""."""

    subject: str
    damage: str
    kind: str
    strength: int
    name: str
    files: dict[str, bytes]


@dataclass
class Score:
    """What came of the planted damage: found and planted by damage and strength; accusations of untouched photos, and how many there
    were, in undamaged sets by subject and, beyond those, in damaged ones by kind."""

    found: Counter[tuple[str, int]] = field(default_factory=Counter)
    planted: Counter[tuple[str, int]] = field(default_factory=Counter)
    accused: dict[str, list[str]] = field(default_factory=dict)
    said_of_sets: dict[str, list[str]] = field(default_factory=dict)
    accused_beside: Counter[str] = field(default_factory=Counter)
    untouched: int = 0
    untouched_beside: int = 0


def halves() -> tuple[list[str], list[str]]:
    """The subjects that the thresholds are from, and those that the table is of."""
    return subjects()[0::2], subjects()[1::2]


def score(half: list[str], seeds: range) -> Score:
    """Judge the subjects' own photos, then every damaged set of them; strange photos and places come from the same half."""
    found = Score()
    for subject in half:
        photos = photos_of(subject)
        clean = judged(photos)
        found.untouched += len(photos)
        found.accused[subject] = [f"{name}: {', '.join(_labels(subject, name, kinds))}" for name, kinds in clean.items() if kinds and name]
        found.said_of_sets[subject] = sorted(clean[""])
        for one in planted(subject, [other for other in half if other != subject], seeds):
            now, key = judged(one.files), (one.damage, one.strength)
            found.planted[key] += 1
            found.found[key] += one.kind in now[one.name]
            if one.name:
                for name in photos.keys() - {one.name}:
                    found.untouched_beside += 1
                    found.accused_beside.update(_labels(subject, name, now[name] - clean[name]))
    return found


def _labels(subject: str, name: str, kinds: set[FindingKind]) -> list[str]:
    """The kinds that a photo is accused of, and where that is no wrong of them."""
    is_cut = not is_whole(subject, name)
    return [f"{kind} (its subject does reach an edge)" if kind == "cut_subject" and is_cut else kind for kind in sorted(kinds)]


def judged(files: dict[str, bytes]) -> dict[str, set[FindingKind]]:
    """The kinds of findings of each file, and at "" those of the set."""
    names = list(files)
    measured = [measured_of(files[name]) for name in names]
    kinds = {name: {finding.kind for finding in findings} for name, findings in zip(names, judge_photos(measured, names), strict=True)}
    return {**kinds, "": {finding.kind for finding in judge_set(measured)}}


@cache
def measured_of(file: bytes) -> Measures:
    """The measures of a photo as `prep` takes them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        path.write_bytes(file)
        return look_at(read_photo(path, 512), None).measures


@cache
def photos_of(subject: str) -> dict[str, bytes]:
    """A subject's photos, untouched."""
    return {path.name: path.read_bytes() for path in sorted((SUBJECTS / subject).glob("*.jpg"))}


def planted(subject: str, others: list[str], seeds: range) -> Iterator[Planted]:
    """Every damage to a subject's photos at each strength and seed; `others` are the subjects that strange photos and places are of."""
    for seed in seeds:
        for strength in STRENGTHS:
            for damage in ALONE:
                yield from _damaged(subject, damage, strength, Random(f"{subject} {damage} {strength} {seed}"))
            yield from _added(subject, others, strength, Random(f"{subject} added {strength} {seed}"))
            yield from _moved(subject, others, strength, Random(f"{subject} moved {strength} {seed}"))


def _damaged(subject: str, damage: str, strength: int, random: Random) -> Iterator[Planted]:
    """One photo in the place of which its damaged copy lies."""
    photos, (kind, work) = photos_of(subject), ALONE[damage]
    able = [name for name in photos if kind != "cut_subject" or is_whole(subject, name)]
    if able:
        name = random.choice(able)
        file = as_jpeg(work(opened(photos[name]), true_boxes()[f"{subject}/{name}"], strength, random))
        yield Planted(subject, damage, kind, strength, name, photos | {name: file})


def _added(subject: str, others: list[str], strength: int, random: Random) -> Iterator[Planted]:
    """One photo more: nearly the same as one of them, or of another subject."""
    photos = photos_of(subject)
    own = opened(random.choice(list(photos.values())))
    copy = near_duplicate(own, (0, 0, 1, 1), strength, random)
    yield Planted(subject, "near duplicate", "near_duplicate", strength, ADDED, photos | {ADDED: as_jpeg(copy)})
    strange = other_subject(opened(random.choice(list(photos_of(random.choice(others)).values()))), own, strength)
    yield Planted(subject, "another subject", "odd_one_out", strength, ADDED, photos | {ADDED: as_jpeg(strange)})


def _moved(subject: str, others: list[str], strength: int, random: Random) -> Iterator[Planted]:
    """All but two, all but one, or all of the photos (three at least) taken in one place; and as many times one photo in as many places."""
    photos = photos_of(subject)
    names = random.sample(list(photos), min(len(photos), max(3, len(photos) - 2 + strength)))
    place = _place(others, random)
    files = {name: _set_into(subject, name, place, random) for name in names}
    yield Planted(subject, "same place", "same_place", strength, "", photos | files)
    files = {name: _set_into(subject, names[0], _place(others, random), random) for name in names}
    yield Planted(subject, "one view", "few_views", strength, "", photos | files)


def _place(others: list[str], random: Random) -> tuple[str, str]:
    places = {other: [name for name in photos_of(other) if _is_place(other, name)] for other in others}
    other = random.choice([other for other in others if places[other]])
    return other, random.choice(places[other])


@cache
def _is_place(subject: str, name: str) -> bool:
    """Whether a photo's own subject leaves the place to be seen, and that is more than plain paper."""
    left, top, right, bottom = true_boxes()[f"{subject}/{name}"]
    pixels = np.asarray(opened(photos_of(subject)[name]).resize((100, 100)), np.float32)
    is_round = np.ones((100, 100), bool)
    is_round[round(100 * top) : round(100 * bottom), round(100 * left) : round(100 * right)] = False
    return (right - left) * (bottom - top) < MOST_HIDDEN and float(pixels[is_round].std(axis=0).mean()) > PLAIN


def _set_into(subject: str, name: str, place: tuple[str, str], random: Random) -> bytes:
    boxes, ground = true_boxes(), photos_of(place[0])[place[1]]
    image = in_place(opened(photos_of(subject)[name]), boxes[f"{subject}/{name}"], opened(ground), boxes["/".join(place)], random)
    return as_jpeg(image)


def is_whole(subject: str, name: str) -> bool:
    """Whether a photo's subject keeps off its edges."""
    box = true_boxes()[f"{subject}/{name}"]
    return min(box) > 0.02 and max(box) < 0.98


def interval(found: int, tried: int) -> tuple[float, float]:
    """The exact interval of a share at 95% (Clopper and Pearson, 1934)."""

    def at_least(share: float) -> float:
        return sum(comb(tried, each) * share**each * (1 - share) ** (tried - each) for each in range(found, tried + 1))

    def at_most(share: float) -> float:
        return sum(comb(tried, each) * share**each * (1 - share) ** (tried - each) for each in range(found + 1))

    low = _crossing(lambda share: at_least(share) - 0.025) if found else 0.0
    high = _crossing(lambda share: 0.025 - at_most(share)) if found < tried else 1.0
    return low, high


def _crossing(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return low


def table() -> str:
    """The table of the other half of the subjects, in Markdown, and in lines what was said of untouched photos, of the known half's too."""
    known, others = halves()
    told = ["", "Of the subjects that the thresholds are from:", "", *_of_untouched(score(known, range(0)))]
    return "\n".join([table_of(score(others, range(SEEDS, 2 * SEEDS))), *told])


def table_of(one: Score) -> str:
    """The table of a score, and what was said of untouched photos."""
    lines = ["| planted | weak | middle | strong | the upper two | exact 95% interval |", "| --- | --- | --- | --- | --- | --- |"]
    damages = list(dict.fromkeys(damage for damage, _ in one.planted))
    for damage in [*damages, ""]:
        those = [damage] if damage else damages
        found, tried = (
            [sum(count[each, strength] for each in those) for strength in STRENGTHS] for count in (one.found, one.planted)
        )
        upper, of = sum(found[1:]), sum(tried[1:])
        low, high = interval(upper, of)
        cells = [f"{a}/{b}" for a, b in zip(found, tried, strict=True)]
        lines.append(f"| {damage or 'all'} | {' | '.join(cells)} | {upper}/{of} | {100 * low:.1f} to {100 * high:.1f}% |")
    lines += ["", *_of_untouched(one)]
    beside = ", ".join(f"{kind} {count}" for kind, count in sorted(one.accused_beside.items()))
    lines.append(
        f"Beside a damaged photo {one.accused_beside.total()} new findings on {one.untouched_beside} untouched ones: {beside or 'none'}."
    )
    return "\n".join(lines)


def _of_untouched(one: Score) -> list[str]:
    """What was said of photos and sets in which nothing was planted."""
    accused = [f"{subject}/{said}" for subject, all_said in one.accused.items() for said in all_said]
    sets = [f"{subject}: {', '.join(said)}" for subject, said in one.said_of_sets.items() if said]
    return [
        f"Of {one.untouched} untouched photos in their own sets {len(accused)} are accused: {'; '.join(accused) or 'none'}.",
        f"Of the {len(one.said_of_sets)} untouched sets is said: {'; '.join(sets) or 'nothing'}.",
    ]
