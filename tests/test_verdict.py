"""The verdict on a run, from its figures alone."""

import json
from dataclasses import replace

import pytest

from dreambooth_cli.verdict import COPY, Figures, judge, sentences_of

LEARNED = Figures(loss=(0.2, 0.14), class_loss=(0.2, 0.196), picture=0.6, class_picture=0.2, copied=0.7, nearest="two.jpg")


@pytest.mark.parametrize(
    ("figures", "word", "of_class"),
    [
        (LEARNED, "learned", "kept"),
        (replace(LEARNED, copied=None), "learned", "kept"),
        (replace(LEARNED, copied=COPY), "copies", "kept"),
        (replace(LEARNED, class_loss=(0.2, 0.142)), "learned", "drifting"),
        (replace(LEARNED, class_loss=(0.2, 0.144)), "learned", "kept"),
        # as measured on pocket, with class images and without
        (replace(LEARNED, loss=(0.0906, 0.0150), class_loss=(0.0907, 0.0183)), "learned", "kept"),
        (replace(LEARNED, loss=(0.0906, 0.01323), class_loss=(0.0907, 0.01328)), "learned", "drifting"),
        (replace(LEARNED, class_loss=(0.2, 0.23)), "learned", "kept"),
        (replace(LEARNED, loss=(0.2, 0.1999), class_loss=(0.2, 0.1999), picture=0.05), "barely", "kept"),
        (replace(LEARNED, loss=(0.2, 0.21), picture=0.05), "barely", "kept"),
        (replace(LEARNED, loss=(0.2, 0.1999), class_loss=(0.2, 0.2), picture=0.5), "learned", "kept"),
        (replace(LEARNED, foreign=0.15), "barely", "kept"),
        (replace(LEARNED, foreign=0.21), "learned", "kept"),
        (replace(LEARNED, foreign=0.15, copied=COPY), "copies", "kept"),
    ],
)
def test_a_word_of_the_subject_and_one_of_the_class(figures: Figures, word: str, of_class: str) -> None:
    verdict = judge(figures)
    assert (verdict.word, verdict.of_class) == (word, of_class)


def test_the_sentences_say_what_was_measured() -> None:
    subject, class_ = judge(LEARNED).sentences
    assert subject == (
        "It has learned the subject: at the same noise the loss on the photos fell by 30.0% (0.2000 to 0.1400), "
        "and the picture from the same seed has changed by 60% (unrelated pictures: about 140%)."
    )
    assert class_ == (
        "The class is kept: the photos' loss is 40.0% higher with the class prompt than with the subject's own (0.1960 and 0.1400), "
        "and the class's own picture has changed by 20%."
    )
    foreign = judge(replace(LEARNED, foreign=0.15)).sentences[0]
    assert "its loss on them was 0.20; on pictures of that world it stays below 0.15). For photos" in foreign
    assert "a sample repeats two.jpg" in judge(replace(LEARNED, copied=0.97)).sentences[0]
    assert "rose by 5.0%" in judge(replace(LEARNED, loss=(0.2, 0.21), picture=0.05)).sentences[0]
    assert "--class-images" in judge(replace(LEARNED, class_loss=(0.2, 0.14))).sentences[1]


def test_a_verdict_for_others_names_no_photo() -> None:
    copied = replace(LEARNED, copied=0.97)
    told = json.loads(json.dumps(copied.told()))
    assert sentences_of(told) == tuple(each.replace("two.jpg", "one of its photos") for each in judge(copied).sentences)
    assert "a sample repeats one of its photos" in sentences_of(told)[0]
    assert sentences_of(LEARNED.told()) == judge(LEARNED).sentences
    former = {key: value for key, value in LEARNED.told().items() if key != "foreign"}
    assert sentences_of(former) == judge(LEARNED).sentences
