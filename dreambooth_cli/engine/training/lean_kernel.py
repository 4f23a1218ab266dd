"""The lean AdamW's update of one tensor as a single GPU kernel: state read from 8 bits, the step, state written back to 8 bits, weights
rounded stochastically. It moves about 10 bytes a value through the card's memory; the plain form in `adamw.py` moves ten times that.

Triton comes only with PyTorch's Linux builds for CUDA, so this module is imported only where it is used.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256  # values that share a scale in 8-bit state
ROWS = 8  # blocks that one program updates
DRAWN = ["seed", "decay", "rate", "root"]  # these change from step to step: no kernel is compiled for each of their values


@triton.jit
def _nearest(values, codes):
    """The index of the nearest of 256 sorted codes; of two that are equally near, the lower one."""
    low = tl.zeros_like(values).to(tl.int32)
    high = low + 255
    for _ in tl.static_range(8):
        middle = (low + high) // 2
        above = values > tl.load(codes + middle)
        low = tl.where(above, middle, low)
        high = tl.where(above, high, middle)
    is_lower = values - tl.load(codes + low) <= tl.load(codes + high) - values
    return tl.where(is_lower, low, high)


@triton.jit
def _opened(state, scales, codes, places, inside, blocks, held, EIGHT_BIT: tl.constexpr):
    """A moment in float32."""
    if EIGHT_BIT:
        code = tl.load(state + places, mask=inside, other=0).to(tl.int32)
        scale = tl.load(scales + blocks, mask=held, other=0.0)
        moment = tl.load(codes + code) * scale[:, None]
    else:
        moment = tl.load(state + places, mask=inside, other=0.0)
    return moment  # a single `return`: the compiler checks all of them, even those that this form never reaches


@triton.jit
def _close(moment, state, scales, codes, places, inside, blocks, held, EIGHT_BIT: tl.constexpr):
    """Store a moment: in 8 bits, scaled by the largest value of each block, or in float32."""
    if EIGHT_BIT:
        scale = tl.max(tl.abs(tl.where(inside, moment, 0.0)), axis=1)
        divisor = tl.where(scale > 0.0, scale, 1.0)
        tl.store(scales + blocks, scale, mask=held)
        tl.store(state + places, _nearest(moment / divisor[:, None], codes).to(tl.uint8), mask=inside)
    else:
        tl.store(state + places, moment, mask=inside)


@triton.jit(do_not_specialize=DRAWN)
def _step(
    weights, gradients, state1, state2, scales1, scales2, codes1, codes2, count, seed, decay, rate, root,
    beta1: tl.constexpr, beta2: tl.constexpr, eps: tl.constexpr,
    EIGHT_BIT: tl.constexpr, ROUND: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    blocks = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    places = blocks[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside, held = places < count, blocks * BLOCK < count
    gradient = tl.load(gradients + places, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weights + places, mask=inside, other=0.0).to(tl.float32)
    first = _opened(state1, scales1, codes1, places, inside, blocks, held, EIGHT_BIT)
    second = _opened(state2, scales2, codes2, places, inside, blocks, held, EIGHT_BIT)
    first = first * beta1 + gradient * (1 - beta1)
    second = second * beta2 + gradient * gradient * (1 - beta2)
    weight = weight * decay - rate * (first / (tl.sqrt(second) / root + eps))
    _close(first, state1, scales1, codes1, places, inside, blocks, held, EIGHT_BIT)
    _close(second, state2, scales2, codes2, places, inside, blocks, held, EIGHT_BIT)
    if ROUND:
        bits = weight.to(tl.int32, bitcast=True)
        noise = (tl.randint(seed, places) & 0xFFFF).to(tl.int32)
        rounded = ((bits + noise) & -65536).to(tl.float32, bitcast=True)
        # in a NaN of all ones the sum would overflow to 0
        weight = tl.where(tl.abs(weight) < float("inf"), rounded, weight)
    tl.store(weights + places, weight.to(weights.dtype.element_ty), mask=inside)


@torch.library.custom_op("dreambooth::lean_adamw", mutates_args=("weights", "state1", "state2", "scales1", "scales2"))
def lean_adamw(
    weights: Tensor,
    gradients: Tensor,
    state1: Tensor,
    state2: Tensor,
    scales1: Tensor | None,
    scales2: Tensor | None,
    codes1: Tensor | None,
    codes2: Tensor | None,
    seed: int,
    step: int,
    rate: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """AdamW's step number `step` (from 1) on flat `weights` [n], bfloat16 or float32, in place. `state1` and `state2` [n] are the moments:
    float32, or uint8 codes with `scales1`, `scales2` [n / 256, rounded up] and the 256 values `codes1`, `codes2` that the codes stand
    for. `rate` is the learning rate; `seed` decides the rounding of bfloat16 weights."""
    count = weights.numel()
    _step[(triton.cdiv(count, BLOCK * ROWS),)](
        weights, gradients, state1, state2, scales1, scales2, codes1, codes2,
        count, seed & 0x7FFFFFFF, 1 - rate * weight_decay, rate / (1 - beta1**step), math.sqrt(1 - beta2**step),
        beta1, beta2, eps,
        EIGHT_BIT=state1.dtype == torch.uint8, ROUND=weights.dtype == torch.bfloat16, BLOCK=BLOCK, ROWS=ROWS,
    )  # fmt: skip


@lean_adamw.register_fake
def _(*_: object) -> None:
    """For tracing: nothing is returned, the tensors are changed in place."""
