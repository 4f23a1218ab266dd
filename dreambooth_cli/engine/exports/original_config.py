"""The configuration that Stability's own code, and so A1111, wants beside a file of Stable Diffusion 2: no tensor says what it predicts.

The keys and classes are those of Stability-AI/stablediffusion's configs; JSON is YAML.
"""

import json
from typing import Any

from ...families.family import VAE
from .weights import Weights


def config_of(weights: Weights) -> str:
    """The text of the `.yaml` beside a model's single file."""
    facts, family = weights.base.facts, weights.base.facts.family
    unet: Any = weights.networks[family.denoiser].config
    vae: Any = weights.networks[VAE].config
    schedule = weights.empty.scheduler.config
    params = {
        "parameterization": "v" if facts.prediction_type == "v_prediction" else "eps",
        "linear_start": schedule.beta_start,
        "linear_end": schedule.beta_end,
        "timesteps": schedule.num_train_timesteps,
        "num_timesteps_cond": 1,
        "log_every_t": 200,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": unet.sample_size,
        "channels": unet.in_channels,
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "scale_factor": vae.scaling_factor,
        "use_ema": False,
        "unet_config": {"target": "ldm.modules.diffusionmodules.openaimodel.UNetModel", "params": _unet(unet)},
        "first_stage_config": {"target": "ldm.models.autoencoder.AutoencoderKL", "params": _vae(vae)},
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder",
            "params": {"freeze": True, "layer": "penultimate"},
        },
    }
    model = {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "base_learning_rate": 1e-4, "params": params}
    return json.dumps({"model": model}, indent=2) + "\n"


def _unet(config: Any) -> dict[str, Any]:
    widths, heads = config.block_out_channels, config.attention_head_dim
    with_attention = [2**level for level, kind in enumerate(config.down_block_types) if kind.startswith("CrossAttn")]
    return {
        "image_size": config.sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "model_channels": widths[0],
        "attention_resolutions": with_attention[::-1],
        "num_res_blocks": config.layers_per_block,
        "channel_mult": [width // widths[0] for width in widths],
        "num_head_channels": widths[0] // (heads if isinstance(heads, int) else heads[0]),
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "transformer_depth": 1,
        "context_dim": config.cross_attention_dim,
        "use_checkpoint": False,
        "legacy": False,
    }


def _vae(config: Any) -> dict[str, Any]:
    widths = config.block_out_channels
    return {
        "embed_dim": config.latent_channels,
        "ddconfig": {
            "double_z": True,
            "z_channels": config.latent_channels,
            "resolution": config.sample_size,
            "in_channels": config.in_channels,
            "out_ch": config.out_channels,
            "ch": widths[0],
            "ch_mult": [width // widths[0] for width in widths],
            "num_res_blocks": config.layers_per_block,
            "attn_resolutions": [],
            "dropout": 0.0,
        },
        "lossconfig": {"target": "torch.nn.Identity"},
    }
