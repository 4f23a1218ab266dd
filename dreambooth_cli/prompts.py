"""Prompts: how the class prompt, the identifier and the placeholder `[identifier]` become what the model reads."""

import re

from .errors import UsageError
from .identifier import FALLBACK, invented_words, rare_tokens
from .oddity import Oddity, find_oddity, in_english
from .phrase import agree, is_like, read_phrase
from .settings import AUTO
from .text import shortened

PLACEHOLDER = "[identifier]"
EXAMPLE = f'"a photo of a {PLACEHOLDER} dog"'
# Other spellings of it: <identifier>, [ Identifier ], {{identifier}}, ${identifier}, and the paper's own [V].
NAME = r"(?:(?:the|your|unique|rare)[\s_-]+)*identifier"
OPENING, CLOSING = r"(?:\$\{|\\?[\[<{［【＜]|&lt;)", r"(?:\\?[\]>}］】＞]|&gt;)"
SPELLINGS = re.compile(
    rf"{OPENING}{{1,2}}\s*(?:{NAME}|v\*?)\s*{CLOSING}{{1,2}}|\(\s*{NAME}\s*\)", re.IGNORECASE
)
# What other tools' templates call it. In brackets of our own it would stay in the prompt as it stands.
OTHER_NAMES = {"id", "ident", "token", "instance", "class", "class noun", "class name", "noun", "name", "subject"}
BRACKETED = re.compile(r"[\[<{]\s*([^\[\]<>{}]{1,40}?)\s*[\]>}]")
BESIDE_A_MARK = re.compile(r"[\[<{($%&;\\]\s*([^\W_]{5,15})(?![^\W_])(?:\s*[\]>})%])?|(?<![^\W_])([^\W_]{5,15})\s*[\]>})%]")
IN_BRACKETS = r"\[<{|", r"\]>}|"
QUOTED = rf"{IN_BRACKETS[0]}«“„‘`*", rf"{IN_BRACKETS[1]}»”“’`*"
WELL_KNOWN = {FALLBACK, "ohwx", "zwx"}  # the words that other guides take for it
STANDS_FOR = re.compile(r"(?<!\S)(?:TOK|[SV]\*|(?<=\w\s)\*)(?!\S)")  # and what they write in its place


def fill(prompt: str, identifier: str) -> str:
    """The prompt with each `[identifier]` replaced by the identifier; nothing else is changed."""
    return prompt.replace(PLACEHOLDER, identifier)


def marked(prompt: str, identifier: str) -> str:
    """The reverse: the prompt with each identifier replaced by `[identifier]`."""
    return _word(identifier).sub(PLACEHOLDER, prompt)


def understood(prompt: str) -> str:
    """The prompt with the placeholder in our spelling: `a <Identifier> dog` -> `a [identifier] dog`."""
    return SPELLINGS.sub(PLACEHOLDER, prompt)


def check_placeholder(prompt: str) -> None:
    """Refuse something that was meant as the placeholder but is not: `[identifer]`, `[name]`. Raises UsageError."""
    text = " ".join(SPELLINGS.sub(" ", prompt).split())  # the forms below would try every part of a long gap
    named = (found for found in BRACKETED.finditer(text) if " ".join(found[1].casefold().split()) in OTHER_NAMES)
    near = (found for found in BESIDE_A_MARK.finditer(text) if is_like(found[1] or found[2], "identifier"))
    slip = next(named, None) or next(near, None)
    if slip is not None:
        raise UsageError(
            f'"{slip[0].strip()}" stands for nothing: write {PLACEHOLDER} where the identifier goes',
            f"for example: {EXAMPLE}",
        )


def check_identifier(identifier: str) -> None:
    """Refuse the placeholder, in whatever spelling, in the identifier's own place. Raises UsageError."""
    if PLACEHOLDER in understood(identifier):
        raise UsageError(f"{identifier} only marks the identifier's place", "give the word itself: --identifier sks")


