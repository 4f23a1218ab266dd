"""Training learns, stops where it should, and resumes to the bit."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from dreambooth_cli.engine.families.latent_diffusion import autocast, encode_frozen
from dreambooth_cli.engine.families.loading import DTYPES, forget_failed_attempt, load_family, place
from dreambooth_cli.engine.families.lora import quantize
from dreambooth_cli.engine.refusal import out_of_memory_words
from dreambooth_cli.engine.training.adamw import LeanAdamW
from dreambooth_cli.engine.training.checkpoint import ForeignCheckpoint, State, check_belongs
from dreambooth_cli.engine.training.examples import Example, encode_pictures
from dreambooth_cli.engine.training.loop import NotFinite, Training
from dreambooth_cli.errors import TrainingFailed
from dreambooth_cli.memory.plan import Plan
from dreambooth_cli.settings import TrainSettings
from tests import small_models
from tests.engine.plans import base_of, plan_for

PROMPTS = ["a photo of a sks dog", "a photo of a dog"]


def start(folder: Path, settings: TrainSettings, plan: Plan, pictures: Path, *, prior: bool = True) -> Training:
    """A run on the pictures in a folder, which also serve as class images."""
    family = load_family(base_of(folder), dtype=DTYPES[plan.weights], device=torch.device("cpu"))
    family.pipe.vae.float()
    if plan.quantized:
        quantize(family.pipe.unet, torch.bfloat16)
        place(family.pipe, family.record.networks, torch.device("cpu"))
    encoded = list(encode_pictures(family, sorted(pictures.iterdir())))
    kinds = ["instance", "class"] if prior and not settings.with_base_prior else ["instance"]
    examples = {kind: [Example(one, (row,)) for one in encoded] for row, kind in enumerate(kinds)}
    conditioning = None if plan.train_text_encoder else encode_frozen(family, PROMPTS)
    return Training(
        family,
        plan,
        settings,
        device=torch.device("cpu"),
        examples=examples,
        prompts=PROMPTS,
        conditioning=conditioning,
        plain=[1, 1],
    )


@pytest.fixture
def squares(photos, tmp_path):
    """The photos as 64 x 64 pictures."""
    from PIL import Image

    folder = tmp_path / "squares"
    folder.mkdir()
    for path in sorted(photos.iterdir()):
        with Image.open(path) as image:
            image.convert("RGB").resize((64, 64)).save(folder / f"{path.stem}.png")
    return folder


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({}, {}),
    "text encoder": ({"train_text_encoder": True, "text_encoder_stop": 4}, {}),
    "lora": ({"method": "lora", "train_text_encoder": True}, {"rank": 4}),
    "bf16 checkpointing": ({"precision": "bf16", "gradient_checkpointing": True}, {}),
    "fp16 scaler clipping": ({"precision": "fp16"}, {"max_grad_norm": 1.0}),
    "ema accumulation cosine": (
        {},
        {"ema": True, "gradient_accumulation": 2, "lr_schedule": "cosine", "warmup_steps": 2},
    ),
    "8 bit": ({"optimizer": "adamw8bit"}, {}),
    "lora, base in 4 bits": ({"method": "lora", "quantized": True, "precision": "bf16"}, {"rank": 4}),
    "lora of all layers": ({"method": "lora", "train_text_encoder": True}, {"rank": 4, "lora_layers": "all"}),
    "lora held against its base": (
        {"method": "lora", "train_text_encoder": True, "text_encoder_stop": 4, "precision": "fp16", "gradient_checkpointing": True},
        {"rank": 4, "prior": "base", "prior_every": 2, "gradient_accumulation": 2},
    ),
    "rows in turn": ({"rows_in_turn": True, "train_text_encoder": True}, {}),
    "state off the card": ({"off_card": True}, {}),
    "bf16 weights inside backward": (
        {"weights": "bf16", "precision": "bf16", "inside_backward": True, "gradient_checkpointing": True},
        {"ema": True},
    ),
    "bf16 weights 8 bit off the card": (
        {"weights": "bf16", "precision": "bf16", "optimizer": "adamw8bit", "off_card": True, "inside_backward": True},
        {},
    ),
}
LONG = ("8 bit", "bf16 checkpointing", "bf16 weights inside backward", "lora", "rows in turn", "state off the card")  # parts of the others


@pytest.mark.parametrize("variant", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in sorted(VARIANTS)])
@pytest.mark.slow
def test_three_and_three_are_six(variant, sd1, squares):
    """Weights, optimizer state and average after a resume in a fresh object: equal to the bit."""
    if "8" in variant or "4 bits" in variant:
        pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    changes, options = VARIANTS[variant]
    plan, settings = plan_for(**changes), TrainSettings(steps=6, **options)
    whole = start(sd1, settings, plan, squares)
    losses = [step.loss for step in whole.steps()]
    half = start(sd1, settings, plan, squares)
    steps = half.steps()
    first = [next(steps).loss for _ in range(3)]
    state = half.state()
    later = start(sd1, settings, plan, squares)
    later.load(state)
    assert first + [step.loss for step in later.steps()] == losses
    for kind in ("weights", "optimizer", "ema"):
        ours, theirs = getattr(later.state(), kind), getattr(whole.state(), kind)
        assert ours.keys() == theirs.keys()
        assert_close(ours, theirs, rtol=0, atol=0)


def test_float32_weights_come_into_a_bfloat16_plan_with_their_small_movements(sd1, squares):
    """A movement of a sixteenth of the last digit would be lost entirely if it were rounded to nearest."""
    whole = start(sd1, TrainSettings(), plan_for(), squares).state()
    before = {name: value.bfloat16().float() for name, value in whole.weights.items()}
    state = replace(whole, weights={name: value * (1 + 2**-12) for name, value in before.items()})
    half, again = (start(sd1, TrainSettings(), plan_for(weights="bf16", precision="bf16"), squares) for _ in range(2))
    half.load(state)
    again.load(state)
    loaded = half.state().weights
    assert_close(again.state().weights, loaded, rtol=0, atol=0)
    name = max(before, key=lambda name: before[name].numel())
    assert loaded[name].dtype == torch.bfloat16
    assert torch.equal(state.weights[name].bfloat16().float(), before[name])
    arrived = (loaded[name].float() - before[name]).abs().sum() / before[name].abs().sum()
    assert 0.8 < arrived * 2**12 < 1.2


@pytest.mark.parametrize("place", ["in a kernel", "in a step inside backward"])
def test_what_ran_out_of_memory_leaves_it(place, sd1, squares, monkeypatch):
    """In the middle of backward, by an allocation too large for any machine: hooks and their weights refer to each other, a traceback
    holds the rest, and an error raised out of a hook holds all of the graph that is still to come."""
    plan = plan_for(weights="bf16", precision="bf16", inside_backward=place != "in a kernel")
    gc.disable()
    try:
        training = start(sd1, TrainSettings(), plan, squares)
        held = [weakref.ref(parameter) for parameter in training.trained.values()]
        run_out_in_backward(training, place, monkeypatch)
        del training
        forget_failed_attempt()
        assert all(parameter() is None for parameter in held)
    finally:
        gc.enable()


def run_out_in_backward(training, place, monkeypatch):
    """A step whose backward pass runs out of memory."""
    middle = training.family.pipe.unet.mid_block.resnets[0]
    if place == "in a kernel":
        middle.register_forward_hook(lambda module, given, made: made + made.sum().expand(10**15)[0])
    else:
        whole = LeanAdamW.step_one

        def step_one(self, parameter):
            if parameter is middle.conv1.weight:
                torch.empty(10**15)
            whole(self, parameter)

        monkeypatch.setattr(LeanAdamW, "step_one", step_one)
    with pytest.raises(RuntimeError, match="allocate") as caught:
        list(training.steps())
    assert out_of_memory_words(caught.value)
    monkeypatch.undo()


def test_what_is_trained_moves_and_what_is_not_stays(sd1, squares):
    frozen = start(sd1, TrainSettings(steps=2), plan_for(), squares)
    text = {name: value.clone() for name, value in frozen.family.pipe.text_encoder.state_dict().items()}
    before = {name: value.clone() for name, value in frozen.state().weights.items()}
    list(frozen.steps())
    assert_close(dict(frozen.family.pipe.text_encoder.state_dict()), text, rtol=0, atol=0)
    assert sum(not torch.equal(value, before[name]) for name, value in frozen.state().weights.items()) > 0.9 * len(
        before
    )


def test_the_text_encoder_stops_where_it_is_told(sd1, squares):
    training = start(sd1, TrainSettings(steps=5), plan_for(train_text_encoder=True, text_encoder_stop=2), squares)
    steps = training.steps()
    next(steps), next(steps)
    before = {name: value.clone() for name, value in training.state().weights.items()}
    list(steps)
    after = training.state().weights
    text = [name for name in before if name.startswith("text_encoder")]
    assert_close([after[name] for name in text], [before[name] for name in text], rtol=0, atol=0)
    assert not all(torch.equal(after[name], before[name]) for name in before if name.startswith("unet"))


def test_prompts_of_a_text_encoder_that_has_stopped_are_encoded_once(sd1, squares):
    """The losses are the same as if they were encoded again in each step."""
    settings, plan = TrainSettings(steps=5), plan_for(train_text_encoder=True, text_encoder_stop=2)
    once, again = (start(sd1, settings, plan, squares) for _ in range(2))
    losses = [step.loss for step in once.steps()]
    kept = once.conditioning
    assert kept is not None
    assert not kept.embeddings.requires_grad
    others = []
    for step in again.steps():
        others.append(step.loss)
        again.conditioning = None
    assert losses == others


def test_the_base_reads_by_its_own_text_encoder_when_the_trained_one_has_stopped(sd1, squares):
    settings = TrainSettings(steps=4, rank=4, prior="base", prior_every=1)
    training = start(sd1, settings, plan_for(method="lora", train_text_encoder=True, text_encoder_stop=2), squares)
    of_base = encode_frozen(training.family, PROMPTS)  # the second matrices are still zero
    list(training.steps())
    assert_close(training.of_base.embeddings, of_base.embeddings, rtol=0, atol=0)
    assert not torch.equal(training.conditioning.embeddings, of_base.embeddings)


def test_a_prior_of_the_base_that_is_not_finite_stops_before_the_weights_move(sd1, squares):
    settings = TrainSettings(steps=4, rank=4, prior="base", prior_every=2)
    training = start(sd1, settings, plan_for(method="lora"), squares)
    steps, own = training.steps(), training.loss_of_base_prior
    next(steps)
    before = {name: value.clone() for name, value in training.state().weights.items()}
    training.loss_of_base_prior = lambda batch: own(batch) * float("nan")
    with pytest.raises(NotFinite, match="step 2"):
        next(steps)
    assert_close(training.state().weights, before, rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("base", ["sd1", "sd2", "sdxl"])
def test_prompts_are_encoded_as_the_pipeline_does_it(base, precision, request):
    """To the bit, even one that is too long; each is tokenized once."""
    family = load_family(base_of(request.getfixturevalue(base)), dtype=torch.float32, device=torch.device("cpu"))
    prompts = ["a photo of a sks dog", "a dog " * 100, ""]
    with autocast(precision, torch.device("cpu")):
        ours = encode_frozen(family, prompts)
        made = family.pipe.encode_prompt(prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        theirs = [one for one in made if one is not None]
    assert torch.equal(ours.embeddings, theirs[0])
    assert ours.embeddings.dtype == theirs[0].dtype
    if ours.pooled is not None:
        assert torch.equal(ours.pooled, theirs[1])
    held = dict(family.tokens)
    encode_frozen(family, prompts[:1])
    assert all(family.tokens[key] is value for key, value in held.items())


def test_the_average_of_what_has_stopped_is_still_an_average(sd1, squares):
    settings = TrainSettings(steps=4, ema=True)
    training = start(sd1, settings, plan_for(train_text_encoder=True, text_encoder_stop=2), squares)
    list(training.steps())
    state = training.state()
    names = [name for name in state.weights if name.startswith("text_encoder")]
    assert any(not torch.equal(state.ema[name], state.weights[name]) for name in names)


def test_two_batches_of_one_are_one_batch_of_two(sd1, squares):
    """Accumulation: the same random numbers, and the same gradient up to the rounding of another split."""
    one = start(sd1, TrainSettings(steps=1, batch_size=2), plan_for(), squares)
    two = start(sd1, TrainSettings(steps=1, gradient_accumulation=2), plan_for(), squares)
    assert next(one.steps()).loss == pytest.approx(next(two.steps()).loss, rel=1e-5)


def test_a_base_in_4_bits_takes_half_a_byte_a_value_and_still_predicts_the_same(sd1):
    pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    family = load_family(base_of(sd1), dtype=torch.float32, device=torch.device("cpu"))
    unet, cpu = family.pipe.unet, torch.device("cpu")
    values = sum(layer.weight.numel() for layer in unet.modules() if type(layer) is torch.nn.Linear)
    noisy, timesteps = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([5, 500])
    conditioning = encode_frozen(family, PROMPTS)
    with torch.no_grad():
        whole = family.predict(noisy, timesteps, conditioning)
        quantize(unet, torch.float32)
        place(family.pipe, family.record.networks, cpu)
        small = family.predict(noisy, timesteps, conditioning)
    assert sum(layer.weight.nbytes for layer in unet.modules() if type(layer).__name__ == "Linear4bit") == values // 2
    assert (small - whole).abs().mean() < 0.2 * whole.abs().mean()
    assert not torch.equal(small, whole)


def test_a_layer_in_4_bits_answers_in_the_format_of_its_product():
    """As a linear layer does under autocast; otherwise everything between a norm and the next layer would be kept in float32."""
    pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    layers = torch.nn.Sequential(torch.nn.Linear(64, 128))
    quantize(layers, torch.bfloat16)
    states = torch.randn(3, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    answer = layers.to("cpu")(states)
    assert answer.dtype == torch.bfloat16
    answer.float().sum().backward()
    assert states.grad.dtype == torch.float32


def test_rows_in_turn_are_rows_together(sd1, squares):
    """The same random numbers, and the same gradient up to the rounding of another split."""
    together = start(sd1, TrainSettings(steps=1), plan_for(train_text_encoder=True), squares)
    in_turn = start(sd1, TrainSettings(steps=1), plan_for(train_text_encoder=True, rows_in_turn=True), squares)
    assert next(together.steps()).loss == pytest.approx(next(in_turn.steps()).loss, rel=1e-5)
    ours, theirs = in_turn.update.state(), together.update.state()
    for name, moment in theirs.items():
        if name.endswith("|exp_avg"):
            assert torch.allclose(ours[name], moment, rtol=1e-3, atol=1e-7), name


def test_losses_read_late_are_the_same_losses_a_step_later(sd1, squares):
    """As on a GPU, where only the first and the last step report their own loss."""
    at_once = [step.loss for step in start(sd1, TrainSettings(steps=5), plan_for(), squares).steps()]
    training = start(sd1, TrainSettings(steps=5), plan_for(), squares)
    training.reads_late = True
    assert [step.loss for step in training.steps()] == [at_once[place] for place in (0, 0, 1, 2, 4)]


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(sd1, squares):
    training = start(sd1, TrainSettings(steps=50), plan_for(learning_rate=1e30), squares)
    weights = None
    with pytest.raises(TrainingFailed) as caught:
        for _ in training.steps():
            weights = {name: value.clone() for name, value in training.state().weights.items()}
    assert caught.value.exit_code == 7
    assert "not finite at step" in caught.value.message
    assert weights is not None
    assert all(
        torch.equal(value, weights[name]) or value.isnan().any() for name, value in training.state().weights.items()
    )


def fixed_loss(training):
    """The loss at a fixed set of noises and timesteps that no step of the run has used."""
    with torch.no_grad():
        return sum(float(training.batch_loss(batch)) for step in range(10_000, 10_016) for batch in training.batches(step, 0)) / 16


@pytest.mark.long
def test_it_learns(tmp_path, squares):
    """A base of about 10 M random weights, trained for 200 steps on five photos at 5e-4, a learning rate for training from scratch: the
    loss at fixed noises and timesteps at least halves."""
    folder = small_models.build("sd1", tmp_path / "base", width=112)
    settings = TrainSettings(steps=200, lr_schedule="constant_with_warmup", warmup_steps=20)
    training = start(folder, settings, plan_for(learning_rate=5e-4), squares, prior=False)
    before = fixed_loss(training)
    list(training.steps())
    assert fixed_loss(training) <= before / 2


@pytest.mark.parametrize("settings", [{}, {"ema": True}])
def test_for_the_last_save_only_the_weights_are_left(settings, sd1, squares):
    training = start(sd1, TrainSettings(steps=1, **settings), plan_for(), squares)
    list(training.steps())
    assert len(training.update.optimizer.state) == len(training.trained)
    before = {name: value.clone() for name, value in training.trained.items()}
    training.finish()
    training.let_state_go()
    assert not training.update.optimizer.state
    assert training.ema is None
    assert all(parameter.grad is None for parameter in training.trained.values())
    if not settings:
        assert_close(dict(training.trained), before, rtol=0, atol=0)


TRAINED = {"unet.a": torch.zeros(3, 4), "unet.b": torch.zeros(2)}
BELONGS = State(4, dict(TRAINED), {"unet.a|exp_avg": torch.zeros(3, 4), "scaler|scale": torch.ones(())}, {})
FOREIGN = {
    "after the run's last step": replace(BELONGS, step=9),
    "a weight less": replace(BELONGS, weights={"unet.a": torch.zeros(3, 4)}),
    "a weight more": replace(BELONGS, weights=TRAINED | {"unet.c": torch.zeros(2)}),
    "another shape": replace(BELONGS, weights=TRAINED | {"unet.b": torch.zeros(1, 2)}),
    "an average": replace(BELONGS, ema=dict(TRAINED)),
    "an optimizer of another weight": replace(BELONGS, optimizer={"unet.c|exp_avg": torch.zeros(2)}),
    "an optimizer of another shape": replace(BELONGS, optimizer={"unet.b|exp_avg": torch.zeros(3)}),
    "an optimizer of nothing": replace(BELONGS, optimizer={"x": torch.zeros(3)}),
}


@pytest.mark.parametrize("state", FOREIGN.values(), ids=FOREIGN)
def test_a_checkpoint_of_another_run_is_told_by_its_tensors(state: State) -> None:
    check_belongs(BELONGS, TRAINED, steps=8, averaged=False)
    with pytest.raises(ForeignCheckpoint):
        check_belongs(state, TRAINED, steps=8, averaged=False)
    with pytest.raises(ForeignCheckpoint):
        check_belongs(BELONGS, TRAINED, steps=8, averaged=True)


@pytest.mark.parametrize(
    ("plan", "settings", "fails_after"),
    [
        ({}, {}, 2),
        ({}, {"lr_schedule": "constant_with_warmup", "warmup_steps": 3}, 3),  # the first of them has a rate of zero
        ({"optimizer": "adamw8bit"}, {}, 2),
        ({"precision": "fp16"}, {}, 2),
        ({"train_text_encoder": True}, {}, 2),
    ],
)
def test_a_lora_weight_that_the_loss_does_not_reach_is_named_after_two_updates(plan, settings, fails_after, sd1, squares):
    """One layer's output does not depend on its LoRA; all others learn."""
    asked = TrainSettings(steps=6, rank=4, learning_rate=1e-3, lora_layers="all", **settings)
    training = start(sd1, asked, plan_for(method="lora", **plan), squares)
    layer = training.family.pipe.unet.get_submodule("mid_block.resnets.0.conv1")
    layer.lora_B["default"].register_forward_hook(lambda module, given, answer: answer.detach())
    done = []
    with pytest.raises(TrainingFailed, match=r"2 of \d+ LoRA weights") as caught:
        done += [step.number for step in training.steps()]
    assert "mid_block.resnets.0.conv1.lora_A" in caught.value.message
    assert training.step == fails_after
    assert caught.value.exit_code == 7


def test_steps_that_the_scaler_skips_are_no_updates(sd1, squares):
    """Gradients overflow in the first steps, so none is missing yet."""
    asked = TrainSettings(steps=5, rank=4, learning_rate=1e-3)
    training = start(sd1, asked, plan_for(method="lora", precision="fp16"), squares)
    training.update.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    assert len(list(training.steps())) == 5
