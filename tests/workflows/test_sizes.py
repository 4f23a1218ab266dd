"""Photos that keep their shapes: buckets, batches of one size, and SDXL is told each photo's true size."""

import json
from contextlib import closing

import pytest
from PIL import Image

from dreambooth_cli.bases.catalog import find_entry
from dreambooth_cli.cli.app import run as run_command
from dreambooth_cli.config import write_config
from dreambooth_cli.events import CheckpointSaved, ImageSaved, Noted, PhotosPrepared, PlanMade, Rehearsed
from dreambooth_cli.gpu import Gpu
from dreambooth_cli.memory.plan import Job
from dreambooth_cli.memory.search import make_plan, step_down
from dreambooth_cli.model_card import read_card
from dreambooth_cli.photos.buckets import bucket_sizes, largest_of
from dreambooth_cli.settings import GenerateSettings, TrainSettings
from dreambooth_cli.source import Source
from dreambooth_cli.workflows import rehearsal
from dreambooth_cli.workflows.generate import generate
from dreambooth_cli.workflows.prepare import prepared_photos
from dreambooth_cli.workflows.prepared import PreparedPhoto
from dreambooth_cli.workflows.verify import verify_resume
from tests.conftest import draw_photo
from tests.workflows.kept_training import assert_same, trained
from tests.workflows.projects import asked_of, make_project, model_of, of_kind, run, start
from tests.workflows.test_masks import draw_mask

SIZES = [(80, 56), (56, 80), (72, 56), (64, 64), (56, 72)]  # of five, four, one, three, two


