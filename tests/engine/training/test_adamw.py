"""AdamW one tensor at a time: compared with torch's own and bitsandbytes', and what rounding does to small steps."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dreambooth_cli.engine.training.adamw import LeanAdamW, round_stochastically

RATE, DECAY = 1e-2, 0.01


def weights(dtype=torch.float32, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (80, 80), "b": (3,), "c": (16, 8, 3, 3)}
    return {name: nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for name, shape in shapes.items()}


def give_gradients(parameters, step):
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def lean(parameters, *, eight_bit=False, off_card=False, seed=0, rate=RATE):
    names = {parameter: name for name, parameter in parameters.items()}
    made = LeanAdamW([list(names)], names=names, weight_decay=DECAY, eight_bit=eight_bit, off_card=off_card, seed=seed)
    made.param_groups[0]["lr"] = rate
    return made


def run(parameters, optimizer, steps=6):
    for step in range(steps):
        give_gradients(parameters, step)
        optimizer.step()
    return parameters


@pytest.fixture(autouse=True, params=[1 << 23, 1024], ids=["whole", "in pieces"])
def pieces(request, monkeypatch):
    """Whole tensors, and tensors cut into pieces that do not divide them evenly."""
    monkeypatch.setattr("dreambooth_cli.engine.training.adamw.PIECE", request.param)


@pytest.mark.parametrize("off_card", [False, True])
def test_in_float32_it_is_torchs_adamw_to_the_bit(off_card):
    ours = weights()
    run(ours, lean(ours, off_card=off_card))
    theirs = weights()
    run(theirs, torch.optim.AdamW(theirs.values(), lr=RATE, weight_decay=DECAY, fused=True))
    assert_close(ours, theirs, rtol=0, atol=0)


def test_in_8_bits_it_is_bitsandbytes_own_to_the_bit():
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    ours, theirs = weights(), weights()
    run(ours, lean(ours, eight_bit=True))
    run(theirs, bitsandbytes.optim.AdamW8bit(list(theirs.values()), lr=RATE, weight_decay=DECAY))
    assert torch.equal(ours["a"], theirs["a"])
    assert torch.allclose(ours["b"], theirs["b"], rtol=1e-5)  # small tensors: float32 state, another kernel


def test_rounding_has_the_value_as_its_mean_and_picks_a_neighbour():
    value = torch.tensor(1.0 + 2**-10)  # an eighth of the way between two bfloat16 values, which lie 2**-7 apart
    rounded = round_stochastically(value.repeat(200_000), torch.Generator().manual_seed(0)).double()
    assert set(rounded.unique().tolist()) == {1.0, 1.0 + 2**-7}
    assert rounded.mean().item() == pytest.approx(1.0 + 2**-10, abs=3 * 2**-7 * (0.125 * 0.875 / 200_000) ** 0.5)


def test_rounding_leaves_what_bfloat16_holds_and_what_is_no_number():
    exact = torch.tensor([0.0, -0.0, 1.5, -3.0, float("inf"), float("-inf")])
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        assert torch.equal(round_stochastically(exact, generator).float(), exact)
        # NaN as a CPU makes it, as a GPU does, and with the sign
        kinds = torch.tensor([0x7FC00000, 0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32)
        assert round_stochastically(kinds, generator).isnan().all()


def test_bfloat16_weights_move_as_float32_ones_do_though_a_step_is_a_hundredth_of_their_last_digit():
    """The next bfloat16 value above 1 is 2**-7 away; a step of 5e-5 is 0.6% of that."""
    parameter = nn.Parameter(torch.ones(200, 200, dtype=torch.bfloat16))
    optimizer = lean({"a": parameter}, rate=5e-5)
    nearest = parameter.detach().clone()
    for _ in range(100):
        parameter.grad = torch.full_like(parameter, -1.0)
        optimizer.step()
        nearest += 5e-5  # what rounding to nearest makes of the same steps
    assert nearest.float().mean().item() == 1.0
    assert parameter.float().mean().item() == pytest.approx(1 + 100 * 5e-5 * (1 - DECAY), rel=2e-4)


def test_the_rounding_of_a_step_follows_from_seed_step_and_name_alone():
    first, second, other = (weights(torch.bfloat16) for _ in range(3))
    run(first, lean(first))
    run(second, lean(second, off_card=True))
    run(other, lean(other, seed=1))
    assert_close(first, second, rtol=0, atol=0)
    assert not torch.equal(first["a"], other["a"])
