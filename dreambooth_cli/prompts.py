"""Prompts: how the class prompt, the identifier and the placeholder `[identifier]` become what the model reads."""

import re

from .errors import UsageError

PLACEHOLDER = "[identifier]"
ARTICLES = ("a", "an", "the")


def fill(prompt: str, identifier: str) -> str:
    """The prompt with the identifier in each place of `[identifier]`; nothing else is changed."""
    return prompt.replace(PLACEHOLDER, identifier)


def instance_prompt(class_prompt: str, identifier: str) -> str:
    """The prompt of the photos: `a photo of a dog` -> `a photo of a sks dog`.

    The identifier goes after the last article, in front where there is none, or where `[identifier]` stands.
    """
    if PLACEHOLDER in class_prompt:
        return fill(" ".join(class_prompt.split()), identifier)
    words = class_prompt.split()
    place = _noun_place(words)
    if place:
        words[place - 1] = _agree(words[place - 1], identifier)
    return " ".join([*words[:place], identifier, *words[place:]])


def plain_class_prompt(class_prompt: str) -> str:
    """The prompt of the class images: the class prompt without `[identifier]`.

    Raises UsageError where nothing is left.
    """

    def without(match: re.Match[str]) -> str:
        article, word = match["article"], match["word"]
        return f"{_agree(article, word)} {word}" if article else word

    pattern = rf"(?:\b(?P<article>(?i:an?))\s+)?(?:{re.escape(PLACEHOLDER)}\s*)+(?P<word>\w*)"
    plain = " ".join(re.sub(pattern, without, class_prompt).split())
    if not plain and PLACEHOLDER in class_prompt:
        raise UsageError(
            f"the class prompt says nothing but {PLACEHOLDER}", f'say what the subject is: "a {PLACEHOLDER} dog"'
        )
    return plain


def class_noun(class_prompt: str) -> str:
    """What the subject is: the words after `[identifier]`, or else after the last article, or the whole class prompt.

    `a photo of a red dog` -> `red dog`.
    """
    after = class_prompt.rpartition(PLACEHOLDER)[2].split() if PLACEHOLDER in class_prompt else []
    words = plain_class_prompt(class_prompt).split()
    return " ".join(after or words[_noun_place(words) :]).strip(".,;:!? ")


def prompt_remarks(prompt: str, identifier: str, class_prompt: str) -> list[str]:
    """What a prompt lacks to show the subject, a line each: the identifier, the class noun. Empty where it has both."""
    noun = class_noun(class_prompt)
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


def _noun_place(words: list[str]) -> int:
    """The number of words up to and with the last article that has a word after it; 0 where there is none."""
    return max((n for n, word in enumerate(words[:-1], start=1) if word.lower() in ARTICLES), default=0)


def _agree(article: str, word: str) -> str:
    """`a` or `an` by the sound of the next word, its capital kept; any other word as it is."""
    if article.lower() not in ("a", "an"):
        return article
    vowel = re.match(r"(?!uni[^mn]|us[eu]|eu|once?\b)[aeiou]|hour|heir|honest", word.lower())
    return article[0] + ("n" if vowel else "")


def _has_word(prompt: str, word: str) -> bool:
    """Whether the prompt holds a word or its plural. Only Latin letters and digits bound it: other scripts may have no
    spaces."""
    pattern = rf"(?<![a-z0-9]){re.escape(word.casefold())}(?:e?s)?(?![a-z0-9])"
    return re.search(pattern, prompt.casefold()) is not None
