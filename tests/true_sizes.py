"""The configurations of Stable Diffusion 1 and XL at their true sizes, as in their own folders."""

from typing import Any

CLIP_L: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
}
BIG_G: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
}
UP, DOWN = "UpBlock2D", "DownBlock2D"
XL_UNET: dict[str, Any] = {
    "down_block_types": (DOWN, f"CrossAttn{DOWN}", f"CrossAttn{DOWN}"),
    "up_block_types": (f"CrossAttn{UP}", f"CrossAttn{UP}", UP),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
