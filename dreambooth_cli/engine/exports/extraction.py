"""A LoRA of what full fine-tuning has changed: the best of its rank for each layer, by singular value decomposition."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ..families.lora import lora_layers_of
from ..families.parts import nested_name
from ..seeds import seed_of
from ..tensor_file import write_stream
from .weights import Model, Weights

EXACT_UP_TO = 512  # rows or columns: of larger matrices the first singular values are found by random projections (Halko et al. 2011)
MORE, ROUNDS = 16, 4  # of these: vectors more than the rank, and rounds


def extract(whole: Model, base: Model, rank: int, file: Path) -> float:
    """Write a LoRA of a whole model against its base to a new file, float32, in peft's names, and return how much of what training
    changed it keeps: of the sum of squares of all changes, a share of 1. Raises ModelUnavailable, OSError, MemoryError; ValueError where
    nothing has changed."""
    family = base.base.facts.family
    tensors: dict[str, Tensor] = {}
    kept = total = 0.0
    for name in (family.denoiser, *family.text_encoders):
        trained, before = (Weights(model, torch.float32).load([name])[name] for model in (whole, base))
        ends = tuple(f".{end}" for end in lora_layers_of(before, family.parts[name], "all"))
        for weight, change in changes(trained, before):
            share = float(change.double().square().sum())
            total += share
            layer = weight.removesuffix(".weight")
            if share and f".{layer}".endswith(ends):
                up, down = halves(change.flatten(1), rank)
                kept += share - float((change.flatten(1) - up @ down).double().square().sum())
                kernel = change.shape[2:]
                shaped = {"A": down.reshape(-1, change.shape[1], *kernel), "B": up.reshape(change.shape[0], -1, *(1,) * len(kernel))}
                tensors |= {f"{name}.{nested_name(before, layer)}.lora_{letter}.weight": each for letter, each in shaped.items()}
    if not tensors:
        raise ValueError("no layer that a LoRA is put beside has other weights than the base")
    write_stream(file, tensors, lambda name: tensors[name], {"format": "pt"})
    return kept / total


def changes(trained: nn.Module, before: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights of a network and how far each is from what it was."""
    state = before.state_dict()
    for name, weight in trained.state_dict().items():
        if weight.is_floating_point():
            yield name, weight - state[name]


def halves(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two matrices [out, rank] and [rank, in] whose product is nearest to a change [out, in], each with the root of its singular
    values (Eckart and Young 1936)."""
    rank = min(rank, *change.shape)
    if min(change.shape) <= EXACT_UP_TO:
        u, s, vh = torch.linalg.svd(change, full_matrices=False)
        v = vh.mT
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(0, "extraction"))
            u, s, v = torch.svd_lowrank(change, q=min(rank + MORE, *change.shape), niter=ROUNDS)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).contiguous(), (v[:, :rank] * root).mT.contiguous()
