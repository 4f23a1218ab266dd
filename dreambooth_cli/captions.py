"""Captions: what varies in one photo (`in the snow, seen from behind`), said after the sentence that the photo is trained in.

Whatever a caption names is learned as what the caption names, and not as the subject: so it should not describe the subject itself.
"""

import re

from .phrase import BODY, DESCRIPTIONS, DETERMINERS, LIGHT, PARTICIPLES, PREPOSITIONS, STATES
from .prompts import PLACEHOLDER, class_noun, known_identifier, understood
from .settings import AUTO
from .text import is_text

MOST = 4000  # characters: more than any prompt that is read


def plain_caption(text: str) -> str:
    """A caption on one line: several lines are its parts. Raises ValueError that says in words why it is none."""
    lines = [" ".join(line.split()).strip(" ,.;") for line in text.removeprefix("\ufeff").splitlines()]
    caption = ", ".join(filter(None, lines))
    if not caption:
        raise ValueError("an empty caption: write what varies in this photo, as in: in the snow, seen from behind")
    if len(caption) > MOST:
        raise ValueError(f"no caption: it has {len(caption):,} characters")
    if not is_text(caption) or not caption.isprintable():
        raise ValueError("no caption: it holds characters that can't be read")
    return caption


def caption_remarks(caption: str, class_prompt: str, identifier: str = AUTO) -> list[str]:
    """What speaks against a caption, a line each: it repeats the identifier, or describes the subject itself."""
    remarks = []
    if (known := known_identifier(caption, identifier)) is not None:
        remarks.append(f"it repeats {known}, which stands in the photo's sentence already: leave it out")
    noun = class_noun(class_prompt, identifier).casefold().split()
    describing = list(dict.fromkeys([*_nouns(caption, noun[-1:]), *_descriptions(caption)]))
    if describing:
        remarks.append(
            f"it describes the subject itself ({', '.join(describing)}): what a caption names, the subject's own word does not learn; "
            "say only what varies, the place, the pose or the view"
        )
    return remarks


def prompt_with(prompt: str, caption: str) -> str:
    """A prompt with what is said of a photo after it."""
    return f"{prompt} {caption}".strip()


def filled(caption: str, identifier: str) -> str:
    """A caption with the identifier where `[identifier]` stands."""
    return understood(caption).replace(PLACEHOLDER, identifier)


def _nouns(caption: str, nouns: list[str]) -> list[str]:
    """Words of a caption that are the class itself, one or several of it."""
    return [word for word in _words(caption) if any(word in (noun, f"{noun}s", f"{noun}es") for noun in nouns)]


def _descriptions(caption: str) -> list[str]:
    """Adjectives that are the subject's: before anything that leads away from it (`brown, in the snow`), or of a part of it (`with
    brown fur`). Those of what is around it (`on a red rug`, `wearing a red scarf`) are not."""
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
