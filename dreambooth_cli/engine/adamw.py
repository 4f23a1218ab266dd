"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2) one tensor at a time, for where memory is short.

Weights may lie in bfloat16: each tensor is updated in float32 and rounded stochastically, so that steps much smaller than
its last digit still move it on average (rounded to nearest they would not move at all). The two moments may take 8 bits
(Dettmers et al. 2022, arXiv 2110.02861; bitsandbytes' kernel, on the float32 copy, since on bfloat16 weights it rounds to
nearest itself) and may lie in the machine's memory instead of the card's.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from ..errors import UsageError
from ..memory import INSTALL_8BIT
from .draws import seed_of

BETAS = (0.9, 0.999)
EPS = 1e-8
BLOCK = 256  # values that share a scale in 8-bit state
PIECE = 1 << 23  # values of a tensor that are updated at a time; a multiple of BLOCK
SMALL = 4096  # tensors below have float32 state, as bitsandbytes keeps them: they weigh nothing and err most


class LeanAdamW(torch.optim.Optimizer):
    """State by parameter: `step` (a Python int) and either `exp_avg`, `exp_avg_sq` in float32 or `state1`, `state2` in 8 bits with
    their scales `absmax1`, `absmax2`."""

    def __init__(
        self,
        groups: list[list[nn.Parameter]],
        *,
        names: Mapping[Tensor, str],
        weight_decay: float,
        eight_bit: bool,
        off_card: bool,
        seed: int,
    ) -> None:
        """`names` and `seed` decide how each tensor's rounding is drawn. Raises UsageError without bitsandbytes."""
        super().__init__([{"params": group} for group in groups], {"lr": 0.0, "weight_decay": weight_decay})
        self.names, self.seed = names, seed
        self.eight_bit, self.off_card = eight_bit, off_card
        self.rates = {parameter: group for group in self.param_groups for parameter in group["params"]}
        self.maps = _eight_bit_maps() if eight_bit else None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # without a closure there is no loss to return
        """Every parameter that has a gradient."""
        for parameter in self.rates:
            if parameter.grad is not None:
                self.step_one(parameter)

    @torch.no_grad()
    def step_one(self, parameter: Tensor) -> None:
        """One parameter by its gradient, a piece after the other, so that the float32 copies stay small."""
        slots = self.state[parameter]
        if not slots:
            slots |= self.first_slots(parameter)
        slots["step"] += 1
        seed = seed_of(self.seed, slots["step"], "rounding", self.names[parameter])
        generator = torch.Generator(parameter.device).manual_seed(seed)
        assert parameter.grad is not None
        weights, gradient = parameter.view(-1), parameter.grad.view(-1)
        for start in range(0, len(weights), PIECE):
            piece = slice(start, start + PIECE)
            self._step_piece(weights[piece], gradient[piece], self._pieces(slots, piece), parameter, generator)

    def _pieces(self, slots: dict[str, Any], piece: slice) -> dict[str, Tensor]:
        """The flat parts of the state that belong to a piece."""
        blocks = slice(piece.start // BLOCK, piece.stop // BLOCK)
        return {
            name: value.view(-1)[blocks if name.startswith("absmax") else piece]
            for name, value in slots.items()
            if name != "step"
        }

    def _step_piece(
        self,
        kept: Tensor,
        gradient: Tensor,
        slots: dict[str, Tensor],
        parameter: Tensor,
        generator: torch.Generator,
    ) -> None:
        step, group = self.state[parameter]["step"], self.rates[parameter]
        moments = {name: value.to(kept.device, non_blocking=True) for name, value in slots.items()}
        weights = kept.float()  # itself where it is float32 already
        if "state1" in moments:
            self._update_in_8_bits(weights, gradient.float(), moments, step, group)
        else:
            _update(weights, gradient.float(), moments, step, group)
        if kept.dtype != weights.dtype:
            kept.copy_(round_stochastically(weights, generator))
        if self.off_card:
            for name, value in moments.items():
                slots[name].copy_(value, non_blocking=True)

    def first_slots(self, parameter: Tensor) -> dict[str, Any]:
        """The state before the first step."""
        shape, count = tuple(parameter.shape), parameter.numel()
        if self.eight_bit and count >= SMALL:
            blocks = (-(-count // BLOCK),)
            shapes = {"state1": shape, "state2": shape, "absmax1": blocks, "absmax2": blocks}
        else:
            shapes = {"exp_avg": shape, "exp_avg_sq": shape}
        dtypes = {name: torch.uint8 if name.startswith("state") else torch.float32 for name in shapes}
        return {"step": 0} | {
            name: self.place(torch.zeros(shape, dtype=dtypes[name]), parameter) for name, shape in shapes.items()
        }

    def place(self, value: Tensor, parameter: Tensor) -> Tensor:
        """A copy of a slot where it is kept: beside its parameter, or in the machine's memory, pinned for the way to the card."""
        if not self.off_card:
            return value.to(parameter.device, copy=True)
        kept = torch.empty(value.shape, dtype=value.dtype, pin_memory=parameter.is_cuda)
        return kept.copy_(value)

    def _update_in_8_bits(
        self, weights: Tensor, gradient: Tensor, moments: dict[str, Tensor], step: int, group: dict[str, Any]
    ) -> None:
        from bitsandbytes.functional import optimizer_update_8bit_blockwise

        assert self.maps is not None
        signed, unsigned = (one.to(weights.device) for one in self.maps)
        self.maps = (signed, unsigned)
        optimizer_update_8bit_blockwise(
            "adam",
            gradient,
            weights,
            moments["state1"],
            moments["state2"],
            *BETAS,
            0.0,  # beta3 and alpha are another optimizer's
            0.0,
            EPS,
            step,
            group["lr"],
            signed,
            unsigned,
            moments["absmax1"],
            moments["absmax2"],
            group["weight_decay"],
        )


def _update(weights: Tensor, gradient: Tensor, moments: dict[str, Tensor], step: int, group: dict[str, Any]) -> None:
    adamw(
        [weights],
        [gradient],
        [moments["exp_avg"]],
        [moments["exp_avg_sq"]],
        [],
        [torch.full((), step - 1.0, device=weights.device)],  # the kernel counts it up itself
        fused=True,
        amsgrad=False,
        beta1=BETAS[0],
        beta2=BETAS[1],
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=EPS,
        maximize=False,
    )


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """Float32 values to one of their two neighbours in bfloat16, each the likelier the nearer, so that the mean is the value
    itself. What bfloat16 holds exactly stays; infinities and NaN stay what they are."""
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=generator)
    rounded = noise.add_(bits).bitwise_and_(-(1 << 16)).view(torch.float32).to(torch.bfloat16)
    # the sum would carry a NaN of all ones, which is the GPU's, over into 0
    return torch.where(values.isfinite(), rounded, values.to(torch.bfloat16))


def _eight_bit_maps() -> tuple[Tensor, Tensor]:
    """The 256 values that 8 bits stand for, for the first moment and the second."""
    try:
        from bitsandbytes.functional import create_dynamic_map  # an extra: importing it costs seconds
    except ImportError as error:
        raise UsageError("8-bit AdamW needs bitsandbytes", f"install it: {INSTALL_8BIT}") from error
    return create_dynamic_map(signed=True), create_dynamic_map(signed=False)
