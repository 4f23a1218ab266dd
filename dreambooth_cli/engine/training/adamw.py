"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101, algorithm 2) one tensor at a time, for where memory is short.

Weights may be in bfloat16: each tensor is updated in float32 and rounded stochastically, so that steps much smaller than
its last digit still move it on average (rounded to nearest it would not move at all). The two moments may take 8 bits
(Dettmers et al. 2022, arXiv 2110.02861; by bitsandbytes' kernel, run on a float32 copy, since on bfloat16 weights it would itself
round to nearest) and may be kept in the machine's memory instead of the card's.

On a GPU one kernel does all of this (`lean_kernel.py`), if it can be built and agrees with the plain form here in a short trial.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from ...errors import UsageError
from ...memory.plan import INSTALL_8BIT
from ..seeds import seed_of

Maps = tuple[Tensor, Tensor]  # the 256 values that an 8-bit code stands for: of the first moment, of the second

BETAS = (0.9, 0.999)
EPS = 1e-8
BLOCK = 256  # values that share a scale in 8-bit state
PIECE = 1 << 23  # values of a tensor that are updated at a time; a multiple of BLOCK
SMALL = 4096  # values; smaller tensors have float32 state, as in bitsandbytes: they take little memory and 8 bits hurt them most


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
        """`groups` have a learning rate each; `names` and `seed` decide which way each tensor's values are rounded; `off_card` keeps the
        state in the machine's memory. Raises UsageError if `eight_bit` is asked for and bitsandbytes is missing."""
        super().__init__([{"params": group} for group in groups], {"lr": 0.0, "weight_decay": weight_decay})
        self.names, self.seed = names, seed
        self.eight_bit, self.off_card = eight_bit, off_card
        self.rates = {parameter: group for group in self.param_groups for parameter in group["params"]}
        self.maps = _eight_bit_maps() if eight_bit else None
        self.kernel: Callable[..., None] | None = None
        self.is_chosen = False  # whether the kernel has been tried
        self.remark = ""  # for the user: why the plain form runs on a GPU

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # without a closure there is no loss to return
        """Update every parameter that has a gradient."""
        for parameter in self.rates:
            if parameter.grad is not None:
                self.step_one(parameter)

    @torch.no_grad()
    def step_one(self, parameter: Tensor) -> None:
        """Update one parameter by its gradient, piece by piece, so that the float32 copies stay small."""
        slots = self.state[parameter]
        if not slots:
            slots |= self.first_slots(parameter)
        slots["step"] += 1
        seed = seed_of(self.seed, slots["step"], "rounding", self.names[parameter])
        assert parameter.grad is not None
        if not self.is_chosen:
            self.choose_form(parameter)
        # one generator for all pieces in the plain form; the kernel needs only the seed
        generator = None if self.kernel else torch.Generator(parameter.device).manual_seed(seed)
        weights, gradient = parameter.view(-1), parameter.grad.view(-1)
        size = len(weights) if self.kernel else PIECE
        for start in range(0, len(weights), size):
            piece = slice(start, start + size)
            self._step_piece(weights[piece], gradient[piece], self._pieces(slots, piece), parameter, generator or seed)

    def choose_form(self, parameter: Tensor) -> None:
        """On a GPU, take the kernel if it can be built and does what the plain form does; `remark` says why not."""
        self.is_chosen = True
        if not parameter.is_cuda:
            return
        try:
            from .lean_kernel import lean_adamw  # Triton: not in every build of PyTorch

            differs = difference_of_forms(lean_adamw, parameter.device, self._maps_on(parameter.device))
        except Exception as error:  # what a compiler says on a machine that nobody has seen
            differs = f"{type(error).__name__}: {error}".splitlines()[0]
        if differs:
            self.remark = f"AdamW runs in its plain form, which takes longer: its GPU kernel can't be used here ({differs})"
        else:
            self.kernel = lean_adamw

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
        random: torch.Generator | int,
    ) -> None:
        step, group = self.state[parameter]["step"], self.rates[parameter]
        moments = {name: value.to(kept.device, non_blocking=True) for name, value in slots.items()}
        maps = self._maps_on(kept.device) if "state1" in moments else None
        if isinstance(random, torch.Generator):
            _step_plainly(kept, gradient, moments, maps, step, group, random)
        else:
            assert self.kernel is not None
            step_by_kernel(self.kernel, kept, gradient, moments, maps, step, group, random)
        if self.off_card:
            for name, value in moments.items():
                slots[name].copy_(value, non_blocking=True)

    def _maps_on(self, device: torch.device) -> Maps | None:
        """The maps of the 8-bit codes, moved to a device once."""
        if self.maps is not None and self.maps[0].device != device:
            self.maps = (self.maps[0].to(device), self.maps[1].to(device))
        return self.maps

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
        """A copy of a piece of state where it is kept: on its parameter's device, or in the machine's memory, pinned so that it gets to
        the card quickly."""
        if not self.off_card:
            return value.to(parameter.device, copy=True)
        kept = torch.empty(value.shape, dtype=value.dtype, pin_memory=parameter.is_cuda)
        return kept.copy_(value)


