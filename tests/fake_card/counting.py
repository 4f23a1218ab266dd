"""What a card would have to do, counted on the fake card: the kernels that are launched, the bytes that they move, their arithmetic.

An operation counts as one kernel, except views and empty tensors, which count as none, and operations on lists of tensors, which torch
launches in pieces (`multi_tensor_apply` in its MultiTensorApply.cuh). A custom operator counts as one kernel too. Bytes are what goes in
and comes out, ignoring caches.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from math import ceil
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from dreambooth_cli.engine.training.loop import MUST_BE_REACHED, Reading, Training

from .card import Card, Wait, is_on_card, own_frames

aten = torch.ops.aten
# Nothing is launched for these, and for what torch calls a view.
NOTHING = {
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten._unsafe_view.default,
    aten._reshape_alias.default,
    aten.lift_fresh.default,
    aten.set_.source_Storage,
    aten.resize_.default,
}
ONLY_WRITTEN = ("copy_", "fill_", "zero_", "random_", "uniform_", "normal_")  # what they change is not read
LOOKED_UP = (aten.embedding.default, aten.index.Tensor, aten.index_select.default)  # only what comes out is read
# Of lists of tensors, a launch takes so many at the most, by how many lists there are, and so many chunks.
TENSORS, CHUNKS, CHUNK = (110, 64, 48, 36, 30), 320, 65_536
# The optimizer's: whatever its files do but for calling the backward pass.
OPTIMIZER = ("engine/training/optimizers.py", "engine/training/adamw.py")
BACKWARD = "engine/training/optimizers.py:backward"


@dataclass
class Work:
    """Kernels, the bytes that they move, and floating-point operations by the number format of their input."""

    kernels: int = 0
    moved: int = 0
    flop: Counter[torch.dtype] = field(default_factory=Counter)
    by_name: Counter[str] = field(default_factory=Counter)


class Count:
    """Counts the work of a step, the optimizer's separately from that of the passes, while it is in the card's `seen`.
    `is_of_optimizer` says which of them is at work."""

    def __init__(self, card: Card, is_of_optimizer: Callable[[], bool] | None = None) -> None:
        self.card, self.is_of_optimizer = card, is_of_optimizer or is_of_our_optimizer
        self.passes, self.optimizer = Work(), Work()

    def __enter__(self) -> "Count":
        self.card.seen.append(self.see)
        return self

    def __exit__(self, *error: object) -> None:
        self.card.seen.remove(self.see)

    def see(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Count one operation."""
        kernels = kernels_of(func, args)
        if not kernels or _crosses(func, args):
            return
        work = self.optimizer if self.is_of_optimizer() else self.passes
        work.kernels += kernels
        work.by_name[str(func)] += kernels
        work.moved += bytes_of(func, args, kwargs, result)
        if flop := flop_of(func, args, kwargs, result):
            dtype = next(one.dtype for one in tree_leaves(args) if isinstance(one, Tensor))
            work.flop[dtype] += flop


@dataclass(frozen=True)
class StepCount:
    """What a step demands of the card: the work of the passes and of the optimizer, waits, the peak of memory, the number of trained
    values, the bytes of a checkpoint."""

    passes: Work
    optimizer: Work
    waits: tuple[Wait, ...]
    peak: int
    values: int
    checkpoint: int

    @property
    def kernels(self) -> int:
        """All of the step."""
        return self.passes.kernels + self.optimizer.kernels

    @property
    def moved(self) -> int:
        """Bytes of the step."""
        return self.passes.moved + self.optimizer.moved


def count_second_step(card: Card, training: Training) -> StepCount:
    """Take the first two steps of a run and count the second: the first one creates the optimizer's state."""
    with closing(training.steps()) as steps:
        next(steps)
        # only the first step's loss is read at once: from then on there is one of the step before
        training.unread.append((1, Reading(torch.zeros(2, device="cuda"))))
        training.updates = MUST_BE_REACHED  # a LoRA's first steps alone wait for what they reached
        card.waits.clear()
        card.forget_most()
        with Count(card) as work:
            next(steps)
    waits, peak = tuple(card.waits), card.most
    state = training.state()
    held = [value for part in (state.weights, state.optimizer, state.ema) for value in part.values()]
    return StepCount(
        passes=work.passes,
        optimizer=work.optimizer,
        waits=waits,
        peak=peak,
        values=sum(parameter.numel() for parameter in training.trained.values()),
        checkpoint=sum(value.numel() * value.itemsize for value in held),
    )


def is_of_our_optimizer() -> bool:
    """Whether our optimizer is at work: its step, or what it does to a weight inside backward."""
    return any(name.startswith(OPTIMIZER) and name != BACKWARD for name in own_frames())


def kernels_of(func: Any, args: Any) -> int:
    """How many kernels an operation launches."""
    if func.is_view or func in NOTHING or func.namespace == "prim":
        return 0
    lists = [one for one in args if isinstance(one, (list, tuple)) and one and isinstance(one[0], Tensor)]
    name = func._schema.name
    if lists and ("_foreach_" in name or "_fused_" in name):
        return launches_of([[tensor.numel() for tensor in one] for one in lists if len(one) == len(lists[0])])
    return 1


def launches_of(lists: list[list[int]]) -> int:
    """How many launches torch makes for lists of tensors with these numbers of values: each takes several tensors and chunks."""
    most = TENSORS[min(len(lists), len(TENSORS)) - 1]
    launches = tensors = chunks = 0
    for values in lists[0]:
        tensors += 1
        left = ceil(values / CHUNK)
        while chunks + left >= CHUNKS:
            left -= CHUNKS - chunks
            launches, chunks, tensors = launches + 1, 0, 1 if left else 0
        chunks += left
        if tensors == most:
            launches, chunks, tensors = launches + 1, 0, 0
    return launches + (1 if chunks else 0)


def flop_of(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """Floating-point operations of products, convolutions and attention, by torch's formulas; bitsandbytes' product has none there."""
    if func._schema.name == "bitsandbytes::gemm_4bit":
        return 2 * int(result.numel()) * int(args[0].shape[-1])
    formula = flop_registry.get(func._overloadpacket)
    return int(formula(*args, **kwargs, out_val=result)) if formula is not None else 0


def bytes_of(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """The bytes that an operation reads and writes on the card."""
    written = sum(size_of(one) for one in tree_leaves(result) if isinstance(one, Tensor))
    if func in LOOKED_UP:
        return 2 * written
    moved = 0 if any(each.alias_info is not None for each in func._schema.returns) else written
    only_written = func._schema.name.rpartition("::")[2] in ONLY_WRITTEN
    for place, each in enumerate(func._schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(each.name)
        size = sum(size_of(one) for one in tree_leaves(value) if isinstance(one, Tensor))
        is_changed = each.alias_info is not None and each.alias_info.is_write
        moved += size * (2 if is_changed and not only_written else 1)
    return moved


def size_of(tensor: Tensor) -> int:
    """The bytes of a tensor on the card; of an expanded one, only those that are stored."""
    if not is_on_card(tensor):
        return 0
    return min(tensor.numel() * tensor.itemsize, tensor.untyped_storage().nbytes())


def _crosses(func: Any, args: Any) -> bool:
    """Whether it is a copy between the card and the machine's memory, which no kernel makes."""
    tensors = [one for one in tree_leaves(args) if isinstance(one, Tensor)]
    return func in (aten._to_copy.default, aten.copy_.default) and not all(map(is_on_card, tensors))
