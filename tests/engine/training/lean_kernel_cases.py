"""The lean AdamW's GPU kernel in Triton's interpreter on a CPU, compared with the formulas written out by hand and with the plain form.
`test_lean_kernel.py` runs these in a process with the interpreter."""

from math import sqrt

import numpy as np
import pytest
import torch
from torch import nn

from dreambooth_cli.engine.training.adamw import LeanAdamW, _eight_bit_maps, difference_of_forms
from dreambooth_cli.engine.training.lean_kernel import lean_adamw

RATE, DECAY, BETAS, EPS = 1e-3, 0.01, (0.9, 0.999), 1e-8
COUNT = 2500  # the last block is a part, the last program too


def drawn(seed, scale=1.0):
    return torch.randn(COUNT, generator=torch.Generator().manual_seed(seed)) * scale


def reference(weights, gradients, maps):
    """AdamW's steps in float32, one operation at a time. If there are `maps`, moments are kept in 8 bits: scaled by the largest of each 256
    values, as the nearest code, the lower of two that are equally near."""
    w, one = weights.numpy().copy(), np.float32
    first, second = np.zeros_like(w), np.zeros_like(w)
    for step, gradient in enumerate(gradients, 1):
        g = gradient.numpy()
        first = first * one(BETAS[0]) + g * one(1 - BETAS[0])
        second = second * one(BETAS[1]) + g * g * one(1 - BETAS[1])
        rate, root = one(RATE / (1 - BETAS[0] ** step)), one(sqrt(1 - BETAS[1] ** step))
        w = w * one(1 - RATE * DECAY) - rate * (first / (np.sqrt(second) / root + one(EPS)))
        if maps:
            first, second = kept(first, maps[0].numpy()), kept(second, maps[1].numpy())
    return w, first, second


def kept(moment, codes):
    """A moment after going through 8 bits."""
    out = np.empty_like(moment)
    for start in range(0, len(moment), 256):
        block = moment[start : start + 256]
        scale = np.abs(block).max()
        near = np.abs((block / scale)[:, None] - codes[None]).argmin(axis=1)
        out[start : start + 256] = codes[near] * scale
    return out


def moments_of(maps):
    if maps is None:
        return [torch.zeros(COUNT), torch.zeros(COUNT), None, None]
    blocks = -(-COUNT // 256)
    return [*(torch.zeros(COUNT, dtype=torch.uint8) for _ in range(2)), *(torch.zeros(blocks) for _ in range(2))]


def step(weights, gradient, moments, maps, number, seed=0):
    codes = maps or (None, None)
    lean_adamw(weights, gradient, *moments, *codes, seed, number, RATE, DECAY, *BETAS, EPS)


def maps_of(bits):
    if bits == 32:
        return None
    pytest.importorskip("bitsandbytes", reason="the 8bit extra is not installed")
    return _eight_bit_maps()


@pytest.mark.parametrize("bits", [32, 8])
def test_it_is_the_formula_to_the_bit(bits):
    """Without random rounding: three steps of float32 weights, and the moments after them."""
    maps = maps_of(bits)
    weights, gradients = drawn(0), [drawn(seed, 1e-2) for seed in (1, 2, 3)]
    ours, moments = weights.clone(), moments_of(maps)
    for number, gradient in enumerate(gradients, 1):
        step(ours, gradient, moments, maps, number)
    wanted, first, second = reference(weights, gradients, maps)
    opened = moments[:2]
    if maps:
        scales = [scale.repeat_interleave(256)[:COUNT] for scale in moments[2:]]
        opened = [one[code.long()] * scale for one, code, scale in zip(maps, moments[:2], scales, strict=True)]
    for name, held, value in (("weights", ours, wanted), ("first", opened[0], first), ("second", opened[1], second)):
        assert torch.equal(held, torch.from_numpy(value)), name


@pytest.mark.parametrize("bits", [32, 8])
def test_it_agrees_with_the_plain_form_and_one_that_does_not_is_told(bits):
    def twice_as_fast(*arguments):
        lean_adamw(*arguments[:10], arguments[10] * 2, *arguments[11:])

    def moments_exchanged(weights, gradient, first, second, *rest):
        lean_adamw(weights, gradient, first, second, *rest)
        if rest[0] is None:
            first.add_(0.1)
        else:
            first.add_(8)

    def scales_halved(*arguments):
        lean_adamw(*arguments)
        if arguments[4] is not None:
            arguments[5].mul_(0.5)

    def state_not_opened(weights, gradient, first, second, *rest):
        first.zero_()
        lean_adamw(weights, gradient, first, second, *rest)

    maps, device = maps_of(bits), torch.device("cpu")
    assert difference_of_forms(lean_adamw, device, maps) == ""
    assert difference_of_forms(twice_as_fast, device, maps) == "it moves the weights differently"
    assert "differs" in difference_of_forms(moments_exchanged, device, maps)
    assert difference_of_forms(state_not_opened, device, maps) != ""
    if maps:
        assert difference_of_forms(scales_halved, device, maps) == "its absmax2 differs"


def test_bfloat16_weights_go_to_a_neighbour_and_their_mean_is_the_value():
    weights, gradient = drawn(0).bfloat16(), drawn(1).bfloat16()
    exact = weights.float()
    step(exact, gradient.float(), moments_of(None), None, 1)
    tried = []
    for seed in range(64):
        ours = weights.clone()
        step(ours, gradient, moments_of(None), None, 1, seed)
        tried.append(ours.float())
    unit = 2.0 ** (exact.abs().log2().floor() - 7)
    assert all(((one - exact).abs() < unit).all() for one in tried)
    assert not torch.equal(tried[0], tried[1])
    # of 64 draws of at most half a unit's deviation each, over 2,500 values: four standard errors
    error = ((torch.stack(tried).mean(0) - exact) / unit).mean()
    assert abs(error) < 4 * 0.5 / sqrt(64 * COUNT)


def test_what_is_no_number_stays_none():
    weights = torch.full((COUNT,), float("nan")).bfloat16()
    weights[::2] = float("-inf")
    step(weights, torch.zeros(COUNT).bfloat16(), moments_of(None), None, 1)
    assert weights[1::2].isnan().all()
    assert not weights[::2].isfinite().any()


def test_a_run_by_the_kernel_goes_on_to_the_bit():
    """The optimizer itself, with bfloat16 weights and, where bitsandbytes is installed, 8-bit state: three steps, then three more."""
    def made(values):
        parameter = nn.Parameter(values.clone())
        lean = LeanAdamW(
            [[parameter]], names={parameter: "a"}, weight_decay=DECAY, eight_bit=False, off_card=False, seed=3
        )
        lean.kernel, lean.is_chosen = lean_adamw, True
        lean.param_groups[0]["lr"] = RATE
        return parameter, lean

    def run(parameter, lean, steps):
        for number in steps:
            parameter.grad = drawn(number).bfloat16().view_as(parameter)
            lean.step()

    start = drawn(0).bfloat16().view(50, 50)
    whole, lean = made(start)
    run(whole, lean, range(6))
    half, lean = made(start)
    run(half, lean, range(3))
    later, fresh = made(half.detach())
    fresh.state[later] |= {name: value if name == "step" else value.clone() for name, value in lean.state[half].items()}
    run(later, fresh, range(3, 6))
    assert torch.equal(later, whole)
