"""`prep --crop`: which part of each photo becomes its training picture, a photo's own box, and what is said about what is lost."""

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from dreambooth_cli.config import read_config, write_config
from dreambooth_cli.errors import ProjectError
from dreambooth_cli.events import Noted, PhotoLooked, StepDone, as_json
from dreambooth_cli.paths import projects_folder
from dreambooth_cli.project import Project
from dreambooth_cli.settings import PrepSettings
from dreambooth_cli.workflows.prepare import prepare
from tests.workflows.projects import make_project, of_kind
from tests.workflows.projects import run as train

GROUND, BALL = (205, 200, 190), (20, 90, 200)


def ball(size, box):
    """A striped blue ball in front of plain paper."""
    image = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(image)
    draw.ellipse(box, fill=BALL)
    for x in range(box[0] + 10, box[2] - 10, 12):
        draw.line((x, box[1] + 50, x, box[3] - 50), fill="white", width=4)
    return image


@pytest.fixture
def project():
    """Three photos: the ball at the left of a wide one, at the bottom of a high one, and in a square one."""
    project = Project(projects_folder() / "ball")
    project.photos.mkdir(parents=True)
    ball((600, 400), (10, 60, 230, 280)).save(project.photos / "left.png")
    ball((300, 600), (40, 360, 260, 580)).save(project.photos / "low.png")
    ball((400, 400), (100, 100, 300, 300)).save(project.photos / "square.png")
    write_config(project.config, {})
    return project


def run(project, crop="auto"):
    return {Path(event.path).name: event for event in of_kind(prepare(project, PrepSettings(crop=crop), resolution=128), PhotoLooked)}


def picture(project, number):
    with Image.open(project.prepared / f"{number:03d}.png") as image:
        return image.convert("RGB")


def say(project, text):
    before = project.config.read_text().partition("\n[photos")[0]
    project.config.write_text(f"{before}\n{text}\n")


def blues(image):
    return sum(count for count, colour in image.getcolors(maxcolors=1 << 20) if colour[2] > colour[0] + 60)


def cuts(event):
    return [finding.words for finding in event.findings if finding.kind == "cut_subject"]


def test_the_default_keeps_the_subject_and_the_event_says_which_part(project):
    assert PrepSettings().crop == "auto"
    said = run(project)
    left, low, square = (as_json(said[name]) for name in ("left.png", "low.png", "square.png"))
    assert (left["size"], low["size"], square["size"]) == ([600, 400], [300, 600], [400, 400])
    assert left["box"][0] <= 10 and left["box"][2] - left["box"][0] == 400 and left["box"][1::2] == [0, 400]  # noqa: PT018
    assert low["box"][3] >= 580 and low["box"][3] - low["box"][1] == 300 and low["box"][0::2] == [0, 300]  # noqa: PT018
    assert square["box"] == [0, 0, 400, 400]
    assert not any(cuts(event) for event in said.values())
    rows = {row["file"]: row for row in json.loads((project.prepared / "report.json").read_text())["photos"]}
    assert rows["left.png"]["crop"] == left["box"]
    whole = 3.1416 * 110**2 * (128 / 400) ** 2
    assert blues(picture(project, 0)) > 0.5 * whole


@pytest.mark.parametrize(
    ("crop", "left", "low"),
    [
        ("center", [100, 0, 500, 400], [0, 150, 300, 450]),
        ("top", [100, 0, 500, 400], [0, 0, 300, 300]),
        ("bottom", [100, 0, 500, 400], [0, 300, 300, 600]),
        ("left", [0, 0, 400, 400], [0, 150, 300, 450]),
        ("right", [200, 0, 600, 400], [0, 150, 300, 450]),
        ("pad", [0, 0, 600, 400], [0, 0, 300, 600]),
    ],
)
def test_every_other_crop(crop, left, low, project):
    said = run(project, crop)
    assert [list(said[name].box) for name in ("left.png", "low.png")] == [left, low]
    assert picture(project, 0).size == picture(project, 1).size == (128, 128)


def test_what_is_lost_is_said(project):
    said = run(project, "right")
    (words,) = cuts(said["left.png"])
    assert words.startswith("The crop removes ")
    share = int(words.removeprefix("The crop removes ").split("%")[0])
    assert share > 80
    assert "% of what looks like the subject of left.png" in words
    assert not cuts(said["square.png"])
    assert not cuts(run(project, "left")["left.png"])


def test_a_padded_photo_is_whole_and_its_border_plain(project):
    run(project, "pad")
    image = picture(project, 0)
    top, bottom = image.crop((0, 0, 128, 20)), image.crop((0, 108, 128, 128))
    assert len(top.getcolors()) == 1
    assert top.getcolors()[0][1] == bottom.getcolors()[0][1]
    assert all(abs(one - other) < 12 for one, other in zip(top.getcolors()[0][1], GROUND, strict=True))
    assert blues(image) > 0


def test_a_photo_s_own_box_wins(project):
    say(project, '[photos."left.png"]\nbox = [400, 50, 500, 90]\n')
    said = run(project)
    assert list(said["left.png"].box) == [400, 20, 500, 120]  # the smallest square round it
    assert not cuts(said["left.png"])
    assert blues(picture(project, 0)) == 0
    assert list(run(project, "top")["left.png"].box) == [400, 20, 500, 120]


