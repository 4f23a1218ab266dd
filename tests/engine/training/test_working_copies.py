"""Working copies: a step on them equals the step under autocast to the bit, and whatever reads the weights never sees them."""

from unittest.mock import patch

import pytest
import torch

from dreambooth_cli.engine.images.sampling import Drawing
from dreambooth_cli.engine.training import loop as training_module
from dreambooth_cli.engine.training import working_copies
from dreambooth_cli.settings import TrainSettings
from tests.engine.plans import plan_for
from tests.engine.training.test_loop import squares, start  # noqa: F401 - a fixture

FORMS = {
    "full": ({}, {}),
    "text encoder that stops": ({"train_text_encoder": True, "text_encoder_stop": 2}, {}),
    "checkpointing": ({"gradient_checkpointing": True, "train_text_encoder": True}, {}),
    "8 bit": ({"optimizer": "adamw8bit"}, {}),
    "state off the card": ({"off_card": True}, {}),
    "average": ({}, {"ema": True}),
    "clipping": ({"train_text_encoder": True}, {"max_grad_norm": 0.05}),
    "lora": ({"method": "lora", "train_text_encoder": True}, {"rank": 4}),
    "lora in turn": ({"method": "lora", "rows_in_turn": True}, {"rank": 4, "gradient_accumulation": 2}),
    "lora fp16": ({"method": "lora", "precision": "fp16"}, {"rank": 4, "max_grad_norm": 0.05}),
}


SHORT = [("sd1", "lora fp16"), ("sd1", "lora in turn"), ("sdxl", "text encoder that stops")]
CASES = [("sd1", form) for form in sorted(FORMS)] + [("sdxl", "text encoder that stops"), ("sdxl", "lora")]


def start_both(folder, form, squares, monkeypatch):  # noqa: F811
    """The same run with copies, whose gradients are converted in pieces, and without them."""
    changes, options = FORMS[form]
    plan, settings = plan_for(**({"precision": "bf16"} | changes)), TrainSettings(steps=4, **options)
    monkeypatch.setattr(working_copies, "GRADIENT_PIECE", 5_000)
    ours = start(folder, settings, plan, squares)
    with patch.object(training_module, "works_on_copies", lambda *_: False):
        theirs = start(folder, settings, plan, squares)
    assert ours.copies is not None
    assert theirs.copies is None
    return ours, theirs


def assert_same(held, expected):
    """The same tensors, to the bit."""
    assert held.keys() == expected.keys()
    for name, value in expected.items():
        assert held[name].dtype == value.dtype, name
        assert torch.equal(held[name], value), name


@pytest.mark.parametrize(("base", "form"), [pytest.param(*case, marks=() if case in SHORT else pytest.mark.long) for case in CASES])
def test_a_run_on_copies_is_the_run_under_autocast(base, form, request, squares, monkeypatch):  # noqa: F811
    """Losses, weights, optimizer state and average."""
    if form == "8 bit":
        pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    ours, theirs = start_both(request.getfixturevalue(base), form, squares, monkeypatch)
    assert [step.loss for step in ours.steps()] == [step.loss for step in theirs.steps()]
    for kind in ("weights", "optimizer", "ema"):
        assert_same(getattr(ours.state(), kind), getattr(theirs.state(), kind))


def test_samples_and_what_is_saved_know_nothing_of_copies(sd1, squares, monkeypatch):  # noqa: F811
    """A picture of the average, a step after it, and the networks at the end."""
    pixels = []
    ours, theirs = start_both(sd1, "average", squares, monkeypatch)
    for training in (ours, theirs):
        steps = training.steps()
        next(steps)
        picture = training.draw("a dog", 1, Drawing(steps=2, guidance_scale=2.0, width=64, height=64))
        pixels.append(picture.tobytes())
        next(steps)
        training.finish()
    assert pixels[0] == pixels[1]
    assert_same(ours.family.pipe.unet.state_dict(), theirs.family.pipe.unet.state_dict())
    assert {value.dtype for value in ours.family.pipe.unet.state_dict().values()} == {torch.float32}


def test_an_average_is_saved_in_float32_though_its_weights_are_bfloat16(sd1, squares):  # noqa: F811
    """Rounded to bfloat16 it would lose what many small steps have moved."""
    plan = plan_for(weights="bf16", precision="bf16")
    training = start(sd1, TrainSettings(steps=2, ema=True), plan, squares)
    list(training.steps())
    average = {name: value.clone() for name, value in training.ema.state().items()}
    assert any(not torch.equal(value, value.bfloat16().float()) for value in average.values())
    training.finish()
    assert_same({f"unet.{name}": value for name, value in training.family.pipe.unet.state_dict().items()}, average)
