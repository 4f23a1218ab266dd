"""The end of a run: its steps are judged by tiny networks with random weights from a hub on loopback, and the right ones are kept."""

import json

import pytest
import torch
from torch.testing import assert_close

from dreambooth_cli.engine.hub.eyes import CLIPS, DINOS
from dreambooth_cli.errors import Interrupted
from dreambooth_cli.events import ImageSaved, Noted, RunJudged, StepDone, StepJudged
from dreambooth_cli.judged import read_judged
from dreambooth_cli.settings import GenerateSettings
from dreambooth_cli.source import Source
from dreambooth_cli.workflows import judging
from dreambooth_cli.workflows.generate import generate
from tests import small_models
from tests.hub_server import serve_hub, use_hub
from tests.workflows.kept_training import assert_same
from tests.workflows.projects import make_project, model_of, of_kind, run

FOUR = {"steps": 4, "checkpoint_every": 1, "keep_checkpoints": 1, "class_images": 0}


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    """The folders of a CLIP and a DINO with random weights."""
    return small_models.build_eyes(tmp_path_factory.mktemp("eyes"))


@pytest.fixture
def quick(monkeypatch):
    """Few pictures in few denoising steps."""
    monkeypatch.setattr(judging, "FEW_STEPS", 2)
    monkeypatch.setattr(judging, "MOST_PICTURES", 4)


def steps_of(project):
    return sorted(path.name for path in project.runs()[0].checkpoints.iterdir())


def test_the_last_and_the_best_stay_and_the_training_is_as_without_a_judge(sd1, photos, eyes, quick, monkeypatch, tmp_path):
    plain = make_project(photos, sd1, name="plain", judge="none", keep="all", **FOUR)
    whole = model_of(run(plain))
    assert steps_of(plain) == ["step-000001", "step-000002", "step-000003", "step-000004"]
    assert not list(plain.path.rglob("optimizer.safetensors"))
    project = make_project(photos, sd1, name="judged", **FOUR)
    monkeypatch.setattr(judging, "best_of", lambda scores: 1)
    with serve_hub() as hub:
        hub.add(CLIPS[1], eyes / "clip", "c" * 40)  # the first is gone
        hub.add(DINOS[0], eyes / "dino", "d" * 40)
        use_hub(hub, monkeypatch)
        events = run(project)
        assert {name for name in hub.fetched() if name.endswith("safetensors")} == {"model.safetensors"}
        asked = len(hub.requests)
        assert [event.step for event in of_kind(events, StepJudged)] == [1, 2, 3, 4]
        (told,) = of_kind(events, RunJudged)
        judged = read_judged(project.runs()[0].judged)
        assert (judged.best, judged.judge, told.reason) == (2, "DINO and CLIP", judged.reason)
        assert json.loads(project.runs()[0].judged.read_text()).keys() == {"judge", "steps", "best", "reason"}
        assert steps_of(project) == ["step-000002", "step-000004"]
        assert not list(project.path.rglob("optimizer.safetensors"))
        assert of_kind(run(project), StepJudged) == []  # it is finished and judged
        assert len(hub.requests) == asked
    assert_same(whole, project.runs()[0].model)
    drawn = list(generate(Source(project.runs()[0].path, step=2), "a dog", GenerateSettings(seed=1, steps=1), output_dir=tmp_path))
    assert of_kind(drawn, ImageSaved)


def test_where_nobody_can_judge_the_last_is_kept_and_that_is_said(sd1, photos):
    project = make_project(photos, sd1, **FOUR)
    events = run(project)
    (line,) = [event.message for event in of_kind(events, Noted) if "the steps were not judged" in event.message]
    assert "HF_HUB_OFFLINE" in line
    assert line.endswith("the last one is kept")
    assert steps_of(project) == ["step-000004"]
    # the model is made anew from it, though there is no optimizer's state any more
    finished = project.runs()[0]
    before = finished.model_files()
    for path in sorted(finished.model.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    finished.model.rmdir()
    assert of_kind(run(project), StepDone) == []
    after = finished.model_files()
    assert {name: entry for name, entry in after.items() if name.endswith("safetensors")} == {
        name: entry for name, entry in before.items() if name.endswith("safetensors")
    }


def test_where_only_the_last_is_kept_nothing_is_judged(sd1, photos):
    project = make_project(photos, sd1, **{**FOUR, "steps": 2, "keep_checkpoints": 2}, keep="last")
    events = run(project)
    assert not [event for event in of_kind(events, Noted) if "the steps were not judged" in event.message]
    assert steps_of(project) == ["step-000002"]


def test_a_judging_that_was_stopped_is_done_by_the_same_command(sd1, photos, quick, monkeypatch, eyes):
    from dreambooth_cli import stopping

    project = make_project(photos, sd1, **FOUR)
    clip, dino = eyes / "clip", eyes / "dino"

    def obtain():
        yield from ()
        return clip, dino

    monkeypatch.setattr(judging, "obtain_eyes", obtain)
    with monkeypatch.context() as patch:
        patch.setattr(judging, "nearest_copy", lambda *pictures: (_ for _ in ()).throw(Interrupted("by Ctrl-C")))
        with pytest.raises(Interrupted):
            run(project)
    stopping.reset()
    assert steps_of(project) == ["step-000001", "step-000002", "step-000003", "step-000004"]
    assert project.runs()[0].is_finished
    events = run(project)
    assert of_kind(events, StepDone) == []
    assert len(of_kind(events, StepJudged)) == 4
    assert len(of_kind(events, RunJudged)) == 1


def test_what_judges_gives_figures_between_none_and_all(eyes):
    from PIL import Image

    from dreambooth_cli.engine.judges import by_clip_and_dino, likeness, nearest_copy, on_scale

    pictures = [Image.effect_noise((64, 64), 20 * place + 9).convert("RGB") for place in range(4)]
    judge = by_clip_and_dino(eyes / "clip", eyes / "dino")
    asked = [f"a photo of a dog {place}" for place in ("on the moon", "in the snow", "on the moon", "in the snow")]
    assert all(0 <= one <= 1 for one in judge.follow(pictures, asked, pictures))
    assert all(0 <= one <= 1 for one in likeness(judge, pictures, pictures[:2], pictures[2:]))
    mirrored = pictures[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert nearest_copy(pictures[:1], [pictures[3], mirrored]) == (pytest.approx(1, abs=1e-4), 1)
    assert (on_scale(3, 1, 2), on_scale(0, 1, 2), on_scale(1.5, 1, 2)) == (1, 0, 0.5)
    assert_close(torch.tensor(on_scale(1.001, 1, 1)), torch.tensor(0.1), rtol=0, atol=1e-3)
