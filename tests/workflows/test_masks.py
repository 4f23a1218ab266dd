"""Masks: which parts of a photo count in the loss; they are cropped, resized and mirrored with it, and refused with a reason if they can't
be used."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.testing import assert_close

from dreambooth_cli.cli.app import run as run_command
from dreambooth_cli.engine.training.examples import latent_mask
from dreambooth_cli.engine.training.objective import row_losses
from dreambooth_cli.errors import PhotoError
from dreambooth_cli.events import CheckpointSaved, PhotoLooked
from dreambooth_cli.model_card import read_card
from dreambooth_cli.photos.pixels import read_photo
from dreambooth_cli.workflows.prepare import prepared_photos
from tests.conftest import draw_photo
from tests.workflows.kept_training import assert_same, trained
from tests.workflows.projects import make_project, model_of, of_kind, run, start


def draw_mask(photo, box, *, mode="L", size=None):
    """A white box on black beside a photo, of the photo's upright size."""
    size = size or read_photo(photo, 10_000).size
    mask = Image.new("L", size)
    mask.paste(255, box)
    path = photo.with_name(f"{photo.stem}.mask.png")
    mask.convert(mode).save(path)
    return path


@pytest.fixture
def with_mask(photos):
    """The five photos; of one.jpg, which is 160 x 120, the left half of its middle square counts."""
    draw_mask(photos / "one.jpg", (20, 0, 80, 120))
    return photos


def test_the_loss_is_weighed_as_the_formula_says(with_mask, sd1, monkeypatch):
    project = make_project(with_mask, sd1, method="lora")
    _, training = trained(project, monkeypatch, prep={"crop": "center"})
    masks = [example.mask for example in training.examples["instance"]]
    assert [mask is not None for mask in masks] == [False, False, True, False, False]
    assert all(example.mask is None for example in training.examples["class"])
    mask = masks[2]
    assert mask.shape == (1, 1, 16, 16)
    assert_close(mask[0, 0, :, :7], torch.ones(16, 7))
    assert_close(mask[0, 0, :, 9:], torch.full((16, 7), 0.1))
    said, target = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 16, 16)
    by_hand = sum(
        mask[0, 0, row, column] * (said[0, channel, row, column] - target[0, channel, row, column]) ** 2
        for channel in range(4)
        for row in range(16)
        for column in range(16)
    ) / (4 * mask.sum())
    assert_close(row_losses(said, target, mask)[0], by_hand)


def test_a_mask_is_the_mean_of_what_a_place_of_the_latents_stands_for(tmp_path):
    pixels = np.zeros((8, 16), dtype=np.uint8)
    pixels[:4, :4], pixels[4:, :2], pixels[0, 8] = 255, 255, 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    wanted = torch.tensor([[1.0, 0.1, 0.1, 0.1], [0.5, 0.1, 0.1, 0.1]])
    assert_close(latent_mask(tmp_path / "mask.png", torch.Size((4, 2, 4)))[0, 0], wanted)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "LA"])
def test_a_mask_of_any_mode(mode, with_mask, sd1):
    draw_mask(with_mask / "one.jpg", (20, 0, 80, 120), mode=mode)
    project = make_project(with_mask, sd1)
    assert run_command(["prep", project.name, "--resolution", "64", "--crop", "center"]) == 0
    with Image.open(project.prepared / "002.mask.png") as mask:
        assert (mask.mode, mask.size, mask.info) == ("L", (64, 64), {})
        assert np.asarray(mask)[:, :30].min() == 255
        assert np.asarray(mask)[:, 34:].max() == 0


def test_what_is_transparent_does_not_count(with_mask, sd1):
    mask = Image.new("RGBA", (160, 120), (255, 255, 255, 0))
    ImageDraw.Draw(mask).rectangle((20, 0, 79, 119), fill=(255, 255, 255, 255))
    mask.save(with_mask / "one.mask.png")
    project = make_project(with_mask, sd1)
    assert run_command(["prep", project.name, "--resolution", "64", "--crop", "center"]) == 0
    with Image.open(project.prepared / "002.mask.png") as made:
        assert np.asarray(made)[:, 34:].max() == 0


def test_the_mask_of_a_turned_photo_is_upright(tmp_path, sd1):
    folder = tmp_path / "turned"
    folder.mkdir()
    draw_photo(folder / "a.jpg", (160, 120), seed=1)
    with Image.open(folder / "a.jpg") as image:
        exif = image.getexif()
        exif[274] = 6  # turned by 90 degrees
        image.save(folder / "b.jpg", exif=exif)
    assert read_photo(folder / "b.jpg", 64).size == (120, 160)
    draw_mask(folder / "b.jpg", (0, 0, 120, 80))
    project = make_project(folder, sd1)
    assert run_command(["prep", project.name, "--resolution", "64"]) == 0
    draw_mask(folder / "b.jpg", (0, 0, 120, 80), size=(160, 120))
    with pytest.raises(PhotoError, match="a mask of 160 x 120 pixels, and its photo has 120 x 160"):
        make_project(folder, sd1, name="lying")


