"""What a photographer would say of each photo and of the set, each in one plain sentence with what to do.

The thresholds are from half of the subjects of `tests/benchmarks/triage.py`, which measures on the other half what they find.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ..events import Finding, FindingKind
from .common import Common, in_common
from .likeness import near_twins
from .measures import Measures

TWICE = "twice"
WORDS: dict[FindingKind, str] = {
    "duplicate": TWICE,
    "near_duplicate": TWICE,
    "screenshot": "screenshot",
    "border": "framed",
    "odd_one_out": "another subject",
    "dark": "dark",
    "burnt_out": "burnt out",
    "blur": "soft",
    "tiny_subject": "far away",
    "cut_subject": "cut off",
}  # the word for a photo is that of its first finding in this order

BLUR, TIMES_BLUR = 1.05, 1.3  # pixels at 512, and beside the others
DARK, TIMES_DARK = 0.45, 0.7  # light
CLIPPED, COLOURED, TIMES_CLIPPED = 0.06, 0.1, 3.0  # shares of the photo, and beside three quarters of the others
CLIPPED_SUBJECT = 0.065
DETAIL, AREA = 0.019, 0.028  # shares of the photo
MOST_LOST = 0.2  # of what looks like the subject, by the crop
TOUCHING = 0.72  # of the subject's own length
LIKENESS = 0.74  # of the others'
PLACE, FLAT = 0.84, 2.0  # likeness of two backgrounds; LAB
VIEW = 0.75  # correlation of two subjects' pictures
MOSTLY, FEWEST_SIDES = 0.6, 3  # share of the photos, and how many at least, that are from one place or side
UNSOUND: set[FindingKind] = {"near_duplicate", "screenshot", "dark", "burnt_out"}  # whose colours say nothing of the set's
USUAL = {"blur": 0.8, "bright": 0.9, "clipped": 0.0, "coloured": 0.0}  # where there are no others


def judge_photos(measured: Sequence[Measures], names: Sequence[str]) -> list[tuple[Finding, ...]]:
    """The findings of each photo, by itself and beside the others of its set."""
    alone = _alone(measured, names)
    kinds = [{finding.kind for finding in findings} for findings in alone]
    common = in_common(measured, [not UNSOUND & each for each in kinds])
    return [(*alone[each], *_subject(one, common, each, "dark" not in kinds[each])) for each, one in enumerate(measured)]


def judge_set(measured: Sequence[Measures]) -> list[Finding]:
    """What is to be said of the set as a whole."""
    common = in_common(measured, [True] * len(measured))
    return [*_place(common), *_view(common)]


def cut_by_crop(name: str, share: float) -> Finding:
    """The finding of a photo of whose subject the crop leaves out this share."""
    words = f"The crop removes {share:.0%} of what looks like the subject of {name}: try --crop pad or none, or give it a box of its own."
    return Finding("cut_subject", round(share, 2), words)


def same_file(other: str) -> Finding:
    """The finding of a file whose content is that of another."""
    return Finding("duplicate", 1.0, f"The same file as {other}: it is used once.")


def word_for(findings: Sequence[Finding]) -> str:
    """A photo in a word: `good`, or what is first to be said of it."""
    kinds = {finding.kind for finding in findings}
    return next((word for kind, word in WORDS.items() if kind in kinds), "good")


def verdict_on(photos: Sequence[Sequence[object]], of_set: Sequence[Finding]) -> str:
    """The set in a sentence; `photos` are the findings of each photo."""
    found, count = sum(bool(findings) for findings in photos), len(photos)
    kinds = {finding.kind for finding in of_set}
    told = [f"{found} of {count} photos could be better"] if found else []
    told += ["too many are from one place"] if "same_place" in kinds else []
    told += ["too many show one side"] if "few_views" in kinds else []
    return ", ".join(told) or ("a good set" if count > 2 else "nothing to find fault with, but few")


def _alone(measured: Sequence[Measures], names: Sequence[str]) -> list[tuple[Finding, ...]]:
    """What can be said of each photo without knowing its subject."""
    found: list[tuple[Finding, ...]] = []
    for one in measured:
        others = [other for other in measured if other is not one]
        found.append((*_round(one), *_light(one, others), *_blur(one, others)))
    twins = _twins(measured, names, [len(findings) for findings in found])
    return [(*twins.get(each, []), *findings) for each, findings in enumerate(found)]


def _twins(measured: Sequence[Measures], names: Sequence[str], faults: Sequence[int]) -> dict[int, list[Finding]]:
    """Of each two photos that are nearly the same the one with more faults, or with fewer pixels, or the later one, has the finding."""
    found: dict[int, list[Finding]] = {}
    for one, other, alike in near_twins([each.thumb for each in measured]):
        pixels = [measured[each].size[0] * measured[each].size[1] for each in (one, other)]
        is_first = faults[one] > faults[other] or (faults[one] == faults[other] and pixels[0] < 0.95 * pixels[1])
        worse, better = (one, other) if is_first else (other, one)
        found[worse] = [Finding("near_duplicate", round(alike, 3), f"Nearly the same picture as {names[better]}: leave one of them out.")]
    return found


def _round(one: Measures) -> Iterator[Finding]:
    if one.frame.is_screen:
        share = 1 - sum(bar.depth for bar in (one.frame.top, one.frame.bottom) if bar)
        yield Finding("screenshot", round(share, 2), "A screenshot: use the photo itself, or cut away the bars round it.")
    elif one.frame.width > 0:
        yield Finding("border", round(one.frame.width, 3), "There is a border round it: cut it away, or the model learns it.")


def _light(one: Measures, others: Sequence[Measures]) -> Iterator[Finding]:
    if one.bright < DARK and one.bright < TIMES_DARK * _usual("bright", [other.bright for other in others]):
        yield Finding("dark", round(one.bright, 2), "Too dark: brighten it, or take it again in more light.")
    clipped, coloured = [each.clipped for each in (one, *others)], [each.clipped - each.white for each in (one, *others)]
    is_clipped = clipped[0] > CLIPPED + TIMES_CLIPPED * _usual("clipped", clipped[1:], 75) and one.clipped_subject > CLIPPED_SUBJECT
    if is_clipped or coloured[0] > COLOURED + TIMES_CLIPPED * _usual("coloured", coloured[1:], 75):
        yield Finding("burnt_out", round(one.clipped, 2), "Burnt out, and what is white has no detail: take it again with less light.")


def _blur(one: Measures, others: Sequence[Measures]) -> Iterator[Finding]:
    if one.blur > BLUR and one.blur > TIMES_BLUR * _usual("blur", [other.blur for other in others]):
        yield Finding("blur", round(one.blur, 1), "Blurred beside the others: leave it out, or take it again with a steady hand.")


def _subject(one: Measures, common: Common, each: int, is_lit: bool) -> Iterator[Finding]:
    """What is to be said of the subject in a photo, as far as it can be told where that lies."""
    others = np.delete(common.likeness, each)
    likeness = float(common.likeness[each] / np.median(others)) if len(others) > 1 and is_lit else 1.0
    if likeness < LIKENESS:
        yield Finding("odd_one_out", round(likeness, 2), "It seems to show something else than the others: leave it out if it does.")
    touching = float(common.touching[each])
    if one.detail < DETAIL or (common.area[each] < AREA and likeness >= LIKENESS):
        share = min(one.detail, float(common.area[each]))
        yield Finding("tiny_subject", round(share, 3), "The subject is very small in it: go nearer, or crop it closer.")
    if touching > TOUCHING:
        words = f"The subject seems to be cut off at the {common.edge[each]}: use a photo that shows all of it."
        yield Finding("cut_subject", round(touching, 2), words)


def _place(common: Common) -> Iterator[Finding]:
    alike = (common.places >= PLACE).sum(axis=1)
    place, count = int(alike.argmax()), len(alike)
    if alike[place] >= max(FEWEST_SIDES, round(MOSTLY * count)) and common.variety[place] > FLAT:
        words = f"{alike[place]} of {count} have the same background, and the model will learn it too: take some elsewhere."
        yield Finding("same_place", round(float(alike[place] / count), 2), words)


def _view(common: Common) -> Iterator[Finding]:
    count = len(common.views)
    alike = int((common.views >= VIEW).sum(axis=1).max())
    if alike >= max(FEWEST_SIDES, round(MOSTLY * count)):
        words = f"{alike} of {count} show the subject from one side and in one pose: add other views."
        yield Finding("few_views", round(alike / count, 2), words)


def _usual(figure: str, others: Sequence[float], percent: float = 50) -> float:
    """What so many percent of the others do not surpass, or what is usual where there are none."""
    return float(np.percentile(others, percent)) if others else USUAL[figure]
