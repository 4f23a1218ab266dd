"""The rehearsal leaves nothing behind, and what would fail in a later phase fails before the first class image."""

import errno
from contextlib import closing

import pytest
import torch
from safetensors.torch import load_file

from dreambooth_cli import disk
from dreambooth_cli.engine import tensor_file
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.errors import DiskError, DreamboothError, TrainingFailed
from dreambooth_cli.events import CheckpointSaved, ClassImageMade, PhaseStarted, Rehearsed, StepDone
from dreambooth_cli.settings import TrainSettings
from dreambooth_cli.workflows import rehearsal
from tests.workflows.projects import make_project, model_of, of_kind, run, start

pytestmark = pytest.mark.slow

QUICK = {"steps": 3, "class_images": 2, "class_image_steps": 2, "sample_every": 3, "sample_steps": 2}
PHASES = ["loading the base model", "class images", "encoding", "training", "checkpoint", "sample", "saving the model"]


@pytest.fixture(autouse=True)
def short_runs_too(monkeypatch):
    monkeypatch.setattr(rehearsal, "FROM", 3)
    monkeypatch.setattr(rehearsal, "WRITTEN", 100_000)  # bytes: less than any file of the small base


def phases_of(events):
    return [event.name for event in of_kind(events, PhaseStarted)]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_is_the_same_to_the_bit_with_it_and_without(method, sd1, photos):
    """Each draws its own class images, since another seed has a cache of its own."""
    made = {}
    for name in ("with", "without"):
        project = make_project(photos, sd1, name=name, method=method, train_text_encoder=True, **QUICK)
        events = run(project, rehearsal=name == "with", restart=True)
        made[name] = {path.relative_to(model_of(events)): path for path in model_of(events).rglob("*.safetensors")}
        rehearsed = [phase for phase in phases_of(events) if phase.startswith("rehearsal: ")]
        wanted = [f"rehearsal: {phase}" for phase in PHASES if name == "with"]
        assert rehearsed == wanted
        (taken,) = project.runs()
        assert {path.name for path in taken.path.iterdir() if path.name.startswith(".")} == set()
        if name == "with":
            (told,) = of_kind(events, Rehearsed)
            assert told.expected > told.step_seconds > 0
            for folder in (project.path.parents[1] / "cache" / "class-images").iterdir():
                for path in folder.iterdir():
                    path.unlink()
    assert made["with"].keys() == made["without"].keys()
    for name, path in made["with"].items():
        ours, theirs = load_file(path), load_file(made["without"][name])
        for key, value in ours.items():
            assert torch.equal(value, theirs[key]), f"{name}: {key}"


FAULTS = {
    "class images": "dreambooth_cli.engine.images.class_cache.draw_latents",
    "encoding": "dreambooth_cli.workflows.assemble.encode_pictures",
    "training": "dreambooth_cli.engine.training.loop.dreambooth_loss",
    "checkpoint": "dreambooth_cli.workflows.rehearsal.save_checkpoint",
    "sample": "dreambooth_cli.engine.training.loop.draw",
    "saving the model": "dreambooth_cli.workflows.deliver.save_full",
}


@pytest.mark.parametrize("phase", FAULTS)
def test_what_would_fail_in_an_hour_fails_before_the_first_class_image(phase, sd1, photos, monkeypatch):
    def fail(*_, **__):
        raise DiskError(f"planted in {phase}", "take it out again")

    monkeypatch.setattr(FAULTS[phase], fail)
    project = make_project(photos, sd1, method="full", **QUICK)
    events = []
    with pytest.raises(DreamboothError) as caught:
        for event in start(project):
            events.append(event)
    assert f"planted in {phase}" in caught.value.message
    assert phases_of(events)[-1] == f"rehearsal: {phase}"
    assert of_kind(events, ClassImageMade) == []
    assert of_kind(events, StepDone) == []
    (begun,) = project.runs()
    assert {path.name for path in begun.path.iterdir()} <= {"plan.json", "events.jsonl"}


@pytest.mark.parametrize("phase", ["checkpoint", "saving the model"])
def test_room_that_a_whole_file_would_lack_is_missed_before_the_first_class_image(phase, sd1, photos, monkeypatch):
    """Even though what the rehearsal really writes would fit."""
    taken = []

    def reserve(path, size):
        taken.append(path.name)
        disk.reserve(path, size)
        if (path.parent.name in ("unet", "vae", "text_encoder")) == (phase == "saving the model"):
            raise OSError(errno.ENOSPC, "no space left on device", str(path))

    monkeypatch.setattr(tensor_file, "reserve", reserve)
    project = make_project(photos, sd1, method="full", **QUICK)
    events = []
    with pytest.raises(DiskError) as caught:
        for event in start(project):
            events.append(event)
    assert taken
    assert "make room" in caught.value.hint
    assert phases_of(events)[-1] == f"rehearsal: {phase}"
    assert of_kind(events, ClassImageMade) == []


def test_numbers_that_are_not_finite_are_found_in_it(sd1, photos, monkeypatch):
    """By the same rule as in a run: the first time it goes on more carefully, the second time it ends."""
    monkeypatch.setattr(Training, "is_finite", lambda self: False)
    project = make_project(photos, sd1, method="full", **QUICK)
    events = []
    with pytest.raises(TrainingFailed):
        for event in start(project):
            events.append(event)
    assert of_kind(events, ClassImageMade) == []


def test_tries_have_none(monkeypatch):
    monkeypatch.undo()
    assert rehearsal.is_rehearsed(TrainSettings(steps=50))
    assert not rehearsal.is_rehearsed(TrainSettings(steps=49))
    assert not rehearsal.is_rehearsed(TrainSettings(steps=50, rehearsal=False))


def test_a_run_that_goes_on_has_none(sd1, photos):
    project = make_project(photos, sd1, method="full", **QUICK | {"sample_every": 0, "checkpoint_every": 1})
    with closing(start(project)) as events:
        next(event for event in events if isinstance(event, CheckpointSaved))
    again = run(project)
    assert of_kind(again, Rehearsed) == []
    assert of_kind(again, StepDone)[0].step == 2
