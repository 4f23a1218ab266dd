"""The sizes of the networks of the catalogue's Stable Diffusions, for trials at true size with random weights. A family of one base says
its own (`Family.true_size`)."""

from typing import Any

from ..errors import UsageError
from .catalog import CATALOG, CatalogEntry, find_entry

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
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
VAE = (128, 256, 512, 512)
# A base's UNet, its text encoders (config values each), and its VAE's widths.
Parts = tuple[dict[str, Any], list[dict[str, int]], tuple[int, ...]]
TRUE_SIZES: dict[str, Parts] = {
    "sd14": (SD1, [CLIP_L], VAE),
    "sd15": (SD1, [CLIP_L], VAE),
    "sd21": (SD2, [CLIP_H], VAE),
    "sdxl": (XL, [CLIP_L, CLIP_G], VAE),
}


def find_to_try(model: str) -> CatalogEntry:
    """The catalogue base of this name, which can be tried without a download. Raises UsageError for any other model."""
    if (entry := find_entry(model)) is None:
        names = ", ".join(entry.name for entry in CATALOG)
        raise UsageError(f"--try knows only the catalogue's bases, not {model}", f"--model takes one of {names}")
    return entry
