"""Bases with random weights for measurements: the catalogue's at their full size, and Stable Diffusion 1 at a fifth of its width."""

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from dreambooth_cli.bases.true_sizes import CLIP_L, TRUE_SIZES, VAE, Parts
from dreambooth_cli.engine.families.random_base import make_vae, pipeline_of, text_config
from tests import small_models

CLIP_SMALL = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
SMALL: dict[str, Any] = {"sample_size": 32, "cross_attention_dim": 256, "block_out_channels": (64, 128, 256, 256)}
HALF: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "block_out_channels": (160, 320, 640, 640)}
SMALL_VAE = (32, 64, 128, 128)
CONFIGS: dict[str, Parts] = {
    **TRUE_SIZES,
    "half as wide as sd15": (HALF, [CLIP_L], VAE),
    "small": (SMALL, [CLIP_SMALL], SMALL_VAE),
}


def make_base(name: str, folder: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Path:
    """Write a base with random weights in diffusers' layout, drawn on a device (a GPU is faster), and return its folder."""
    unet, encoders, widths = CONFIGS[name]
    vocabulary = small_models.write_tokenizer(folder / "made", pad="<|endoftext|>")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "made")
    kinds = (CLIPTextModel, CLIPTextModelWithProjection)
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            texts = [kind(text_config(one, vocabulary)) for kind, one in zip(kinds, encoders, strict=False)]
            parts = {"unet": UNet2DConditionModel(**unet), "vae": make_vae(widths), "text_encoder": texts[0]}
    finally:
        torch.set_default_dtype(torch.float32)
    pipeline_of(name, parts, texts, tokenizer).save_pretrained(folder)
    shutil.rmtree(folder / "made")
    return folder
