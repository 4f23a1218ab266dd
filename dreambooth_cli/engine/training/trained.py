"""What of a base is trained: its own weights, or LoRA layers beside them; and those of a step of a run, put into it to draw with."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ...errors import DiskError
from ...memory.plan import Plan
from ...settings import TrainSettings
from ..families.latent_diffusion import LatentDiffusion, denoiser_of
from ..families.loading import text_encoders_of
from ..families.lora import add_lora, lora_layers_of
from ..seeds import seed_of
from .checkpoint import check_belongs, has_weights, load_weights, step_of


def make_trainable(
    family: LatentDiffusion, plan: Plan, settings: TrainSettings
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Unfreeze, or add LoRA to, what the plan trains. Returns the trained parameters by name: the denoiser's, the text encoders'."""
    record = family.record
    trained = {record.denoiser: denoiser_of(family), **(text_encoders_of(family.pipe) if plan.train_text_encoder else {})}
    found: dict[str, dict[str, nn.Parameter]] = {}
    for name, module in trained.items():
        if plan.method == "lora":
            add_lora(
                module,
                layers=lora_layers_of(module, record.parts[name], settings.lora_layers),
                rank=plan.rank or settings.rank_for(record),
                alpha=plan.alpha,
                seed=seed_of(settings.seed, "lora", name),
            )
        else:
            module.requires_grad_(True)
        if plan.gradient_checkpointing:
            checkpoint_gradients(module)
        found[name] = {f"{name}.{key}": value for key, value in module.named_parameters() if value.requires_grad}
    text = {key: value for name, group in found.items() if name != record.denoiser for key, value in group.items()}
    return found[record.denoiser], text


def checkpoint_gradients(module: Any) -> None:
    """Have a network compute its activations again in backward. Text encoders look at their mode: train, they have no dropout."""
    is_diffusers = isinstance(module, ModelMixin)
    if is_diffusers:
        module.enable_gradient_checkpointing()
    else:
        module.activation_checkpointing_enable()
    module.train()


@contextmanager
def without_lora(networks: Iterable[nn.Module]) -> Iterator[None]:
    """For a pass the networks as they were before their LoRA."""
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        # not its `enable_adapters`, which decides anew what is trained
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


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
