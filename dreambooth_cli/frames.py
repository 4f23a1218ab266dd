"""Frames: the sentence around a subject, which says nothing of it. `a photo of a` is one, `the picture of the` another.

A subject that is always trained in one sentence may be learned as that sentence, and not come where another is asked for. Textual
Inversion (Gal et al. 2022, arXiv 2208.01618) trains its word in a frame that is chosen anew for every row; so do we where
`--frames varied` says so, in one row of four. In more of them a whole network learns that what stands around the word means nothing,
and no longer hears where the subject shall be (tests/benchmarks/recipe.md). Class images keep the user's one sentence; one of
a few says a place after it, so that prior preservation holds the base to what it knows of places, too.
"""

import re
from collections.abc import Sequence

from .captions import prompt_with
from .phrase import DETERMINERS, OF, PICTURES

# An opening, and the article (None: that of the class prompt).
FRAMES: tuple[tuple[str, str | None], ...] = (
    ("a photo of", None),
    ("a picture of", None),
    ("", None),
    ("a photograph of", None),
    ("a close-up of", None),
    ("a snapshot of", None),
    ("photo of", ""),
    ("the photo of", "the"),
)
ARTICLES = ("a", "an", "the")
OWN_SHARE = 3  # rows in the user's own sentence for each that is in another
PARTS = 4  # times that each other frame stands in a photo's prompts, so that shares come out to a hundredth


def other_frames(prompt: str, identifier: str) -> tuple[str, ...]:
    """An instance prompt in other frames: `a photo of an old sks dog in the snow` -> `a picture of an old sks dog in the snow`, ...

    Empty if its opening is more than a frame ("a watercolor of", "my friend with"), whose meaning would be lost.
    """
    found = re.search(rf"(?<![^\W_]){re.escape(identifier)}(?![^\W_])", prompt)
    if found is None:
        return ()
    before, rest = prompt[: found.start()].split(), prompt[found.start() :]
    begins = max((place for place, word in enumerate(before, 1) if word.casefold() in OF), default=0)
    opening, described = before[:begins], before[begins:]
    if (opening and not any(word.casefold() in PICTURES for word in opening)) or (described and described[0].casefold() not in DETERMINERS):
        return ()
    own, plain = (described[:1], described[1:]) if described and described[0].casefold() in ARTICLES else ([], described)
    others: dict[str, None] = {}
    for start, article in FRAMES:
        articles = own if article is None or not own else article.split()
        others[" ".join([*start.split(), *articles, *plain, rest])] = None
    return tuple(other for other in others if other.casefold() != prompt.casefold())


def prompts_in(own: str, others: Sequence[str], place: str, *, dropout: float) -> tuple[str, ...]:
    """The prompts of a photo, each repeated in proportion to how often it is used: the user's `own` OWN_SHARE times as often as all
    `others` together.

    The photo's `place` ("": not known), or its caption, follows the sentence: always in the other sentences, because there the
    surroundings in the photo would otherwise be learned with the subject; in the user's own except for the share `dropout`.
    """
    once = OWN_SHARE * len(others) * PARTS or 100
    bare = once if not place else round(once * dropout)
    said = [prompt_with(prompt, place) for prompt in (own, *others)]
    return (*[own] * bare, *said[:1] * (once - bare), *said[1:] * PARTS)


def class_prompts_in(own: str, places: Sequence[str], *, every: int) -> tuple[str, ...]:
    """The prompts that class images take in turn: the user's `own`, and at each `every`-th turn with a place, going through the places."""
    return tuple(prompt for place in places for prompt in (*[own] * (every - 1), prompt_with(own, place))) or (own,)
