"""Samples: four rounds over a run by default, which leave no trace in the weights."""

import json

import pytest
from PIL import Image

from dreambooth_cli.engine.training import loop
from dreambooth_cli.events import ImageSaved, ModelSaved, RunOpened, SampleSaved, SamplesPutOff, Warned
from dreambooth_cli.settings import GenerateSettings, TrainSettings
from dreambooth_cli.source import Source
from dreambooth_cli.workflows import samples
from dreambooth_cli.workflows.generate import generate
from tests.memory.test_plan import plan_for
from tests.workflows.kept_training import assert_same
from tests.workflows.projects import make_project, model_of, of_kind, run

SAMPLED = {"steps": 8, "sample_every": "auto", "sample_steps": 1}
PROMPTS = ["a photo of a sks dog", "a photo of a dog", "a photo of a sks dog on the moon"]


@pytest.fixture
def roomy(monkeypatch):
    """Let eight steps of a small base count as a run whose samples may take longer than its steps."""
    monkeypatch.setattr(samples, "TRY", 8)
    monkeypatch.setattr(samples, "MOST", 1e9)


def test_where_nothing_is_said_there_are_four_in_a_run_but_at_its_end_in_a_try():
    run_of = TrainSettings(steps=380)
    assert [step for step in range(1, 380) if samples.is_due(run_of, step)] == [95, 190, 285]
    assert not samples.is_due(run_of, 380), "the last waits for the optimizer's state to go"
    odd = TrainSettings(steps=399)
    assert [step for step in range(1, 400) if samples.is_due(odd, step)] == [100, 200, 300]
    assert not any(samples.is_due(TrainSettings(steps=40), step) for step in range(1, 41))
    assert [step for step in range(1, 9) if samples.is_due(TrainSettings(steps=8, sample_every=3), step)] == [3, 6]


def test_what_is_said_about_them_beforehand():
    plan = plan_for(None)
    assert samples.announced_every(TrainSettings(steps=399), plan) == 100
    assert samples.announced_every(TrainSettings(steps=399), plan_for(14, "sdxl")) == 399
    assert samples.announced_every(TrainSettings(steps=40), plan) == 40, "a try"
    assert samples.announced_every(TrainSettings(steps=40, sample_every=7), plan) == 7
    assert samples.announced_every(TrainSettings(steps=40, sample_every=0), plan) == 0


@pytest.mark.parametrize(("method", "settings"), [("full", {"ema": True, "train_text_encoder": True}), ("lora", {})])
def test_weights_are_the_same_to_the_bit_with_samples_and_without(method, settings, sd1, photos, roomy):
    sampled = make_project(photos, sd1, name="sampled", method=method, **SAMPLED | settings)
    events = run(sampled)
    told = of_kind(events, SampleSaved)
    assert [(event.step, event.prompt) for event in told] == [(step, prompt) for step in (2, 4, 6, 8) for prompt in PROMPTS]
    before = sorted(path.name for path in sampled.runs()[0].samples.glob("step-000000-*"))
    assert before == [f"step-000000-{number}.png" for number in (1, 2, 3)]
    with Image.open(told[0].path) as first, Image.open(told[-3].path) as last:
        words = dict(first.text)
        assert "trainedAlgorithmicMedia" in words.pop("XML:com.adobe.xmp")
        assert words == {"prompt": PROMPTS[0], "seed": "0", "step": "2"}
        assert first.tobytes() != last.tobytes()
    plain = make_project(photos, sd1, name="plain", method=method, **SAMPLED | settings | {"sample_every": 0})
    without = run(plain)
    assert of_kind(without, SampleSaved) == []
    assert_same(model_of(events), model_of(without))


def test_where_they_would_take_more_than_a_tenth_they_come_at_the_end(sd1, photos, roomy, monkeypatch):
    monkeypatch.setattr(samples, "MOST", 1e-9)
    events = run(make_project(photos, sd1, method="lora", **SAMPLED))
    assert [event.step for event in of_kind(events, SampleSaved)] == [2, 2, 2, 8, 8, 8], "the first round measures"
    assert len(of_kind(events, SamplesPutOff)) == 1
    assert [event.sample_every for event in of_kind(events, RunOpened)] == [2]


def test_memory_that_runs_out_over_a_sample_ends_no_run(sd1, photos, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(loop, "draw", fail)
    monkeypatch.setattr(samples, "draw_in_turn", fail)
    events = run(make_project(photos, sd1, method="lora", **SAMPLED))
    assert [event.message.split(":")[0] for event in of_kind(events, Warned) if "memory" in event.message] == [
        "not all samples of step 0 could be drawn",
        "not all samples of step 8 could be drawn",
    ]
    assert of_kind(events, ModelSaved)


@pytest.mark.parametrize(
    ("class_prompt", "settings", "third"),
    [
        ("a dog", {}, "a sks dog on the moon"),
        ("a dog", {"sample_prompt": "a [identifier] dog, etching"}, "a sks dog, etching"),
        ("a dog on a beach", {}, None),
    ],
)
def test_the_third_prompt(class_prompt, settings, third):
    prompts = samples.Prompts("sks", class_prompt.replace("a dog", "a sks dog"), class_prompt)
    assert samples.sample_prompts(prompts, settings.get("sample_prompt"))[2:] == ([third] if third else [])


def test_few_steps_are_enough_for_a_sample(sd1, photos, roomy, tmp_path):
    """It is drawn with the scheduler of class images, before training too; the model keeps the base's own."""
    project = make_project(photos, sd1, method="full", **SAMPLED | {"sample_steps": 4})
    events = run(project)
    (last,) = [event for event in of_kind(events, SampleSaved) if (event.step, event.prompt) == (8, PROMPTS[0])]
    config = json.loads((model_of(events) / "scheduler" / "scheduler_config.json").read_text())
    assert config["_class_name"] == json.loads((sd1 / "scheduler" / "scheduler_config.json").read_text())["_class_name"]
    settings = GenerateSettings(scheduler="dpm++", steps=4, seed=0)
    (drawn,) = of_kind(list(generate(Source(model_of(events)), PROMPTS[0], settings, output_dir=tmp_path)), ImageSaved)
    with Image.open(last.path) as sample, Image.open(drawn.path) as picture:
        assert sample.tobytes() == picture.tobytes()
