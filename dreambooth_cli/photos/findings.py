"""What a photographer would say of each photo and of the set, each in one plain sentence with what to do.

The thresholds are from half of the subjects of `tests/benchmarks/triage.py`, which measures on the other half what they find.
"""

from collections.abc import Callable, Iterator, Sequence

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

BLUR, TIMES_BLUR = 1.05, 1.42  # pixels at 512, and beside the others
DARK, TIMES_DARK = 0.45, 0.7  # light
CLIPPED, COLOURED, TIMES_CLIPPED = 0.06, 0.1, 3.0  # shares of the photo, and beside three quarters of the others
CLIPPED_SUBJECT, BURNT_SUBJECT = 0.065, 0.15  # of the subject: enough to be said, and too much to know it by its colours
HEAPED, FAR_HEAPED, PAIRED = 0.8, 1.2, 0.015  # times, and share of the photo in which two of three colours are at their end
DETAIL, AREA, DETAIL_ODD = 0.019, 0.028, 0.03  # shares of the photo
MOST_LOST = 0.2  # of what looks like the subject, by the crop
TOUCHING = 0.49  # of the subject's own length
LIKENESS, LIKENESS_CHANGED = 0.74, 0.55  # of the others', and where something else explains why its colours differ
PLACE, FLAT = 0.84, 2.0  # likeness of two backgrounds; LAB
VIEW = 0.75  # correlation of two subjects' pictures
MOSTLY, FEWEST_SIDES = 0.6, 3  # share of the photos, and how many at least, that are from one place or side
UNSOUND: set[FindingKind] = {"near_duplicate", "screenshot", "dark", "burnt_out"}  # whose colours say nothing of the set's
FRAMED: set[FindingKind] = {"screenshot", "border"}  # at whose edges there is something else
GREY = 3.0  # LAB, of a photo's most colourful place
USUAL = {"blur": 0.8, "bright": 0.9}  # where there are no others


def judge_photos(measured: Sequence[Measures], names: Sequence[str]) -> list[tuple[Finding, ...]]:
    """The findings of each photo, by itself and beside the others of its set."""
    alone = _alone(measured, names)
    kinds = [{finding.kind for finding in findings} for findings in alone]
    greys = [_is_grey(one) for one in measured]
    tells = [all(greys) or not grey for grey in greys]
    common = in_common(measured, [tell and not UNSOUND & each for tell, each in zip(tells, kinds, strict=True)])
    return [
        (*alone[each], *_subject(one, common, each, kinds[each])) if tells[each] else alone[each] for each, one in enumerate(measured)
    ]


def _is_grey(one: Measures) -> bool:
    """Whether a photo has no colours, which say nothing then of a set that has."""
    return bool(np.abs(one.colours[..., 1:]).max() < GREY)


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
        yield Finding("screenshot", round(share, 2), "A screenshot: use the photo itself, or crop the bars away.")
    elif one.frame.width > 0:
        yield Finding("border", round(one.frame.width, 3), "There is a border around it: crop it away, or the model learns that too.")


def _light(one: Measures, others: Sequence[Measures]) -> Iterator[Finding]:
    if one.bright < DARK and one.bright < TIMES_DARK * _usual("bright", [other.bright for other in others]):
        yield Finding("dark", round(one.bright, 2), "Too dark: brighten it, or take it again in more light.")
    if one.heaped > HEAPED and _is_burnt_out(one, others):
        yield Finding("burnt_out", round(one.clipped, 2), "Burnt out, its white parts have no detail: take it again with less light.")


def _is_burnt_out(one: Measures, others: Sequence[Measures]) -> bool:
    """Whether more of a photo is at its end than of the others: with its subject; in what is not white, as a backdrop may be; or, far
    heaped, in what is neither white nor the pure colour of a thing, where most is not white."""

    def beyond(share: Callable[[Measures], float], times: float) -> float:
        return share(one) - times * (float(np.percentile([share(each) for each in others], 75)) if others else 0.0)

    if beyond(lambda each: each.clipped, TIMES_CLIPPED) > CLIPPED and one.clipped_subject > CLIPPED_SUBJECT:
        return True
    if beyond(lambda each: each.clipped - each.white, TIMES_CLIPPED) > COLOURED:
        return True
    is_far_heaped = one.heaped > FAR_HEAPED and one.white < one.clipped / 2
    return is_far_heaped and beyond(lambda each: each.paired - each.white, 1) > PAIRED


def _blur(one: Measures, others: Sequence[Measures]) -> Iterator[Finding]:
    if one.blur > BLUR and one.blur > TIMES_BLUR * _usual("blur", [other.blur for other in others]):
        yield Finding("blur", round(one.blur, 1), "Blurrier than the others: leave it out, or take it again with a steady hand.")


def _subject(one: Measures, common: Common, each: int, known: set[FindingKind]) -> Iterator[Finding]:
    """What is to be said of the subject in a photo, as far as it can be told where that lies; `known` are its other findings."""
    others = np.delete(common.likeness, each)
    likeness = float(common.likeness[each] / np.median(others)) if len(others) > 1 else 1.0
    area, touching = float(common.area[each]), float(common.touching[each])
    is_burnt = "burnt_out" in known and one.clipped_subject > BURNT_SUBJECT
    is_lit, is_changed = "dark" not in known, is_burnt or bool(FRAMED & known)
    is_cut = touching > TOUCHING and is_lit and not is_changed
    # what is odd may not have been found: then its detail has a say
    is_small = area < AREA and is_lit and not is_burnt and (likeness >= LIKENESS or one.detail < DETAIL_ODD)
    is_tiny = one.detail < DETAIL or is_small
    if likeness < (LIKENESS_CHANGED if is_tiny or is_cut or is_changed or common.ground[each] else LIKENESS) and is_lit:
        yield Finding("odd_one_out", round(likeness, 2), "It seems to show something other than the rest: leave it out if so.")
    if is_tiny:
        yield Finding("tiny_subject", round(min(one.detail, area), 3), "The subject is very small in it: go closer, or crop it tighter.")
    if is_cut:
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


def _usual(figure: str, others: Sequence[float]) -> float:
    """What half of the others do not surpass, or what is usual where there are none."""
    return float(np.median(others)) if others else USUAL[figure]
