"""The update of the weights: it clips and scales gradients, steps, and gives out its state as flat names -> tensors.

AdamW is torch's own, unless weights or state must be smaller: see `adamw.py`.
"""

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from .adamw import LeanAdamW
from .working_copies import WorkingCopies

Parameters = Mapping[str, nn.Parameter]


class Update:
    """The optimizer of a run: parameters by name, in two groups (the denoiser; the text encoders) with a learning rate each.

    It has two forms. After backward: gradients add up over several calls of `backward`, are clipped and scaled, and `step` moves
    all weights. Inside backward: each weight moves as soon as its gradient is complete, and the gradient is freed at once; then nothing
    can be clipped, added up or scaled.

    Where the passes read half-precision working copies, the gradients of a single backward stay in half precision until their weights'
    turn comes; gradients that add up, or are scaled, are converted to float32 at once.
    """

    def __init__(
        self,
        groups: list[Parameters],
        *,
        kind: str,
        weight_decay: float,
        max_grad_norm: float,
        scaled: bool,
        device: torch.device,
        inside_backward: bool = False,
        off_card: bool = False,
        seed: int = 0,
        copies: WorkingCopies | None = None,
        adds_up: bool = False,
    ) -> None:
        """`kind` is `adamw` or `adamw8bit`; `max_grad_norm` is the norm that gradients are clipped to (0: never); `scaled` turns on the
        fp16 loss scaler; `off_card` keeps the state in the machine's memory; `seed` decides the rounding of bfloat16 weights; `copies`
        are what the passes read in place of the weights; `adds_up`: several backward passes make one step. Raises UsageError if 8-bit
        AdamW is asked for and bitsandbytes is missing."""
        self.names: dict[Tensor, str] = {parameter: name for group in groups for name, parameter in group.items()}
        self.max_grad_norm, self.inside_backward = max_grad_norm, inside_backward
        self.copies, self.takes_at_once = copies, adds_up or scaled
        sets = [list(group.values()) for group in groups if group]
        self.optimizer: torch.optim.Optimizer
        in_half = any(parameter.dtype != torch.float32 for parameter in self.names)
        if kind == "adamw8bit" or inside_backward or off_card or in_half:
            self.optimizer = LeanAdamW(
                sets,
                names=self.names,
                weight_decay=weight_decay,
                eight_bit=kind == "adamw8bit",
                off_card=off_card,
                seed=seed,
            )
            if inside_backward:
                _step_inside_backward(self.optimizer, weakref.proxy(self))
        else:
            groups_of = [{"params": parameters} for parameters in sets]
            self.optimizer = torch.optim.AdamW(
                groups_of, lr=0.0, weight_decay=weight_decay, fused=device.type in ("cpu", "cuda", "mps")
            )
        self.scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        self.one = torch.ones((), device=device)
        # steps in a row that the scaler has skipped because their gradients were not finite
        self.skipped = torch.zeros((), device=device)
        self.failed: Exception | None = None  # what was raised inside backward

    def begin(self, rates: Iterable[float]) -> None:
        """Before the backward passes of a step: set its learning rate for each group."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=False):
            group["lr"] = rate

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled for fp16 if need be; in the form that steps inside backward, the weights move now."""
        self.scaler.scale(loss).backward()
        if self.failed:
            raise self.failed
        if self.copies and self.takes_at_once:
            self.copies.take_gradients(self.names)

    def step(self) -> None:
        """After backward: move the weights and free the gradients."""
        if self.inside_backward:
            return
        if self.copies and not self.takes_at_once:
            self.step_in_pieces(self.copies)
            return
        if self.max_grad_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_([p for p in self.names if p.grad is not None], self.max_grad_norm)
        before = self.scaler.scale(self.one)  # `get_scale` would wait for the GPU
        self.scaler.step(self.optimizer)
        self.scaler.update()
        lowered = self.scaler.scale(self.one) < before
        self.skipped = torch.where(lowered, self.skipped + 1, torch.zeros_like(self.skipped))
        self.optimizer.zero_grad(set_to_none=True)
        if self.copies:
            self.copies.refresh()

    def step_in_pieces(self, copies: WorkingCopies) -> None:
        """Move the weights in groups, so that few gradients are in float32 at a time. This works because both optimizers skip weights
        without a gradient."""
        norm = norm_of(copies.gradients(self.names)) if self.max_grad_norm else None
        for piece in copies.pieces(self.names):
            copies.take_gradients(piece)
            if norm is not None:
                nn.utils.clip_grads_with_norm_(piece, self.max_grad_norm, norm)
            self.optimizer.step()
            for weight in piece:
                weight.grad = None
            copies.refresh(piece)

    @property
    def remark(self) -> str:
        """What the user should know about the optimizer after the first step, or ""."""
        return self.optimizer.remark if isinstance(self.optimizer, LeanAdamW) else ""

    def without_gradient(self) -> list[str]:
        """The names of the trained weights whose gradients have been zero, or missing, in every step so far, judged by the optimizer's
        running averages."""
        held = [(name, self.optimizer.state.get(weight, {})) for weight, name in self.names.items() if weight.requires_grad]
        averages = [(name, slots.get("exp_avg", slots.get("absmax1"))) for name, slots in held]
        some = [bool(value) for value in torch.stack([average.any() for _, average in averages if average is not None]).tolist()]
        reached = iter(some)
        return [name for name, average in averages if average is None or not next(reached)]

    def state(self) -> dict[str, Tensor]:
        """Everything besides the weights that the next step depends on, named `<parameter>|<slot>` and `scaler|<slot>`."""
        flat = {
            f"{self.names[parameter]}|{slot}": _as_tensor(value)
            for parameter, slots in self.optimizer.state.items()
            for slot, value in slots.items()
        }
        scaler = self.scaler.state_dict()
        return flat | {
            f"scaler|{slot}": torch.tensor(float(value), dtype=torch.float64) for slot, value in scaler.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state that `state` returned."""
        by_name = {name: parameter for parameter, name in self.names.items()}
        scaler: dict[str, float | int] = {}
        for key, value in state.items():
            name, slot = key.rsplit("|", 1)
            if name == "scaler":
                scaler[slot] = int(value) if slot in ("_growth_tracker", "growth_interval") else float(value)
                continue
            parameter = by_name[name]
            self.optimizer.state[parameter][slot] = self._slot(slot, value, parameter)
        if scaler:
            self.scaler.load_state_dict(scaler)

    def forget(self) -> None:
        """Free state and gradients, when no step follows."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()

    def _slot(self, slot: str, value: Tensor, parameter: Tensor) -> Any:
        """A saved slot in the form that this optimizer keeps it in, whichever one saved it: LeanAdamW counts steps in an int, torch in a
        tensor, which its fused step needs on the weights' device."""
        if isinstance(self.optimizer, LeanAdamW):
            return int(value) if slot == "step" else self.optimizer.place(value, parameter)
        if slot == "step":
            return value.to(parameter.device if self.optimizer.defaults["fused"] else "cpu", torch.float32, copy=True)
        return value.to(parameter.device, copy=True)


def norm_of(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together, a scalar in float32, as `clip_grad_norm_` computes it."""
    norms = [torch.linalg.vector_norm(one, dtype=torch.float32) for one in gradients]
    return torch.as_tensor(torch.linalg.vector_norm(torch.stack(norms)))


def _step_inside_backward(optimizer: LeanAdamW, update: Update) -> None:
    """Have a hook move each weight. Two traps of torch 2.13: garbage collection does not look into hooks, so they hold only weak
    references to what holds their weights; and an error raised out of a hook keeps the graph below it, with weights and activations,
    in memory for good, so it is raised only when backward is over."""
    weak = weakref.proxy(optimizer)

    def move(parameter: Tensor) -> None:
        try:
            if update.failed is None:
                weak.step_one(parameter)
        except (RuntimeError, MemoryError) as error:
            update.failed = error
        parameter.grad = None

    for parameter in optimizer.rates:
        parameter.register_post_accumulate_grad_hook(move)


def rates_of(schedule: str, *, warmup_steps: int, steps: int) -> Any:
    """The factor on the learning rate, 0 to 1, as a function of the step (from 0), by diffusers' `get_scheduler`."""
    # only the function is taken from a schedule over a dummy weight, so there is no state of a schedule to save
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    made = get_scheduler(schedule, dummy, num_warmup_steps=warmup_steps, num_training_steps=steps)
    return made.lr_lambdas[0]


def _as_tensor(value: Any) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.int64)