def instance_prompt(class_prompt: str, identifier: str) -> str:
    """The prompt of the photos: `a photo of a dog` -> `a photo of a sks dog`.

    The identifier goes before the noun phrase that names the subject, after its article, or where `[identifier]` is; a prompt that
    already has the identifier stays as it is. For an unclear one (see `check_class_prompt`) this is the best guess.
    """
    text = understood(" ".join(class_prompt.split()))
    if PLACEHOLDER in text or _word(identifier).search(text):
        return fill(_bare(text, identifier), identifier)
    phrase = read_phrase(text)
    words = list(phrase.words)
    if phrase.start:
        words[phrase.start - 1] = agree(words[phrase.start - 1], identifier)
    return " ".join([*words[: phrase.start], identifier, *words[phrase.start :]])


def plain_class_prompt(class_prompt: str, identifier: str = AUTO) -> str:
    """The prompt of the class images: the class prompt without `[identifier]`, and without the identifier itself.

    Raises UsageError if nothing is left.
    """

    def without(match: re.Match[str]) -> str:
        article, word = match["article"], match["word"]
        return f"{agree(article, word)} {word}" if article else word

    text = _bare(understood(class_prompt), identifier, QUOTED)
    ending = r"\s?['’]s\b|['’](?!\S)|[-_](?=\w)"
    marks = rf"(?:(?:{_mark(identifier)})(?:{ending})?\s*(?:,\s*(?=(?:an?|the)\b))?)+"
    pattern = rf"(?:\b(?P<article>(?i:an?))\s+)?(?:[-_$#@]|(?P<quote>[\"'(]))?{marks}(?(quote)[\"')]\s*)(?P<word>\w*)"
    plain, found = re.subn(pattern, without, text)
    plain = " ".join(plain.split())
    if found:  # the commas around it go too
        plain = re.sub(r"^[,;:.\s]+|[,;:\s]+$", "", re.sub(r"(?<=\s)[,;:]\s*", "", plain))
    if not plain and text.strip():
        said = PLACEHOLDER if PLACEHOLDER in text else identifier
        raise UsageError(f"the class prompt says nothing but {said}", f'say what the subject is: "a {said} dog"')
    return plain


def check_class_prompt(class_prompt: str, identifier: str, *, with_class_images: bool = True) -> None:
    """Refuse a class prompt of which it is not certain what its subject is. Raises UsageError that shows how to say it.

    Nothing is in doubt where `[identifier]` or the identifier stands in it; but a class must be left to draw images of.
    """
    text, shown = understood(class_prompt), shortened(" ".join(class_prompt.split()), 60)
    if not text.strip():
        raise UsageError("what is in the photos? the class prompt is missing", 'say it: --class-prompt "a dog"')
    check_placeholder(text)
    check_identifier(identifier)
    if PLACEHOLDER in text or _word(identifier).search(text):
        plain_class_prompt(text, identifier)
        if with_class_images and not class_noun(text, identifier):
            raise UsageError(
                f'the class prompt "{shown}" says of no class what images of it should show',
                f"say what the subject is, for example: {EXAMPLE}; or train without them: --class-images 0",
            )
        return
    known = _known_identifier(text)
    if known:
        say_it = f"say which word is the subject's: --identifier {known}; or " if known.isalnum() else ""
        raise UsageError(
            f'the class prompt "{shown}" has {known} in it, which looks like an identifier',
            f'{say_it}mark its place: "{proposal(text)}"',
        )
    phrase = read_phrase(text)
    if phrase.doubt:
        english = f'say it in English: --class-prompt "{in_english(text)}"; or ' if in_english(text) else ""
        if phrase.is_foreign and not english:
            english = 'say it in English, as in --class-prompt "a dog"; or '
        raise UsageError(
            f'the class prompt "{shown}" {phrase.doubt}',
            f'{english}mark the subject\'s place in it: --class-prompt "{proposal(text)}"',
        )


def oddity_of(class_prompt: str, identifier: str = AUTO) -> Oddity | None:
    """What is odd about a class prompt; nothing where `[identifier]` or the identifier says which word is meant."""
    text = understood(class_prompt)
    return None if PLACEHOLDER in text or _word(identifier).search(text) else find_oddity(text)


def oddity_line(class_prompt: str, identifier: str = AUTO) -> str:
    """The same as a sentence for where nobody is asked; "" where nothing is odd."""
    odd, shown = oddity_of(class_prompt, identifier), shortened(" ".join(class_prompt.split()), 60)
    if odd is None:
        return ""
    return f'the class prompt "{shown}" {odd.words}' + (f'; is "{odd.offer}" meant?' if odd.offer else "")