def test_a_mask_is_no_photo_and_goes_where_its_photo_goes(with_mask, sd1):
    project = make_project(with_mask, sd1, method="lora")
    events = run(project, prep={"crop": "center"})
    assert not [event for event in of_kind(events, PhotoLooked) if "mask" in Path(event.path).name]
    assert len(prepared_photos(project)) == 5
    assert [photo.mask and photo.mask.name for photo in prepared_photos(project)] == [None, None, "002.mask.png", None, None]
    (done,) = project.runs()
    assert [bool(photo["mask"]) for photo in done.record().photos] == [False, False, True, False, False]
    assert [photo["mask"] for photo in read_card(model_of(events)).photos] == [False, False, True, False, False]
    sheet = (project.prepared / "contact-sheet.jpg").read_bytes()
    draw_mask(project.photos / "one.jpg", (80, 0, 140, 120))
    run(project, prep={"crop": "center"})
    assert (project.prepared / "contact-sheet.jpg").read_bytes() != sheet
    assert len(project.runs()) == 2


@pytest.mark.parametrize(("box", "crop"), [((0, 30, 40, 90), [0, 0, 120, 120]), ((130, 0, 160, 50), [40, 0, 160, 120])])
def test_the_square_goes_where_the_mask_is(box, crop, with_mask, sd1):
    draw_mask(with_mask / "one.jpg", box)
    project = make_project(with_mask, sd1)
    assert run_command(["prep", project.name, "--resolution", "64", "--crop", "auto"]) == 0
    rows = json.loads((project.prepared / "report.json").read_text())["photos"]
    assert [row["crop"] for row in rows if row["file"] == "one.jpg"] == [crop]


def test_a_changed_prepared_mask_is_found(with_mask, sd1):
    project = make_project(with_mask, sd1)
    assert run_command(["prep", project.name, "--resolution", "64"]) == 0
    made = (project.prepared / "002.mask.png").read_bytes()
    Image.new("L", (64, 64), 255).save(project.prepared / "002.mask.png")
    assert run_command(["prep", project.name, "--resolution", "64"]) == 0
    assert (project.prepared / "002.mask.png").read_bytes() == made


def test_a_run_with_masks_goes_on_to_the_bit(with_mask, sd1):
    settings = {"method": "lora", "train_text_encoder": True, "steps": 4, "checkpoint_every": 2, "mirror": True, "batch_size": 2}
    whole = make_project(with_mask, sd1, name="whole", **settings)
    run(whole)
    parts = make_project(with_mask, sd1, name="parts", **settings)
    with closing(start(parts)) as events:
        next(event for event in events if isinstance(event, CheckpointSaved))
    assert_same(model_of(run(parts)), whole.runs()[0].model)
    for photo in (whole.photos, whole.prepared):
        assert list(photo.glob("*.mask.png"))
    without = make_project(with_mask, sd1, name="without", **settings)
    (without.photos / "one.mask.png").unlink()
    with pytest.raises(AssertionError):
        assert_same(model_of(run(without)), whole.runs()[0].model)


# ---- what can't be


def test_what_can_not_be_used_is_refused_in_words(with_mask, sd1, capsys):
    project = make_project(with_mask, sd1)
    mask = project.photos / "one.mask.png"
    for content, words in {
        "other size": "one.mask.png: a mask of 64 x 64 pixels, and its photo has 160 x 120",
        "black": "one.mask.png: an empty mask: nothing in it is white",
        "cut away": "one.mask.png: the crop leaves nothing of what this mask shows",
        "broken": "one.mask.png: damaged",
        "cut off": "one.mask.png: cut off: the file is not whole",
    }.items():
        match content:
            case "other size":
                draw_mask(project.photos / "one.jpg", (0, 0, 9, 9), size=(64, 64))
            case "black":
                draw_mask(project.photos / "one.jpg", (0, 0, 0, 0))
            case "cut away":
                draw_mask(project.photos / "one.jpg", (0, 0, 16, 120))
            case "broken":
                mask.write_bytes(b"no picture")
            case "cut off":
                draw_mask(project.photos / "one.jpg", (0, 0, 99, 99))
                mask.write_bytes(mask.read_bytes()[:-60])
        assert run_command(["prep", project.name, "--resolution", "64", "--crop", "center"]) == 3
        assert words in " ".join(capsys.readouterr().err.split())


def test_a_project_is_not_made_with_a_mask_that_can_not_be(with_mask, sd1):
    draw_mask(with_mask / "one.jpg", (0, 0, 9, 9), size=(64, 64))
    with pytest.raises(PhotoError, match=r"one\.mask\.png: a mask of 64 x 64"):
        make_project(with_mask, sd1)
