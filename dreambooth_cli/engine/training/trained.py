"""What is trained in a base: its own weights, or LoRA layers beside them; and the weights of a run's checkpoint, put in to draw with."""

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
    """Unfreeze what the plan trains, or add LoRA layers to it. Returns the trained parameters by name: the denoiser's, and the text
    encoders'."""
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
    """Have a network compute its activations again in backward. It is put into train mode, since transformers' text encoders do this only
    in train mode; none of the networks has dropout."""
    is_diffusers = isinstance(module, ModelMixin)
    if is_diffusers:
        module.enable_gradient_checkpointing()
    else:
        module.activation_checkpointing_enable()
    module.train()


@contextmanager
def without_lora(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Have the networks as they were before their LoRA, inside a `with` block."""
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        # not peft's `enable_adapters`, which also changes what is trained
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def add_trained(family: LatentDiffusion, plan: Plan, settings: TrainSettings) -> dict[str, Any]:
    """The weights of a freshly loaded base that a run of this plan trains, its own or those of LoRA layers added to it, by their names in
    a checkpoint. They are frozen: this is for drawing."""
    denoiser, text = make_trainable(family, replace(plan, gradient_checkpointing=False), settings)
    trained: dict[str, nn.Parameter] = {**denoiser, **text}
    for parameter in trained.values():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(family.pipe.dtype)  # LoRA layers are made in float32
    return trained


def fill_trained(trained: Mapping[str, Any], checkpoint: Path, run: str) -> None:
    """Copy a checkpoint's weights, or their average if the run keeps one, into these tensors; `run` is the run's id. Raises DiskError
    if they are damaged or belong to another run."""
    if not has_weights(checkpoint, run):
        raise DiskError(f"the weights of {checkpoint} are damaged or belong to another run", "use another step, or the finished model")
    state = load_weights(checkpoint)
    check_belongs(state, trained, steps=step_of(checkpoint), averaged=bool(state.ema))
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_((state.ema or state.weights)[name])
