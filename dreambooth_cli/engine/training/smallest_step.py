"""One step of training on tiny networks, so that what a library refuses is known at once, not after an hour of class images."""

from types import SimpleNamespace
from typing import Any

import torch

from ...families.family import Family
from ...memory.plan import Plan
from ...settings import TrainSettings
from ..families.latent_diffusion import autocast, live_class
from ..families.loading import find_device
from ..families.lora import quantize, store_in_8_bits
from .loop import make_copies, make_update
from .trained import make_trainable


def take_a_step(record: Family, plan: Plan, settings: TrainSettings, dtype: torch.dtype) -> None:
    """Build tiny networks of the family's real classes with weights in `dtype`, make them trainable as the plan says, and take one step:
    everything but the size is as in the run. Raises what a library raises."""
    device, live = find_device(plan.device), live_class(record)
    with torch.random.fork_rng(devices=[]):  # the weights come from the global generator
        networks = live.small_networks()
    for network in networks.values():
        network.requires_grad_(False).eval()
        for weight in network.parameters():
            weight.data = weight.data.to(dtype)
    if plan.quantized:
        quantize(networks[record.denoiser], dtype)
    elif plan.fp8:
        store_in_8_bits(networks[record.denoiser], record.parts[record.denoiser], dtype)
    networks = {name: network.to(device) for name, network in networks.items()}
    family: Any = SimpleNamespace(record=record, pipe=SimpleNamespace(components=networks, **networks))
    groups = make_trainable(family, plan, settings)
    update = make_update(groups, plan, settings, device, make_copies(family, plan, settings))
    update.begin([plan.learning_rate, plan.text_encoder_learning_rate])
    with autocast(plan.precision, device):
        loss = live.small_pass(networks, device, dtype)
    update.backward(loss)
    update.step()
