"""Frames: the sentence around a subject changes, what it says about the subject does not."""

from collections import Counter

import pytest

from dreambooth_cli.frames import FRAMES, class_prompts_in, other_frames, prompts_in
from dreambooth_cli.places import PLACES, names_a_place
from dreambooth_cli.prompts import instance_prompt
from tests.benchmarks.subjects import UNSEEN_FRAMES


@pytest.mark.parametrize(
    ("class_prompt", "some"),
    [
        ("a photo of a dog", {"a picture of a sks dog", "a sks dog", "the photo of the sks dog", "photo of sks dog"}),
        ("a dog", {"a photo of a sks dog", "a snapshot of a sks dog"}),
        ("photo of my dog in the snow", {"a photo of my sks dog in the snow", "my sks dog in the snow"}),
        ("a photo of an old [identifier] car", {"an old sks car", "the photo of the old sks car"}),
        ("a photo of [identifier]'s dog", {"a picture of sks's dog"}),
        ("a dog on a photo of a beach", {"a photo of a sks dog on a photo of a beach"}),
    ],
)
def test_the_subject_comes_in_other_frames(class_prompt, some):
    own = instance_prompt(class_prompt, "sks")
    others = other_frames(own, "sks")
    assert some <= set(others)
    assert own not in others
    assert len(set(others)) == len(others) in (len(FRAMES), len(FRAMES) - 1)
    assert all("sks" in other for other in others)


@pytest.mark.parametrize("class_prompt", ["a watercolor of a dog", "an oil painting of a dog", "in the snow, a [identifier] dog"])
def test_what_an_opening_says_is_not_lost(class_prompt):
    assert other_frames(instance_prompt(class_prompt, "sks"), "sks") == ()


def test_no_frame_that_is_measured_is_trained_in():
    """Whether the identifier works in any sentence is measured with sentences that no training uses."""
    own = instance_prompt("a photo of a dog", "sks")
    trained = {own, *other_frames(own, "sks")}
    assert not trained & {f"{frame} sks dog" for frame in UNSEEN_FRAMES}


def test_a_place_is_said_in_every_other_sentence_and_in_a_share_of_the_user_s():
    found = Counter(prompts_in("a sks dog", ("the sks dog", "my sks dog"), "in the snow", dropout=0.25))
    assert found == {"a sks dog": 6, "a sks dog in the snow": 18, "the sks dog in the snow": 4, "my sks dog in the snow": 4}
    assert set(prompts_in("own", (), "in the snow", dropout=0)) == {"own in the snow"}


def test_without_a_place_the_user_s_own_sentence_comes_three_times_of_four():
    assert Counter(prompts_in("own", ("one", "two"), "", dropout=0.5)) == {"own": 24, "one": 4, "two": 4}
    assert set(prompts_in("own", (), "", dropout=0)) == {"own"}


def test_class_images_take_the_places_in_turn():
    plain = "a photo of a dog"
    beach, snow = f"{plain} on the beach", f"{plain} in the snow"
    places = ("on the beach", "in the snow")
    assert class_prompts_in(plain, places, every=3) == (plain, plain, beach, plain, plain, snow)
    assert class_prompts_in(plain, places, every=2) == (plain, beach, plain, snow)
    assert class_prompts_in(plain, places, every=1) == (beach, snow)
    assert class_prompts_in(plain, (), every=3) == (plain,)


def test_no_place_is_added_where_the_class_prompt_may_name_one():
    assert names_a_place("a photo of a dog in the snow")
    assert not names_a_place("a photo of a dog")
    assert len(set(PLACES)) == len(PLACES)
    assert all(names_a_place(place) for place in PLACES)
