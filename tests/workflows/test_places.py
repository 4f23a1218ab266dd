"""Where each photo was taken is said in its prompts, and nowhere else."""

from random import Random

import pytest

from dreambooth_cli.events import Noted
from dreambooth_cli.paths import cache_folder
from dreambooth_cli.pocket import world
from dreambooth_cli.workflows.verify import verify_resume
from tests.workflows.projects import asked_of, begin, make_project, of_kind

SHOWN = ("in the snow", "on the moon", "in the snow")


@pytest.fixture
def scenes(tmp_path):
    """Photos of a mug at SHOWN."""
    return draw_scenes(tmp_path)


def draw_scenes(tmp_path):
    """A folder with them."""
    folder, subject = tmp_path / "mug", world.draw_subject(301, "mug")
    folder.mkdir()
    for number, place in enumerate(SHOWN):
        world.render(world.draw_scene(Random(f"shown {number}"), subject, place)).save(folder / f"{number}.png")
    return folder


def prompts_of(project):
    """What a run began with."""
    (one,) = project.runs()
    return one.record().began.get("prompts")


def test_the_photos_prompts_say_where_they_were_taken(scenes):
    project = make_project(scenes, "pocket", class_prompt="a photo of a mug")
    said = [note.message for note in of_kind(begin(project), Noted) if "that the base sees" in note.message]
    assert said == [
        "the photos' prompts will name the place that the base sees in each photo: in the snow (2), on the moon (1)"
    ]
    prompts = prompts_of(project)
    assert (prompts[0], prompts[-1]) == ("a photo of a sks mug", "a photo of a mug")
    assert {"a photo of a sks mug in the snow", "the photo of the sks mug on the moon"} <= set(prompts)
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize(
    ("every", "settings"), [(5, {}), (3, {"method": "lora"}), (2, {"class_place_every": 2})], ids=["full", "lora", "told"]
)
def test_one_class_image_of_a_few_says_a_place(every, settings, scenes):
    project = make_project(scenes, "pocket", class_prompt="a photo of a mug", class_images=2 * every, **settings)
    begin(project)
    of_class = [prompt for prompt in prompts_of(project) if "sks" not in prompt]
    assert of_class == ["a photo of a mug", *(f"a photo of a mug {place}" for place in ("in a living room", "in a meadow"))]
    folders = [folder for folder in (cache_folder() / "class-images").iterdir() if folder.is_dir()]
    assert [len(list(folder.glob("0*.png"))) for folder in folders] == [2 * every], "all in one folder"


@pytest.mark.parametrize(
    "settings", [{"class_prompt": "a photo of a mug in a cupboard"}, {"class_prompt": "a mug", "frames": "own"}], ids=["named", "own"]
)
def test_no_place_is_looked_for_where_none_is_to_be_said(settings, scenes):
    project = make_project(scenes, "pocket", **settings)
    assert not [note for note in of_kind(begin(project), Noted) if "that the base sees" in note.message]
    assert not any("snow" in prompt or "moon" in prompt for prompt in prompts_of(project) or ())


def test_a_run_in_varied_frames_goes_on_to_the_bit(scenes):
    project = make_project(scenes, "pocket", class_prompt="a photo of a mug", method="lora", class_batch_size=1, steps=4)
    events = list(verify_resume(project, asked_of(project.settings())))
    assert any("to the bit" in note.message for note in of_kind(events, Noted))