def proposal(class_prompt: str) -> str:
    """An unclear class prompt with `[identifier]` where it probably goes, to show the user."""
    text = understood(" ".join(class_prompt.split()))
    text = BRACKETED.sub(lambda found: PLACEHOLDER if is_like(found[1], "identifier") else found[0], text)
    known, phrase = _known_identifier(text), read_phrase(text)
    if known:
        return _word(known).sub(PLACEHOLDER, _bare(text, known))
    return instance_prompt(text, PLACEHOLDER) if phrase.noun else EXAMPLE.strip('"')


def class_noun(class_prompt: str, identifier: str = AUTO) -> str:
    """What the subject is: the noun phrase after `[identifier]`, or else the one that names the subject; empty for none.

    `a photo of a red dog on a beach` -> `red dog`.
    """
    text = _bare(understood(class_prompt), identifier)
    marked = _word(identifier).sub(PLACEHOLDER, text)
    behind = re.sub(r"^['’]s\b", "", marked.rpartition(PLACEHOLDER)[2]) if PLACEHOLDER in marked else ""
    if after := read_phrase(behind).noun:
        return after
    try:
        return read_phrase(plain_class_prompt(text, identifier)).noun
    except UsageError:
        return ""


def prompt_remarks(prompt: str, identifier: str, class_prompt: str) -> list[str]:
    """What a prompt lacks to show the subject, one line each: the identifier, the class noun. Empty if it has both."""
    noun, prompt = class_noun(class_prompt), understood(prompt)
    remarks = []
    if PLACEHOLDER not in prompt and not _has_word(prompt, identifier):
        subject = f"your {noun}" if noun else "your subject"
        remarks.append(
            f"the prompt has neither {PLACEHOLDER} nor {identifier}: {subject} will hardly be in the picture"
        )
    if noun and not _has_word(prompt, noun.split()[-1]):
        remarks.append(
            f"the prompt does not say {noun.split()[-1]!r}, the class it was trained with: the likeness will be weaker"
        )
    return remarks


def known_identifier(text: str, identifier: str) -> str | None:
    """What in a text stands for the subject: the placeholder, the identifier, or a word that may be one; None for nothing."""
    text = understood(text)
    if PLACEHOLDER in text:
        return PLACEHOLDER
    return identifier if _word(identifier).search(text) else _known_identifier(text) or None


def _known_identifier(class_prompt: str) -> str:
    """A word of a class prompt that other guides take for the identifier, or that we would; empty where it has none."""
    words: list[str] = re.findall(r"[^\W_]+", class_prompt)
    ours = (*rare_tokens(), *invented_words())
    return next((word for word in words if word.casefold() in WELL_KNOWN or word in ours), "") or next(
        (found[0] for found in STANDS_FOR.finditer(class_prompt)), ""
    )


def _mark(identifier: str) -> str:
    """A pattern of what stands for the subject: the placeholder or the identifier."""
    return rf"{re.escape(PLACEHOLDER)}|{_word(identifier).pattern}"


def _bare(text: str, identifier: str, around: tuple[str, str] = IN_BRACKETS) -> str:
    """The text with what stands for the subject out of its brackets: `a <sks> dog` -> `a sks dog`."""
    return re.sub(rf"[{around[0]}]{{1,3}}\s*({_mark(identifier)})\s*[{around[1]}]{{1,3}}", r"\1", text)


def _word(identifier: str) -> re.Pattern[str]:
    """Finds the identifier as a word of its own; `auto` is none yet."""
    if identifier == AUTO:
        return re.compile(r"(?!)")
    return re.compile(rf"(?i:(?<![^\W_]){re.escape(identifier)}(?![^\W_]))")


def _has_word(prompt: str, word: str) -> bool:
    """Whether the prompt holds a word or its plural. Only Latin letters and digits bound it: other scripts may have no
    spaces."""
    pattern = rf"(?<![a-z0-9]){re.escape(word.casefold())}(?:e?s)?(?![a-z0-9])"
    return re.search(pattern, prompt.casefold()) is not None
