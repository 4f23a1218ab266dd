"""An exponential moving average (EMA) of the trained weights, by diffusers' EMAModel, with its state as flat names -> tensors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn


class Average:
    """The average that follows the weights. Its decay at step n is min(decay, (1 + n) / (10 + n)), so that it follows quickly at first."""

    def __init__(self, trained: Mapping[str, nn.Parameter], decay: float) -> None:
        self.names = list(trained)
        self.parameters = list(trained.values())
        self.model = EMAModel(self.parameters, decay=decay)
        self.model.to(dtype=torch.float32)  # in bfloat16 a slow average would not move at all
        self.groups = list(_groups(self.model.shadow_params, self.parameters))

    def update(self, step: int) -> None:
        """Follow the weights after step `step` (from 0), including those that are no longer trained: EMAModel's own step would copy
        those instead."""
        rate = 1 - self.model.get_decay(step + 1)
        with torch.no_grad():
            for shadows, weights in self.groups:
                torch._foreach_lerp_(shadows, [weight.float() for weight in weights], rate)

    def state(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return dict(zip(self.names, self.model.shadow_params, strict=True))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over averaged weights from a saved state."""
        with torch.no_grad():
            for name, shadow in zip(self.names, self.model.shadow_params, strict=True):
                shadow.copy_(state[name])

    def take(self) -> None:
        """Put the averaged weights into the networks for good: in float32, since rounding them to bfloat16 would lose most of what the
        steps have moved."""
        for shadow, parameter in zip(self.model.shadow_params, self.parameters, strict=True):
            parameter.data = shadow.to(parameter.device)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the averaged weights in the networks inside a `with` block, for a sample or a save, and the trained ones again after it."""
        self.model.store(self.parameters)
        self.model.copy_to(self.parameters)
        try:
            yield
        finally:
            self.model.restore(self.parameters)


def _groups(shadows: list[Tensor], weights: list[nn.Parameter]) -> Iterator[tuple[list[Tensor], list[nn.Parameter]]]:
    """What is averaged in one kernel: all float32 weights together; each bfloat16 one by itself, since it is cast first."""
    pairs = list(zip(shadows, weights, strict=True))
    together = [pair for pair in pairs if pair[1].dtype == torch.float32]
    for group in [together, *([pair] for pair in pairs if pair[1].dtype != torch.float32)]:
        if group:
            yield [shadow for shadow, _ in group], [weight for _, weight in group]
