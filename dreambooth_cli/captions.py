"""Captions: what is particular to one photo (`in the snow, seen from behind`), added to the sentence that the photo is trained with.

Whatever a caption names is learned under that name and not as part of the subject, so it should not describe the subject itself.
"""

import re

from .phrase import BODY, DESCRIPTIONS, DETERMINERS, LIGHT, PARTICIPLES, PREPOSITIONS, STATES
from .prompts import PLACEHOLDER, class_noun, known_identifier, understood
from .settings import AUTO
from .text import is_text

MOST = 4000  # characters: more than any prompt that is read


def plain_caption(text: str) -> str:
    """A caption on one line; several lines are joined by commas. Raises ValueError, which says in words why it can't be a caption."""
    lines = [" ".join(line.split()).strip(" ,.;") for line in text.removeprefix("\ufeff").splitlines()]
    caption = ", ".join(filter(None, lines))
    if not caption:
        raise ValueError("an empty caption: write what varies in this photo, as in: in the snow, seen from behind")
    if len(caption) > MOST:
        raise ValueError(f"not a caption: it has {len(caption):,} characters")
    if not is_text(caption) or not caption.isprintable():
        raise ValueError("not a caption: it has characters that can't be read")
    return caption


def caption_remarks(caption: str, class_prompt: str, identifier: str = AUTO) -> list[str]:
    """What speaks against a caption, one line for each point: it repeats the identifier, or describes the subject itself."""
    remarks = []
    if (known := known_identifier(caption, identifier)) is not None:
        remarks.append(f"it repeats {known}, which is already in the photo's sentence: leave it out")
    noun = class_noun(class_prompt, identifier).casefold().split()
    describing = list(dict.fromkeys([*_nouns(caption, noun[-1:]), *_descriptions(caption)]))
    if describing:
        remarks.append(
            f"it describes the subject itself ({', '.join(describing)}): that is then not learned as part of the subject; "
            "say only what varies: the place, the pose or the view"
        )
    return remarks


def prompt_with(prompt: str, caption: str) -> str:
    """A prompt followed by a caption or place."""
    return f"{prompt} {caption}".strip()


def filled(caption: str, identifier: str) -> str:
    """A caption with the identifier where `[identifier]` stands."""
    return understood(caption).replace(PLACEHOLDER, identifier)


def _nouns(caption: str, nouns: list[str]) -> list[str]:
    """Words of a caption that are the class noun itself, singular or plural."""
    return [word for word in _words(caption) if any(word in (noun, f"{noun}s", f"{noun}es") for noun in nouns)]


def _descriptions(caption: str) -> list[str]:
    """Adjectives that describe the subject: those before any word that leads away from it (`brown, in the snow`), and those of its parts
    (`with brown fur`); not those of its surroundings (`on a red rug`, `wearing a red scarf`)."""
    found = []
    for part in re.split(r"[,;.:]", caption):
        words = _words(part)
        begin = 1 if words[:1] and words[0] in DETERMINERS else 0
        is_led_away = False
        for place, word in enumerate(words[begin:], begin):
            is_led_away = is_led_away or word in PREPOSITIONS or word in PARTICIPLES or word in DETERMINERS or word.endswith("ing")
            after = set(words[place + 1 : place + 3])
            if word in DESCRIPTIONS - STATES - LIGHT and not after & LIGHT and (not is_led_away or after & BODY):
                found.append(word)
    return found


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.casefold())