def _step_plainly(
    kept: Tensor,
    gradient: Tensor,
    moments: dict[str, Tensor],
    maps: Maps | None,
    step: int,
    group: dict[str, Any],
    generator: torch.Generator,
) -> None:
    weights = kept.float()  # itself where it is float32 already
    if maps:
        _update_in_8_bits(weights, gradient.float(), moments, maps, step, group)
    else:
        _update(weights, gradient.float(), moments, step, group)
    if kept.dtype != weights.dtype:
        kept.copy_(round_stochastically(weights, generator))


def _update_in_8_bits(
    weights: Tensor, gradient: Tensor, moments: dict[str, Tensor], maps: Maps, step: int, group: dict[str, Any]
) -> None:
    from bitsandbytes.functional import optimizer_update_8bit_blockwise

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
        *maps,
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


def step_by_kernel(
    kernel: Callable[..., None],
    weights: Tensor,
    gradient: Tensor,
    moments: Mapping[str, Tensor],
    maps: Maps | None,
    step: int,
    group: Mapping[str, Any],
    seed: int,
) -> None:
    """Update one flat tensor [n] in place by the kernel; its moments are in 8 bits if there are `maps`."""
    held = [moments[name] for name in ("state1", "state2", "absmax1", "absmax2")] if maps else None
    state = [*held, *maps] if held and maps else [moments["exp_avg"], moments["exp_avg_sq"], None, None, None, None]
    kernel(weights, gradient, *state, seed, step, group["lr"], group["weight_decay"], *BETAS, EPS)


def difference_of_forms(kernel: Callable[..., None], device: torch.device, maps: Maps | None) -> str:
    """Take two steps on random weights by the kernel and in the plain form; both take the second one from the plain form's state.
    Returns how they differ, or "" if they agree."""
    generator = torch.Generator().manual_seed(0)
    count, group = 2 * SMALL + 100, {"lr": 1e-3, "weight_decay": 0.01}
    before, *gradients = (torch.randn(count, generator=generator).bfloat16().to(device) for _ in range(3))
    for form in (maps, None) if maps else (None,):
        plain = _no_moments(count, form, device)
        for step, gradient in enumerate(gradients, 1):
            ours, theirs, in_half = before.float(), before.float(), before.clone()
            moments, again = ({name: value.clone() for name, value in plain.items()} for _ in range(2))
            step_by_kernel(kernel, ours, gradient, moments, form, step, group, 0)
            step_by_kernel(kernel, in_half, gradient, again, form, step, group, 0)
            _step_plainly(theirs, gradient, plain, form, step, group, generator)
            if not torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6):
                return "it moves the weights differently"
            if ((in_half.float() - theirs).abs() > theirs.abs() * 2**-7).any():  # one unit in bfloat16's last place, or more
                return "it rounds weights to values that are not their neighbours"
            for name, value in _opened(moments, form).items():
                # where two codes are equally near, either may be taken: neighbours lie 0.014 apart at most
                apart = 0.02 if name.startswith("state") else 1e-6
                if not torch.allclose(value, _opened(plain, form)[name], rtol=1e-5, atol=apart):
                    return f"its {name} differs"
    return ""


def _no_moments(count: int, maps: Maps | None, device: torch.device) -> dict[str, Tensor]:
    """The moments of a flat tensor of `count` values before its first step."""
    if maps is None:
        return {name: torch.zeros(count, device=device) for name in ("exp_avg", "exp_avg_sq")}
    codes = {name: torch.zeros(count, dtype=torch.uint8, device=device) for name in ("state1", "state2")}
    return codes | {name: torch.zeros(-(-count // BLOCK), device=device) for name in ("absmax1", "absmax2")}


def _opened(moments: Mapping[str, Tensor], maps: Maps | None) -> Mapping[str, Tensor]:
    """Float32 moments as they are; of 8-bit ones the values that their codes stand for, and the scales."""
    if maps is None:
        return moments
    values = {name: one[moments[name].long()] for name, one in zip(("state1", "state2"), maps, strict=True)}
    return values | {name: moments[name] for name in ("absmax1", "absmax2")}


def round_stochastically(values: Tensor, generator: torch.Generator) -> Tensor:
    """Round float32 values to one of their two neighbours in bfloat16, the nearer one being the likelier, so that the mean is the value
    itself. Values that bfloat16 holds exactly stay as they are, and so do infinities and NaN."""
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=generator)
    rounded = noise.add_(bits).bitwise_and_(-(1 << 16)).view(torch.float32).to(torch.bfloat16)
    # in a NaN of all ones, as GPUs make them, the sum would overflow to 0
    return torch.where(values.isfinite(), rounded, values.to(torch.bfloat16))


def _eight_bit_maps() -> Maps:
    try:
        from bitsandbytes.functional import create_dynamic_map  # an extra: importing it costs seconds
    except ImportError as error:
        raise UsageError("8-bit AdamW needs bitsandbytes", f"install it: {INSTALL_8BIT}") from error
    return create_dynamic_map(signed=True), create_dynamic_map(signed=False)
