"""Bases with random weights for measurements: the catalogue's at their full size, and Stable Diffusion 1 at a fifth of its width."""

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests import small_models

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
CLIP_SMALL = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4}
SD1: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768}
SD2: dict[str, Any] = {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
XL: dict[str, Any] = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SMALL: dict[str, Any] = {"sample_size": 32, "cross_attention_dim": 256, "block_out_channels": (64, 128, 256, 256)}
HALF: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "block_out_channels": (160, 320, 640, 640)}
VAE, SMALL_VAE = (128, 256, 512, 512), (32, 64, 128, 128)
# A base's UNet, its text encoders, its VAE's widths.
CONFIGS: dict[str, tuple[dict[str, Any], list[dict[str, int]], tuple[int, ...]]] = {
    "sd15": (SD1, [CLIP_L], VAE),
    "sd21": (SD2, [CLIP_H], VAE),
    "sdxl": (XL, [CLIP_L, CLIP_G], VAE),
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


def pipeline_of(name: str, parts: dict[str, Any], texts: list[Any], tokenizer: Any) -> Any:
    """The parts as the pipeline that a base of this name is."""
    parts |= {"tokenizer": tokenizer}
    if name == "sdxl":
        euler = EulerDiscreteScheduler(timestep_spacing="leading", **small_models.BETAS)
        more = {"text_encoder_2": texts[1], "tokenizer_2": tokenizer, "add_watermarker": False}
        return StableDiffusionXLPipeline(**parts, **more, scheduler=euler)
    none: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    scheduler: DDIMScheduler | PNDMScheduler
    if name == "sd21":
        scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, **small_models.BETAS)
    else:
        scheduler = PNDMScheduler(skip_prk_steps=True, **small_models.BETAS)
    return StableDiffusionPipeline(**parts, **none, scheduler=scheduler)


def text_config(sizes: dict[str, int], vocabulary: int) -> CLIPTextConfig:
    """A CLIP text encoder's configuration; its last two tokens are start and end."""
    last = vocabulary - 1
    tokens = {"vocab_size": vocabulary, "bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last}
    values: dict[str, Any] = {**sizes, **tokens, "projection_dim": 1280}
    return CLIPTextConfig(**values)


def make_vae(widths: tuple[int, ...]) -> AutoencoderKL:
    """Stable Diffusion's VAE, of these widths."""
    return AutoencoderKL(
        latent_channels=4,
        layers_per_block=2,
        sample_size=512,
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        force_upcast=False,
    )
