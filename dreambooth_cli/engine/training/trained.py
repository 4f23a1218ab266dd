"""The weights of a step of a run, put into its base to draw with."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...errors import DiskError
from ...memory.plan import Plan
from ...settings import TrainSettings
from ..families.latent_diffusion import LatentDiffusion
from .checkpoint import has_weights, load_weights, step_of
from .loop import check_belongs, make_trainable


def add_trained(family: LatentDiffusion, plan: Plan, settings: TrainSettings) -> dict[str, Any]:
    """What a run of this plan trains, in a base as it came: its own weights, or LoRA layers put beside them, by their names in a
    checkpoint. Nothing of it will be trained."""
    denoiser, text = make_trainable(family, replace(plan, gradient_checkpointing=False), settings)
    trained: dict[str, nn.Parameter] = {**denoiser, **text}
    for parameter in trained.values():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(family.pipe.dtype)  # LoRA layers come in float32
    return trained


def fill_trained(trained: Mapping[str, Any], checkpoint: Path, run: str) -> None:
    """Copy a checkpoint's weights, their average where the run keeps one, into what is trained; `run` is the run's id. Raises DiskError
    where they are damaged or of another run."""
    if not has_weights(checkpoint, run):
        raise DiskError(f"the weights of {checkpoint} are damaged or of another run", "draw with another step, or the finished model")
    state = load_weights(checkpoint)
    check_belongs(state, trained, steps=step_of(checkpoint), averaged=bool(state.ema))
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_((state.ema or state.weights)[name])