def shaped(photos, model, **settings):
    """A project whose photos keep their shapes."""
    project = make_project(photos, model, **settings)
    write_config(project.config, {"prep": {"crop": "none"}})
    return project


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_a_run_of_several_sizes(kind, request, photos, monkeypatch):
    project = shaped(photos, request.getfixturevalue(kind), method="lora", train_text_encoder=False, batch_size=2, steps=6)
    events, training = trained(project, monkeypatch)
    (ready,) = of_kind(events, PhotosPrepared)
    assert set(ready.sizes) == set(SIZES)
    for photo, size in zip(prepared_photos(project), SIZES, strict=True):
        with Image.open(photo.path) as picture:
            assert picture.size == photo.into == size
    assert [example.shape[1:] for example in training.examples["instance"]] == [(height // 4, width // 4) for width, height in SIZES]
    assert {example.shape[1:] for example in training.examples["class"]} == {(16, 16)}
    seen = set()
    for step in range(6):
        for batch in training.batches(step, 0):
            assert batch.latents.shape == batch.noise.shape
            assert len(batch.latents) == len(batch.prompts)
            seen.add(tuple(batch.latents.shape[-2:]))
    assert len(seen) > 2
    (plan,) = of_kind(events, PlanMade)
    assert (plan.plan["resolution"], plan.plan["largest"], plan.plan["rows_in_turn"]) == (64, 80 * 56, True)
    assert read_card(model_of(events)).resolution == 64


def test_what_is_said_of_the_sizes(photos, sd1, capsys):
    project = shaped(photos, sd1)
    assert run_command(["prep", project.name]) == 0
    told = capsys.readouterr().err
    assert "5 photos ready at 80 x 56, 56 x 80, 72 x 56, 64 x 64 and 56 x 72 px; look them over" in told
    report = json.loads((project.prepared / "report.json").read_text())
    assert [row["into"] for row in report["photos"]] == [list(size) for size in SIZES]
    assert run_command(["prep", project.name, "--crop", "center"]) == 0
    assert "5 photos ready at 64 px; look" in capsys.readouterr().err


def test_a_photo_that_is_too_small_for_its_bucket(photos, sd1, capsys):
    draw_photo(photos / "small.png", (36, 50), seed=9)
    draw_photo(photos / "tiny.png", (24, 34), seed=8)
    project = shaped(photos, sd1)
    assert run_command(["prep", project.name]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "small.png: warned; small: it has 36 x 50 pixels, so it is enlarged to 56 x 80" in told
    assert "tiny.png: refused; too small: it has 24 x 34 pixels, under half of the 56 x 80 to train with" in told


def test_the_users_own_class_images_stay_squares(photos, sd1, tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    for number in range(2):
        draw_photo(own / f"{number}.png", (160, 90), seed=number + 20)
    _, training = trained(shaped(photos, sd1, method="lora"), monkeypatch, class_data_dir=own)
    assert {example.shape[1:] for example in training.examples["class"]} == {(16, 16)}


# ---- what SDXL is told


def photo_of(size, box, into):
    return PreparedPhoto(path=None, sha256="", size=size, box=box, into=into)


@pytest.mark.parametrize(
    ("photo", "told", "mirrored"),
    [
        (photo_of((1000, 1000), (0, 0, 1000, 1000), (512, 512)), (1000, 1000, 0, 0, 512, 512), (1000, 1000, 0, 0, 512, 512)),
        (photo_of((4000, 3000), (500, 0, 3500, 3000), (1024, 1024)), (3000, 4000, 0, 171, 1024, 1024), (3000, 4000, 0, 171, 1024, 1024)),
        (photo_of((3000, 4000), (0, 0, 3000, 3000), (1024, 1024)), (4000, 3000, 0, 0, 1024, 1024), (4000, 3000, 0, 0, 1024, 1024)),
        (photo_of((4000, 3000), (0, 0, 3000, 3000), (1024, 1024)), (3000, 4000, 0, 0, 1024, 1024), (3000, 4000, 0, 341, 1024, 1024)),
        (photo_of((300, 200), (0, -50, 300, 250), (512, 512)), (300, 300, 0, 0, 512, 512), (300, 300, 0, 0, 512, 512)),
        (photo_of((1000, 800), (100, 200, 500, 600), (512, 512)), (800, 1000, 256, 128, 512, 512), (800, 1000, 256, 640, 512, 512)),
    ],
    ids=["whole", "middle", "top", "left", "padded", "own box"],
)
def test_the_numbers_that_tell_a_photos_size(photo, told, mirrored):
    assert photo.sizes() == told
    assert photo.sizes(mirrored=True) == mirrored


@pytest.mark.parametrize("crop", ["center", "left", "pad", "none"])
def test_sdxl_is_told_the_truth_of_each_row(crop, photos, sdxl, monkeypatch):
    project = make_project(photos, sdxl, method="lora", mirror=True)
    write_config(project.config, {"prep": {"crop": crop}})
    _, training = trained(project, monkeypatch)
    unet, asked = training.family.pipe.unet, []
    unet.register_forward_pre_hook(lambda _, args, options: asked.append(options["added_cond_kwargs"]["time_ids"]), with_kwargs=True)
    photos_told = {photo.sizes(mirrored=mirrored) for photo in prepared_photos(project) for mirrored in (False, True)}
    heard = set()
    for step in range(12):
        for batch in training.batches(step, 0):
            training.batch_loss(batch)
            rows = [tuple(map(int, row)) for row in asked.pop()]
            assert all(row[4:] == (batch.latents.shape[2] * 4, batch.latents.shape[3] * 4) for row in rows)
            assert rows[batch.photos :] == [(64, 64, 0, 0, 64, 64)] * (len(rows) - batch.photos)
            heard |= set(rows[: batch.photos])
    assert heard <= photos_told
    assert len(heard) > 3
    only_mirrored = photos_told - {photo.sizes() for photo in prepared_photos(project)}
    assert bool(heard & only_mirrored) == bool(only_mirrored) == (crop == "left")
    one = next(photo for photo in prepared_photos(project) if photo.name == "one.jpg")
    assert one.sizes()[:2] == ((160, 160) if crop == "pad" else (120, 160))


def test_an_sdxl_run_that_was_begun_before_goes_on_as_it_was(photos, sdxl, monkeypatch):
    project = make_project(photos, sdxl, method="lora", checkpoint_every=1)
    with closing(start(project)) as events:
        next(event for event in events if isinstance(event, CheckpointSaved))
    (begun,) = project.runs()
    plan = json.loads(begun.plan.read_text())
    del plan["photos"]
    begun.plan.write_text(json.dumps(plan))
    _, training = trained(project, monkeypatch)
    assert len(project.runs()) == 1
    assert {batch.sizes for step in range(3) for batch in training.batches(step, 0)} == {None}


# ---- the plan


def test_the_plan_counts_the_largest_bucket():
    facts, largest = find_entry("sd15").facts, largest_of(bucket_sizes(512))
    card = Gpu(kind="cuda", name="a card", total=24 * 2**30, free=22 * 2**30, capability=(8, 6))

    def plan(size):
        asked = TrainSettings(method="full", gradient_checkpointing=True)
        return make_plan(Job(facts, asked, resolution=512, gpu=card, has_8bit=True, name="sd15", largest=size))

    square, shapes = plan(0), plan(largest)
    assert largest == 640 * 448
    assert shapes.rows_in_turn
    assert not shapes.inside_backward
    assert shapes.ledger["peak: encoding"] > square.ledger["peak: encoding"]
    assert shapes.ledger["activations"] > plan(512 * 512).ledger["activations"]
    small = Gpu(kind="cuda", name="a card", total=8 * 2**30, free=7 * 2**30, capability=(8, 6))
    tight = make_plan(Job(facts, TrainSettings(), resolution=512, gpu=small, has_8bit=True, name="sd15", largest=largest))
    assert not tight.inside_backward
    lower = step_down(shapes, facts, TrainSettings(), gpu=card)
    assert lower is None or lower.largest == largest


# ---- nothing else is other than it was


def test_generate_the_effect_and_samples_are_as_with_squares(photos, sd1, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "FROM", 3)
    project = shaped(photos, sd1, method="lora", sample_every=3, sample_steps=2)
    events = run(project)
    assert of_kind(events, Rehearsed)
    with Image.open(next(project.runs()[0].samples.iterdir())) as sample:
        assert sample.size == (64, 64)
    settings = GenerateSettings(seed=1, steps=2)
    (drawn,) = of_kind(list(generate(Source(model_of(events)), "a dog", settings, output_dir=tmp_path / "out")), ImageSaved)
    with Image.open(drawn.path) as picture:
        assert picture.size == (64, 64)


def test_verify_resume_holds_with_several_sizes(photos, sd1):
    project = shaped(photos, sd1, method="full", steps=4)
    events = list(verify_resume(project, asked_of(project.settings())))
    assert any("to the bit" in note.message for note in of_kind(events, Noted))


@pytest.mark.parametrize(("kind", "method"), [pytest.param("sd1", "full", marks=pytest.mark.long), ("sdxl", "lora")])
def test_a_run_with_captions_masks_and_sizes_goes_on_to_the_bit(kind, method, request, photos, monkeypatch):
    (photos / "two.txt").write_text("in the snow")
    (photos / "five.txt").write_text("at night, from above")
    draw_mask(photos / "one.jpg", (20, 10, 100, 110))
    draw_mask(photos / "two.jpg", (10, 40, 100, 150))
    settings = {"method": method, "steps": 6, "checkpoint_every": 3, "batch_size": 3, "mirror": True}
    settings["train_text_encoder"] = method == "full"
    base = request.getfixturevalue(kind)
    whole = shaped(photos, base, name="whole", **settings)
    run(whole)
    parts = shaped(photos, base, name="parts", **settings)
    with closing(start(parts)) as events:
        next(event for event in events if isinstance(event, CheckpointSaved))
    assert_same(model_of(run(parts)), whole.runs()[0].model)
    monkeypatch.setattr(rehearsal, "FROM", 3)
    rehearsed = shaped(photos, base, name="rehearsed", **settings)
    again = run(rehearsed)
    assert of_kind(again, Rehearsed)
    assert_same(model_of(again), whole.runs()[0].model)
