"""Prompts: where the identifier goes, what stands for it, and what a prompt lacks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_cli.errors import UsageError
from dreambooth_cli.prompts import (
    PLACEHOLDER,
    class_noun,
    fill,
    instance_prompt,
    plain_class_prompt,
    prompt_remarks,
)

WORDS = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
IDENTIFIERS = st.from_regex(r"[a-z0-9]{2,8}", fullmatch=True)
CLASS_PROMPTS = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("class_prompt", "identifier", "expected"),
    [
        ("a photo of a dog", "sks", "a photo of a sks dog"),
        ("a dog", "sks", "a sks dog"),
        ("an owl", "sks", "a sks owl"),
        ("a dog", "inem", "an inem dog"),
        ("An owl", "sks", "A sks owl"),
        ("a photo of the old clock", "uer", "a photo of the uer old clock"),
        ("glasses", "sks", "sks glasses"),
        ("my dog", "sks", "sks my dog"),
        ("a  photo   of a dog ", "sks", "a photo of a sks dog"),
        ("photo of my [identifier] dog on a beach", "sks", "photo of my sks dog on a beach"),
        ("vitamin a", "sks", "sks vitamin a"),
        ("一只狗", "sks", "sks 一只狗"),
    ],
)
def test_instance_prompt(class_prompt: str, identifier: str, expected: str) -> None:
    assert instance_prompt(class_prompt, identifier) == expected


@pytest.mark.parametrize(
    ("class_prompt", "expected"),
    [
        ("a photo of a dog", "a photo of a dog"),
        ("a photo of a [identifier] dog", "a photo of a dog"),
        ("a [identifier] owl", "an owl"),
        ("an [identifier] dog", "a dog"),
        ("An [identifier] unicorn", "A unicorn"),
        ("the [identifier] dog", "the dog"),
        ("[identifier] glasses", "glasses"),
        ("a dog called [identifier]", "a dog called"),
        ("a [identifier]dog", "a dog"),
    ],
)
def test_class_images_are_asked_for_without_the_identifier(class_prompt: str, expected: str) -> None:
    assert plain_class_prompt(class_prompt) == expected


@pytest.mark.parametrize("class_prompt", ["[identifier]", " [identifier] [identifier]"])
def test_a_class_prompt_of_the_placeholder_alone_is_refused(class_prompt: str) -> None:
    with pytest.raises(UsageError) as caught:
        plain_class_prompt(class_prompt)
    assert caught.value.message == "the class prompt says nothing but [identifier]"
    assert caught.value.hint == 'say what the subject is: "a [identifier] dog"'
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("class_prompt", "noun"),
    [
        ("a photo of a dog", "dog"),
        ("a photo of a red dog.", "red dog"),
        ("glasses", "glasses"),
        ("my old bear", "my old bear"),
        ("photo of [identifier] dog", "dog"),
        ("a dog [identifier]", "dog"),
    ],
)
def test_class_noun(class_prompt: str, noun: str) -> None:
    assert class_noun(class_prompt) == noun


@pytest.mark.parametrize(
    "prompt",
    ["a [identifier] dog on the moon", "a ront dog", "A RONT DOG", "two ront dogs", "ront, a dog!"],
)
def test_a_prompt_with_identifier_and_class_noun_has_no_remark(prompt: str) -> None:
    assert prompt_remarks(prompt, "ront", "a photo of a dog") == []


@pytest.mark.parametrize(
    ("prompt", "remarks"),
    [
        ("a dog on the moon", ["neither"]),
        ("a [identifier] on the moon", ["class"]),
        ("a [identifier] dogma", ["class"]),
        ("a front dog", ["neither"]),
        ("the moon", ["neither", "class"]),
    ],
)
def test_what_a_prompt_lacks_is_said(prompt: str, remarks: list[str]) -> None:
    words = {
        "neither": "the prompt has neither [identifier] nor ront: your dog will hardly be in the picture",
        "class": "the prompt does not say 'dog', the class it was trained with: the likeness will be weaker",
    }
    assert prompt_remarks(prompt, "ront", "a dog") == [words[remark] for remark in remarks]


def test_remarks_know_scripts_without_spaces_and_models_without_a_class() -> None:
    assert prompt_remarks("月球上的[identifier]小狗", "ront", "狗") == []
    assert prompt_remarks("a [identifier] on the moon", "ront", "") == []
    assert prompt_remarks("the moon", "ront", "") == [
        "the prompt has neither [identifier] nor ront: your subject will hardly be in the picture"
    ]


@given(before=st.text(), after=st.text(), identifier=IDENTIFIERS)
def test_fill_leaves_no_placeholder_and_changes_nothing_else(before: str, after: str, identifier: str) -> None:
    filled = fill(f"{before}{PLACEHOLDER}{after}", identifier)
    assert PLACEHOLDER not in filled
    assert filled == f"{before}{identifier}{after}"


@given(class_prompt=CLASS_PROMPTS, identifier=IDENTIFIERS)
def test_the_instance_prompt_is_the_class_prompt_and_one_word(class_prompt: str, identifier: str) -> None:
    def without_articles(prompt: str) -> list[str]:
        return [word for word in prompt.split() if word not in ("a", "an")]

    prompt = instance_prompt(class_prompt, identifier)
    assert len(prompt.split()) == len(class_prompt.split()) + 1
    words = without_articles(prompt)
    # the class prompt may hold the same word, so it need not be the first one that goes
    without = [words[:place] + words[place + 1 :] for place, word in enumerate(words) if word == identifier]
    assert without_articles(class_prompt) in without
    assert prompt_remarks(prompt, identifier, class_prompt) == []


@given(class_prompt=CLASS_PROMPTS)
def test_the_plain_class_prompt_has_no_placeholder_and_stays_as_it_is(class_prompt: str) -> None:
    plain = plain_class_prompt(instance_prompt(class_prompt, PLACEHOLDER))
    assert PLACEHOLDER not in plain
    assert plain_class_prompt(plain) == plain
