"""One step of training on networks of a few weights: what a library refuses is told now, not after an hour of class images."""

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from ..memory import Plan
from ..settings import TrainSettings
from .loading import DTYPES, find_device
from .lora import quantize
from .training import make_copies, make_trainable, make_update

WIDTH = 32  # channels: the largest weights are then large enough for 8-bit state
WORDS = 8


def take_a_step(plan: Plan, settings: TrainSettings, dtype: torch.dtype) -> None:
    """Make networks of the real classes with weights of `dtype` trainable as the plan says, and take one step: all but the size is
    as in the run. Raises what a library raises."""
    device = find_device(plan.device)
    with torch.random.fork_rng(devices=[]):  # the weights are drawn from the global generator
        unet, encoder = small_unet(), small_text_encoder()
    for network in (unet, encoder):
        network.requires_grad_(False).eval()
        for weight in network.parameters():
            weight.data = weight.data.to(dtype)
    if plan.quantized:
        quantize(unet, dtype)
    family: Any = SimpleNamespace(pipe=SimpleNamespace(unet=unet.to(device), text_encoder=encoder.to(device)))
    groups = make_trainable(family, plan, settings)
    update = make_update(groups, plan, settings, device, make_copies(family, plan, settings))
    update.begin([plan.learning_rate, plan.text_encoder_learning_rate])
    with torch.autocast(device.type, DTYPES[plan.precision], enabled=plan.precision != "fp32"):
        embeddings = encoder(torch.zeros(1, WORDS, dtype=torch.long, device=device)).last_hidden_state
        latents = torch.zeros(1, 4, 8, 8, dtype=dtype, device=device)
        loss = unet(latents, torch.zeros(1, device=device), embeddings).sample.float().square().mean()
    update.backward(loss)
    update.step()


def small_unet() -> Any:
    """A UNet of one block down and one up."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(WIDTH,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=WIDTH,
    )


def small_text_encoder() -> Any:
    """A text encoder of one layer that knows eight words."""
    config = CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=WORDS,
        bos_token_id=0,
        eos_token_id=1,
    )
    return CLIPTextModel(config)
