"""The drawn world: the same seed gives the same picture, what is drawn is independent, captions say what is there."""

from collections import Counter
from dataclasses import fields, replace
from itertools import combinations
from random import Random

import pytest
from PIL import Image, ImageChops

from dreambooth_cli.pocket import world


def scenes(count, seed="test"):
    return [world.draw_scene(Random(f"{seed} {number}")) for number in range(count)]


def test_a_seed_gives_one_picture_and_another_seed_another():
    first, again, other = (world.render(world.draw_scene(Random(seed))) for seed in (1, 1, 2))
    assert (first.size, first.mode) == ((64, 64), "RGB")
    assert first.tobytes() == again.tobytes() != other.tobytes()


@pytest.mark.parametrize("name", world.CLASSES)
def test_every_class_is_drawn_whole_at_every_place_whatever_its_proportions(name):
    for number, place in enumerate(world.PLACES):
        random = Random(f"{name} {place}")
        scene = world.draw_scene(random, world.draw_individual(random, name), place)
        extreme = replace(scene.individual, proportions=((-1.2, 1.2)[number % 2],) * 4)
        for one in (scene, replace(scene, individual=extreme)):
            mask = world.render_mask(one)
            inside = sum(value > 127 for value in mask.tobytes())
            assert 64 * 64 / 25 < inside < 64 * 64 / 2
            left, top, right, bottom = mask.getbbox()
            assert right - left > 16
            assert bottom - top > 12


def test_the_mask_is_where_the_individual_is():
    """With another individual of the same outline, nothing changes outside the mask."""
    for scene in scenes(40):
        scene = replace(scene, individual=replace(scene.individual, mark=None))
        one = scene.individual
        other = replace(one, body_rgb=tuple(255 - value for value in one.body_rgb), trim_rgb=one.body_rgb)
        changed = ImageChops.difference(world.render(scene), world.render(replace(scene, individual=other)))
        outside = world.render_mask(scene).point(lambda value: 255 if value == 0 else 0)
        black = Image.new("RGB", changed.size)
        assert Image.composite(changed, black, outside).getbbox() is None
        assert changed.getbbox() is not None


def test_class_colour_pattern_and_place_are_drawn_independently():
    drawn = [
        (scene.individual.class_name, scene.individual.body, scene.individual.pattern, scene.place)
        for scene in scenes(20_000)
    ]
    for first, second in combinations(range(4), 2):
        pairs = Counter((one[first], one[second]) for one in drawn)
        rows, columns = (Counter(one[place] for one in drawn) for place in (first, second))
        expected = {(a, b): rows[a] * columns[b] / len(drawn) for a in rows for b in columns}
        chi_square = sum((pairs[pair] - count) ** 2 / count for pair, count in expected.items())
        freedom = (len(rows) - 1) * (len(columns) - 1)
        # its mean is the degrees of freedom, its deviation sqrt(2 freedom)
        assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_a_pattern_can_be_seen_against_the_body():
    for scene in scenes(500):
        one = scene.individual
        apart = sum((a - b) ** 2 for a, b in zip(one.body_rgb, one.trim_rgb, strict=True)) ** 0.5
        assert apart > 60


def test_captions_say_what_is_there_in_the_words_of_the_world():
    words, random = set(world.words()), Random(0)
    openings = 0
    for scene in scenes(300):
        full, dropped = world.describe(scene), world.draw_caption(scene, random)
        assert {*full.split(), *dropped.split()} <= words
        one = scene.individual
        assert full.startswith(f"a photo of a {one.body} ")
        assert full.endswith(scene.place)
        assert one.class_name in dropped.split()
        openings += dropped.startswith("a photo of")
    assert 20 < openings < 150


def test_a_subject_is_one_and_odd():
    subjects = [world.draw_subject(number) for number in range(24)]
    assert subjects == [world.draw_subject(number) for number in range(24)]
    assert {subject.class_name for subject in subjects} == set(world.CLASSES)
    for subject in subjects:
        assert subject.mark is not None
        assert all(0.7 <= abs(value) <= 1.2 for value in subject.proportions)
        named = min(
            sum((a - b) ** 2 for a, b in zip(subject.body_rgb, rgb, strict=True)) for rgb in world.COLOURS.values()
        )
        assert named**0.5 > 15


def test_look_alikes_differ_in_one_attribute():
    subject = world.draw_subject(3)
    others = world.draw_look_alikes(subject, 20)
    assert others == world.draw_look_alikes(subject, 20)
    told = [{"body", "body_rgb"}, {"trim", "trim_rgb"}, {"pattern"}, {"proportions"}, {"mark"}]
    for number, other in enumerate(others):
        changed = {item.name for item in fields(other) if getattr(other, item.name) != getattr(subject, item.name)}
        assert changed
        assert changed <= told[number % 5]
    assert len(set(others)) == 20
