"""Half-precision copies of trained float32 weights: the passes read the copies, the update moves the weights themselves.

Autocast casts a float32 weight again in every pass, and its gradient back to float32. A copy holds exactly what the cast gives, and its
gradient is the one before the cast back, so that a step gives the same bits without the casts, which are a third of a step's kernels on
a GPU. What autocast computes in float32, norms above all, has no copy.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ...memory.ledger import GRADIENT_PIECE

IN_HALF = (nn.Linear, _ConvNd)  # the layers that autocast computes in half precision
IN_FLOAT32 = (nn.GroupNorm, nn.LayerNorm)  # and those that autocast on a GPU computes in float32


class WorkingCopies:
    """The copies of some networks' weights, which stand in the networks' layers; `copies`: float32 weight -> copy."""

    def __init__(self, networks: Iterable[nn.Module], dtype: torch.dtype) -> None:
        """Put copies in `dtype` into the layers of `networks` wherever a float32 weight is trained."""
        self.places: list[tuple[nn.Module, str, nn.Parameter]] = []
        self.copies: dict[Tensor, nn.Parameter] = {}
        for network in networks:
            # diffusers and transformers cast a network's input to the format of its first weight, so that one stays
            first = next(network.parameters())
            for layer in network.modules():
                for name, weight in layer.named_parameters(recurse=False) if isinstance(layer, IN_HALF) else ():
                    if weight.requires_grad and weight.dtype == torch.float32 and weight is not first:
                        self.places.append((layer, name, weight))
                        self.copies[weight] = nn.Parameter(weight.detach().to(dtype))
                        setattr(layer, name, self.copies[weight])

    @torch.no_grad()
    def refresh(self, weights: Iterable[Tensor] | None = None) -> None:
        """Bring the copies of these weights (None: all) up to date with the weights."""
        found = [weight for weight in (self.copies if weights is None else weights) if weight in self.copies]
        if found:
            torch._foreach_copy_([self.copies[weight] for weight in found], found)

    def take_gradients(self, weights: Iterable[Tensor]) -> None:
        """Move the gradients of these weights' copies to the weights, in float32, adding them to gradients that are there."""
        found = [(weight, copy, copy.grad) for weight, copy in self._copies_of(weights) if copy.grad is not None]
        taken = [torch.empty_like(weight) for weight, _, _ in found]
        if found:
            torch._foreach_copy_(taken, [half for _, _, half in found])  # all casts in one kernel
        for (weight, copy, _), gradient in zip(found, taken, strict=True):
            weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
            copy.grad = None

    def _copies_of(self, weights: Iterable[Tensor]) -> Iterator[tuple[Tensor, nn.Parameter]]:
        return ((weight, self.copies[weight]) for weight in weights if weight in self.copies)

    def gradients(self, weights: Iterable[Tensor]) -> list[Tensor]:
        """The gradients of these weights, be they the weight's own or its copy's."""
        held = (self.copies.get(weight, weight).grad for weight in weights)
        return [gradient for gradient in held if gradient is not None]

    def pieces(self, weights: Iterable[Tensor]) -> Iterator[list[Tensor]]:
        """The weights in groups whose gradients may be in float32 at the same time: first those without a copy, whose gradients are
        already, then the others, at most GRADIENT_PIECE values or one weight at a time."""
        group = [weight for weight in weights if weight not in self.copies]
        values = GRADIENT_PIECE
        for weight in (weight for weight in weights if weight in self.copies):
            if values + weight.numel() > GRADIENT_PIECE:
                yield group
                group, values = [], 0
            group.append(weight)
            values += weight.numel()
        yield group

    def freeze(self, weights: Iterable[Tensor]) -> None:
        """Have backward compute no more gradients for the copies of these weights."""
        for weight in weights:
            if weight in self.copies:
                self.copies[weight].requires_grad_(False)

    def leave(self) -> None:
        """Put the float32 weights back into their layers, for good."""
        for layer, name, weight in self.places:
            setattr(layer, name, weight)
        self.places, self.copies = [], {}


def widen_norms(networks: Iterable[nn.Module]) -> None:
    """Keep frozen norms in float32, in which autocast on a GPU computes them: it would cast them again in every pass, to exactly the
    same numbers."""
    for layer in (layer for network in networks for layer in network.modules()):
        if isinstance(layer, IN_FLOAT32) and not any(weight.requires_grad for weight in layer.parameters()):
            layer.float()