def test_of_a_photo_with_a_box_of_its_own_it_is_not_said_that_its_subject_is_small(project):
    ball((600, 400), (400, 180, 424, 204)).save(project.photos / "left.png")
    kinds = [[finding.kind for finding in event.findings] for event in run(project).values()]
    say(project, '[photos."left.png"]\nbox = [380, 160, 444, 224]\n')
    assert kinds[0] == ["tiny_subject"]
    assert run(project)["left.png"].findings == ()


def test_a_box_that_no_square_of_the_photo_holds_is_padded(project):
    say(project, '[photos."left.png"]\nbox = [0, 100, 600, 300]\n')
    said = run(project)
    assert list(said["left.png"].box) == [0, 0, 600, 400]
    assert len(picture(project, 0).crop((0, 0, 128, 20)).getcolors()) == 1


def test_a_small_box_of_a_large_photo_keeps_its_detail(project):
    stripes = Image.new("RGB", (3000, 2000), GROUND)
    draw = ImageDraw.Draw(stripes)
    for x in range(200, 456, 8):
        draw.rectangle((x, 200, x + 3, 455), fill="black")
    stripes.save(project.photos / "large.jpg", quality=95)
    say(project, '[photos."large.jpg"]\nbox = [200, 200, 456, 456]\n')
    run(project)
    low, high = picture(project, 0).convert("L").crop((20, 20, 108, 108)).getextrema()
    assert high - low > 150


def test_a_changed_box_is_made_again_and_the_same_is_not(project):
    def made():
        run(project)
        return {path.name: path.stat().st_mtime_ns for path in project.prepared.iterdir()}

    say(project, '[photos."left.png"]\nbox = [400, 50, 500, 90]\n')
    first = made()
    assert made() == first
    say(project, '[photos."left.png"]\nbox = [0, 50, 100, 90]\n')
    assert made() != first


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('[photos."lefft.png"]\nbox = [0, 0, 9, 9]', "there is no photo called 'lefft.png'", "did you mean 'left.png'?"),
        ('[photos."left.png"]\nbox = [0, 0, 700, 400]', "reaches beyond the photo, which has 600 x 400 pixels", "whole pixels"),
        ('[photos."left.png"]\nbox = [-1, 0, 100, 400]', "reaches beyond the photo", "counted from 0"),
        ('[photos."left.png"]\nbox = [50, 0, 50, 400]', "is empty", "right beyond left"),
        ('[photos."left.png"]\nbox = [0, 0, 100]', "box can't be [0, 0, 100]", "[left, top, right, bottom]"),
        ('[photos."left.png"]\nbox = [0, 0, 0.5, 1.0]', "box can't be [0, 0, 0.5, 1.0]", "whole pixels"),
        ('[photos."left.png"]\nbax = [0, 0, 9, 9]', "there is no setting 'bax'", "did you mean 'box'?"),
        ('[photos."left.png"]\ncaption = 3', "caption can't be 3", "it takes words"),
        ("[photos]\nbox = [0, 0, 9, 9]", "must be a table", '[photos."IMG_3.jpg"]'),
    ],
)
def test_words_about_a_photo_that_can_not_be_meant(text, message, hint, project):
    run(project)
    before = {path: path.read_bytes() for path in project.prepared.iterdir()}
    say(project, text)
    with pytest.raises(ProjectError) as caught:
        run(project)
    assert message in caught.value.message
    assert str(project.config) in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 3
    assert {path: path.read_bytes() for path in project.prepared.iterdir()} == before


def test_saving_settings_keeps_what_is_said_of_photos(project):
    say(project, '[photos."left.png"]\nbox = [0, 0, 100, 100]  # mine\ncaption = "in the snow"\n')
    write_config(project.config, {"prep": {"crop": "pad"}, "train": {"steps": 7}, "generate": {"steps": 9}})
    found = read_config(project.config)
    assert (found["prep"], found["train"], found["generate"]) == ({"crop": "pad"}, {"steps": 7}, {"steps": 9})
    assert (found["photos"]["left.png"].box, found["photos"]["left.png"].caption) == ((0, 0, 100, 100), "in the snow")
    assert "# mine" in project.config.read_text()


def test_a_run_that_began_with_middle_squares_is_found(sd1, photos):
    """One from 0.2, where they were the default, if no other crop has been asked for since."""
    project = make_project(photos, sd1, method="lora")
    report = project.prepared / "report.json"
    train(project, prep={"crop": "center"})
    assert "crop" not in project.settings()["prep"]
    assert [run.is_finished for run in project.runs()] == [True]
    events = train(project)
    assert not of_kind(events, StepDone)
    assert any("finished already" in note.message for note in of_kind(events, Noted))
    assert len(project.runs()) == 1
    assert json.loads(report.read_text())["crop"] == "center"
    write_config(project.config, {"prep": {"crop": "auto"}})
    list(prepare(project, PrepSettings(), resolution=32))
    assert json.loads(report.read_text())["crop"] == "auto"
