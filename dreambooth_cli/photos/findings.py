"""What a photographer would say of each photo and of the set, each in one plain sentence with what to do."""

from collections.abc import Iterator, Sequence

from ..events import Finding, FindingKind
from .measures import Measures

TWICE = "twice"
WORDS: dict[FindingKind, str] = {
    "duplicate": TWICE,
    "near_duplicate": TWICE,
    "screenshot": "screenshot",
    "border": "framed",
    "odd_one_out": "other",
    "blur": "soft",
    "dark": "dark",
    "burnt_out": "burnt out",
    "tiny_subject": "tiny",
    "cut_subject": "cut off",
}  # the word for a photo is that of its first finding in this order


def word_for(findings: Sequence[Finding]) -> str:
    """A photo in a word: `good`, or what is first to be said of it."""
    kinds = {finding.kind for finding in findings}
    return next((word for kind, word in WORDS.items() if kind in kinds), "good")


def same_file(other: str) -> Finding:
    """The finding of a file whose content is that of another."""
    return Finding("duplicate", 1.0, f"The same file as {other}: it is used once.")


def verdict_on(photos: Sequence[Sequence[object]], of_set: Sequence[Finding]) -> str:
    """The set in a sentence; `photos` are the findings of each photo that is used."""
    found = sum(bool(findings) for findings in photos)
    if not found and not of_set:
        return "a good set" if len(photos) >= 3 else "nothing to find fault with"
    told = [f"{found} of {len(photos)} photos could be better"] if found else []
    told += ["all is from one place"] if any(one.kind == "same_place" for one in of_set) else []
    told += ["all is from one side"] if any(one.kind == "few_views" for one in of_set) else []
    return "; ".join(told)


DARK = 0.25  # light


def judge_photos(measured: Sequence[Measures], names: Sequence[str]) -> list[tuple[Finding, ...]]:
    """The findings of each photo, by itself and beside the others of its set."""
    return [tuple(_of_light(one)) for one in measured]


def judge_set(measured: Sequence[Measures]) -> list[Finding]:
    """What is to be said of the set as a whole."""
    return []


def _of_light(one: Measures) -> Iterator[Finding]:
    if one.bright < DARK:
        yield Finding("dark", round(one.bright, 2), "Too dark to show the subject: brighten it, or take it again in better light.")
