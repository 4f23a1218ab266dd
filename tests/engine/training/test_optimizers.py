"""Updates: their state is saved and restored without loss, and learning rates and clipping do what they say."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dreambooth_cli.engine.training.optimizers import Update, rates_of

CPU = torch.device("cpu")


def make(kind="adamw", *, scaled=False, clip=0.0, seed=0, dtype=torch.float32, **form):
    """Two groups of weights, one large enough for 8-bit blocks, and their update."""
    generator = torch.Generator().manual_seed(seed)
    first = {
        "unet.a": nn.Parameter(torch.randn(80, 80, generator=generator).to(dtype)),
        "unet.b": nn.Parameter(torch.randn(3, generator=generator).to(dtype)),
    }
    second = {"text.c": nn.Parameter(torch.randn(5, generator=generator).to(dtype))}
    update = Update(
        [first, second], kind=kind, weight_decay=0.01, max_grad_norm=clip, scaled=scaled, device=CPU, **form
    )
    return {**first, **second}, update


def run(parameters, update, steps, rates=(1e-2, 1e-3)):
    for step in steps:
        generator = torch.Generator().manual_seed(100 + step)
        loss = sum((p * torch.randn(p.shape, generator=generator)).sum() for p in parameters.values())
        update.begin(rates)
        update.backward(loss)
        update.step()


FORMS = [
    {},
    {"scaled": True},
    {"dtype": torch.bfloat16},
    {"dtype": torch.bfloat16, "inside_backward": True},
    {"inside_backward": True},
    {"off_card": True},
    {"dtype": torch.bfloat16, "inside_backward": True, "off_card": True},
]


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
@pytest.mark.parametrize("form", FORMS)
def test_state_goes_on_to_the_bit(kind, form):
    if kind == "adamw8bit":
        pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    whole, update = make(kind, **form)
    run(whole, update, range(6))
    half, update = make(kind, **form)
    run(half, update, range(3))
    state = {key: value.clone() for key, value in update.state().items()}
    later, fresh = make(kind, **form)
    for name, parameter in later.items():
        parameter.data.copy_(half[name].data)
    fresh.load(state)
    run(later, fresh, range(3, 6))
    assert_close(later, whole, rtol=0, atol=0)


@pytest.mark.parametrize(("before", "after"), [({}, {"off_card": True}), ({"off_card": True}, {})])
def test_state_moves_off_the_card_and_back_without_loss(before, after):
    """A plan that takes one more means in the middle of a run goes on with the same state."""
    whole, update = make(**before)
    run(whole, update, range(6))
    half, update = make(**before)
    run(half, update, range(3))
    later, fresh = make(**after)
    for name, parameter in later.items():
        parameter.data.copy_(half[name].data)
    fresh.load({key: value.clone() for key, value in update.state().items()})
    run(later, fresh, range(3, 6))
    assert_close(later, whole, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_inside_backward_is_the_step_after_it(kind, dtype):
    if kind == "adamw8bit":
        pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    after, update = make(kind, dtype=dtype)
    run(after, update, range(3))
    inside, update = make(kind, dtype=dtype, inside_backward=True)
    run(inside, update, range(3))
    for name, parameter in inside.items():
        assert parameter.grad is None
        assert torch.equal(parameter, after[name]), name


def test_each_group_has_its_own_rate():
    parameters, update = make()
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    run(parameters, update, [0], rates=(1e-2, 0.0))
    assert not torch.equal(parameters["unet.a"], before["unet.a"])
    assert torch.equal(parameters["text.c"], before["text.c"])


@pytest.mark.parametrize("scaled", [False, True])
def test_clipping_holds_the_norm_of_all_gradients(scaled):
    """After one step Adam's first moment is a tenth of the gradient that it was given, with the fp16 scale removed."""
    parameters, update = make(clip=0.5, scaled=scaled)
    run(parameters, update, [0])
    moments = [value for key, value in update.state().items() if key.endswith("|exp_avg")]
    assert math.sqrt(sum(float(moment.square().sum()) for moment in moments)) == pytest.approx(0.05, rel=1e-4)


def test_a_scaled_step_that_overflows_is_left_out_and_the_scale_halved():
    parameters, update = make(scaled=True)
    before = parameters["unet.a"].detach().clone()
    scale = update.scaler.get_scale()
    update.begin([1e-2, 1e-2])
    update.backward((parameters["unet.a"] * float("inf")).sum())
    update.step()
    assert torch.equal(parameters["unet.a"], before)
    assert update.scaler.get_scale() == scale / 2


@pytest.mark.parametrize(
    "schedule", ["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
)
def test_schedules_are_functions_of_the_step(schedule):
    rate = rates_of(schedule, warmup_steps=0 if schedule == "constant" else 10, steps=100)
    factors = [rate(step) for step in range(100)]
    assert factors == [rate(step) for step in range(100)]
    assert all(0 <= factor <= 1 for factor in factors)
    if schedule != "constant":
        assert factors[0] == 0
        assert factors[5] == pytest.approx(0.5)
    if schedule == "linear":
        assert factors[55] == pytest.approx(0.5)
    if schedule == "cosine":
        assert factors[55] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)))
