"""`demo` and `init --example`: from the built-in example to a page of pictures. The pocket base is the real one, the steps few."""

import json
from functools import partial

import pytest
from PIL import Image

from dreambooth_cli.cli.app import run
from dreambooth_cli.cli.demo import half_blocks
from dreambooth_cli.model_card import read_card
from dreambooth_cli.paths import projects_folder
from dreambooth_cli.photos.story import SIDE, Column, story_page, story_strip
from dreambooth_cli.project import open_project
from dreambooth_cli.settings import GenerateSettings
from dreambooth_cli.workflows import demo as workflow

pytestmark = pytest.mark.slow

FEW = {"steps": 3, "class_images": 2, "class_image_steps": 2, "learning_rate": 1e-4}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("dreambooth_cli.config.advice_of", lambda model, stage, method: FEW)
    monkeypatch.setattr(workflow, "PROMPTS", workflow.PROMPTS[-2:])
    monkeypatch.setattr(workflow, "GenerateSettings", partial(GenerateSettings, steps=3))


def test_demo_tells_the_whole_story(quick, capsys):
    assert run(["demo"]) == 0
    out, err = capsys.readouterr()
    page = projects_folder() / "demo" / "story.png"
    assert out.splitlines() == [str(page)]
    with Image.open(page) as image:
        assert image.width > 5 * SIDE
        assert image.height > 3 * SIDE
    shown = [line[2:] for line in err.splitlines() if line.startswith("$ ")]
    assert shown[:3] == ["dreambooth init demo --example", "dreambooth prep demo", "dreambooth train demo"]
    assert shown[3] == "dreambooth generate demo 'a photo of a [identifier] dog in the forest' --seed 1"
    assert err.rstrip().splitlines()[-3:] == [
        "  dreambooth init",
        "  dreambooth train NAME",
        '  dreambooth generate NAME "a photo of a [identifier] dog on the moon"',
    ]
    project = open_project("demo")
    assert project.settings()["subject"]["model"] == "pocket"
    assert len(list(project.photos.glob("*.png"))) == 5

    assert run(["demo", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "step" not in {event["event"] for event in events}
    assert events[-1] == {"event": "story", "path": str(page.with_name("story-2.png"))}


def test_init_makes_the_example_and_asks_nothing(capsys):
    assert run(["init", "mine", "--example"]) == 0
    settings = open_project("mine").settings()["subject"]
    assert (settings["model"], settings["class_prompt"]) == ("pocket", "a photo of a dog")
    capsys.readouterr()
    assert run(["train", "mine", "--dry-run"]) == 0
    assert "64 px" in capsys.readouterr().out


def test_the_example_can_be_tried_on_another_base(sd1):
    assert run(["init", "other", "--example", "--model", str(sd1)]) == 0
    assert open_project("other").settings()["subject"]["model"] == str(sd1)


@pytest.mark.parametrize("flag", [["--photos", "."], ["--class-prompt", "a cat"]])
def test_the_example_brings_its_own_photos(capsys, flag):
    assert run(["init", "--example", *flag]) == 2
    assert "--example brings its own photos" in capsys.readouterr().err


def test_a_page_gives_its_pictures_back(tmp_path):
    """The terminal shows the page's pictures, in the page's order."""
    colours = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]
    photos = [Image.new("RGB", (64, 64), colour) for colour in colours]
    columns = [
        Column("a prompt", Image.new("RGB", (64, 64), one), Image.new("RGB", (64, 64), "white")) for one in colours
    ]
    path = tmp_path / "page.png"
    story_page(photos, columns).save(path)
    strip = story_strip(path, side=8)
    assert strip.size == (3 * 9 - 1, 3 * 10 - 2)
    middles = [[strip.getpixel((4 + 9 * column, 4 + 10 * row)) for column in range(3)] for row in range(3)]
    assert middles == [colours, colours, [(255, 255, 255)] * 3]


def test_a_character_shows_two_pixels():
    image = Image.new("RGB", (1, 2), (255, 0, 0))
    image.putpixel((0, 1), (0, 0, 255))
    text = half_blocks(image)
    assert text.plain == "▀\n"
    (span,) = text.spans
    assert (span.style.color.name, span.style.bgcolor.name) == ("#ff0000", "#0000ff")


def test_every_subcommand_treats_the_pocket_base_as_any_other(capsys):
    few = ["--steps", "2", "--class-images", "1", "--class-image-steps", "2", "--frames", "own"]
    assert run(["init", "mine", "--example"]) == 0
    assert run(["prep", "mine"]) == 0
    assert run(["train", "mine", "--method", "lora", *few]) == 0
    assert run(["models", "pull", "pocket"]) == 0
    capsys.readouterr()
    assert run(["generate", "mine", "a [identifier] dog in the snow", "--steps", "2", "--seed", "0"]) == 0
    (path,) = capsys.readouterr().out.splitlines()
    with Image.open(path) as image:
        assert image.size == (64, 64)
    latest = open_project("mine").finished_run(None)
    # by its name, not by where this installation has it
    assert latest.record().base.path == "pocket"
    assert read_card(latest.model).base.path == "pocket"
    assert latest.record().sources["train"]["learning_rate"] == "the base model"
