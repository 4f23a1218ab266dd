"""The update of the weights after backward: clips, scales and steps, and hands out its state as flat names -> tensors.

AdamW is torch's own; where weights or state must be smaller, see `adamw.py`.
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
    """The optimizer of a run: parameters by name, in two groups with a learning rate each (UNet; text encoders).

    Of two forms. After backward: gradients add up over several calls of `backward`, are clipped and scaled, and `step` moves
    all weights. Inside backward: each weight moves as soon as its gradient is whole, which is let go at once; there is nothing
    to clip, to add up or to scale then.

    Where the passes read working copies, gradients of one backward stay in half precision until their weights' turn comes; those
    that add up, or are scaled, are taken to float32 at once.
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
        """`kind` is adamw or adamw8bit; `scaled` turns the fp16 loss scaler on; `off_card`: the state lies in the machine's
        memory; `seed` decides the rounding of bfloat16 weights; `copies` are what the passes read in place of the weights, and
        `adds_up` says that several backward passes make a step. Raises UsageError without bitsandbytes."""
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
        self.skipped = torch.zeros(
            (), device=device
        )  # steps in a row that the scaler left out, their gradients not finite
        self.failed: Exception | None = None  # inside this backward

    def begin(self, rates: Iterable[float]) -> None:
        """Before the backward passes of a step: its learning rate for each group."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=False):
            group["lr"] = rate

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled where fp16 asks for it; inside backward, the weights move now."""
        self.scaler.scale(loss).backward()
        if self.failed:
            raise self.failed
        if self.copies and self.takes_at_once:
            self.copies.take_gradients(self.names)

    def step(self) -> None:
        """After backward: move the weights and let the gradients go."""
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
        """Move some weights after the others, so that few gradients lie in float32 at a time. Both optimizers pass over weights
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
        """What the user should know of how the weights move, after the first step."""
        return self.optimizer.remark if isinstance(self.optimizer, LeanAdamW) else ""

    def without_gradient(self) -> list[str]:
        """The names of the trained weights whose gradients were zero, or not there, in every step so far: their averages say so."""
        held = [(name, self.optimizer.state.get(weight, {})) for weight, name in self.names.items() if weight.requires_grad]
        averages = [(name, slots.get("exp_avg", slots.get("absmax1"))) for name, slots in held]
        some = [bool(value) for value in torch.stack([average.any() for _, average in averages if average is not None]).tolist()]
        reached = iter(some)
        return [name for name, average in averages if average is None or not next(reached)]

    def state(self) -> dict[str, Tensor]:
        """Everything but the weights that the next step depends on, as `<parameter>|<slot>` and `scaler|<slot>`."""
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
        """Take up a state that `state` gave."""
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
        """Let state and gradients go: no step follows."""
        self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.state.clear()

    def _slot(self, slot: str, value: Tensor, parameter: Tensor) -> Any:
        """A saved slot in the form its optimizer keeps it, whichever form saved it: we count steps in an int, torch in a tensor,
        which a fused step wants beside the weights."""
        if isinstance(self.optimizer, LeanAdamW):
            return int(value) if slot == "step" else self.optimizer.place(value, parameter)
        if slot == "step":
            return value.to(parameter.device if self.optimizer.defaults["fused"] else "cpu", torch.float32, copy=True)
        return value.to(parameter.device, copy=True)


def norm_of(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together, in float32, as `clip_grad_norm_` takes it."""
    norms = [torch.linalg.vector_norm(one, dtype=torch.float32) for one in gradients]
    return torch.as_tensor(torch.linalg.vector_norm(torch.stack(norms)))


def _step_inside_backward(optimizer: LeanAdamW, update: Update) -> None:
    """Have each weight move by a hook. Two traps of torch 2.13: its garbage collector does not look into hooks, so they refer to
    what holds their weights by weak references; and what is raised out of a hook keeps the graph below it, weights and
    activations, for good, so it is raised when backward is over."""
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
    """The learning rate's factor as a function of the step (counted from 0), by diffusers' `get_scheduler`."""
    # the factor is read off a schedule over one dummy weight, so the schedule itself has no state to save
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    made = get_scheduler(schedule, dummy, num_warmup_steps=warmup_steps, num_training_steps=steps)
    return made.lr_lambdas[0]


def _as_tensor(value: Any) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.int64)
