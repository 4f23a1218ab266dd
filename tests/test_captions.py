"""What a caption is, and what is wrong with one."""

import pytest

from dreambooth_cli.captions import caption_remarks, filled, plain_caption, prompt_with
from dreambooth_cli.frames import prompts_in


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("in the snow", "in the snow"),
        ("\ufeffin the snow\r\n", "in the snow"),
        ("  in   the\tsnow \n\n seen from behind.\n", "in the snow, seen from behind"),
        ("in the snow,\nseen from behind,", "in the snow, seen from behind"),
        ("дома на снегу", "дома на снегу"),
    ],
)
def test_a_caption_is_one_line(text, caption):
    assert plain_caption(text) == caption


@pytest.mark.parametrize("text", ["", " \n\t", "\ufeff", " , . ", "a\0b", "a\ud800b", "in the snow " * 400])
def test_what_is_no_caption(text):
    with pytest.raises(ValueError, match=r"not a caption|an empty caption"):
        plain_caption(text)


def test_it_comes_after_the_sentence():
    assert prompt_with("a photo of a sks dog", "in the snow") == "a photo of a sks dog in the snow"
    assert prompt_with("a photo of a sks dog", "") == "a photo of a sks dog"
    assert filled("<identifier> in the snow", "sks") == "sks in the snow"
    shares = prompts_in("a sks dog", (), "in the snow", dropout=0.1)
    assert (shares.count("a sks dog"), shares.count("a sks dog in the snow")) == (10, 90)


@pytest.mark.parametrize(
    "caption",
    [
        "in the snow, seen from behind",
        "on a red rug",
        "wearing a red scarf",
        "with a small ball",
        "lying on its back, in warm light",
        "golden hour, from above",
        "wet, on the beach",
        "close-up",
        "in front of an old white house",
    ],
)
def test_what_varies_may_be_said(caption):
    assert caption_remarks(caption, "a photo of a dog", "sks") == []


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a brown dog in the snow", "dog, brown"),
        ("two dogs in the snow", "dogs"),
        ("brown, sitting on the grass", "brown"),
        ("sitting on the grass, with brown fur", "brown"),
        ("small and fluffy on a sofa", "small, fluffy"),
        ("his long ears up", "long"),
    ],
)
def test_words_that_describe_the_subject_are_told(caption, words):
    (remark,) = caption_remarks(caption, "a photo of a dog", "sks")
    assert remark.startswith(f"it describes the subject itself ({words}):")


@pytest.mark.parametrize(
    ("caption", "identifier", "named"),
    [("sks in the snow", "sks", "sks"), ("[identifier] in the snow", "sks", "[identifier]"), ("ohwx in the snow", "auto", "ohwx")],
)
def test_the_identifier_is_not_repeated(caption, identifier, named):
    (remark,) = caption_remarks(caption, "a photo of a dog", identifier)
    assert remark.startswith(f"it repeats {named}, ")
