"""A part's config as far as it is passed to the libraries: the keys that describe an architecture or a noise schedule, each with bounds.

Every other key is left out, among them those that name code to fetch (`auto_map`, `attn_implementation`, `custom_pipeline`...).
"""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelUnavailable
from ..text import shortened

Bound = Callable[[Any], bool]
MOST_WIDTH = 65_536
MOST_LEVELS = 16  # of a UNet or VAE
MOST_LAYERS = 512  # of a part; SDXL's UNet has 60 by this count
MOST_STEPS = 10_000  # timesteps of a schedule; all known bases have 1,000


def whole(low: int, high: int) -> Bound:
    """A whole number from `low` to `high`."""
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def number(low: float, high: float) -> Bound:
    """A finite number from `low` to `high`."""
    return lambda value: (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    )


def one_of(*bounds: Bound) -> Bound:
    """Whatever one of these bounds accepts."""
    return lambda value: any(bound(value) for bound in bounds)


def many(bound: Bound, most: int = MOST_LEVELS) -> Bound:
    """A list of these with at least one and at most `most` entries."""
    return lambda value: isinstance(value, list) and 0 < len(value) <= most and all(map(bound, value))


def nothing(value: Any) -> bool:
    """null."""
    return value is None


def flag(value: Any) -> bool:
    """true or false."""
    return isinstance(value, bool)


def word(value: Any) -> bool:
    """A short name: of a block, an activation, a schedule."""
    return isinstance(value, str) and re.fullmatch(r"[\w+\-]{1,64}", value) is not None


width, layers = whole(1, MOST_WIDTH), whole(1, MOST_LAYERS)
flags, words, widths = one_of(flag, many(flag)), many(word), one_of(whole(1, MOST_WIDTH), many(whole(1, MOST_WIDTH)))
some = whole(0, MOST_LAYERS)
depths = one_of(some, many(one_of(some, many(some))))
eps, share, factor = number(1e-12, 0.1), number(0, 0.99), number(1e-6, 1e6)


def maybe(bound: Bound) -> Bound:
    """What this bound accepts, or null."""
    return one_of(nothing, bound)


def only(bounds: Mapping[str, Bound]) -> Bound:
    """An object with only these keys, each within its bounds."""
    return lambda value: isinstance(value, dict) and all(key in bounds and bounds[key](each) for key, each in value.items())


UNET_2D_CONDITION: Mapping[str, Bound] = {
    "sample_size": maybe(width),
    "in_channels": whole(1, 64),
    "out_channels": whole(1, 64),
    "center_input_sample": flag,
    "flip_sin_to_cos": flag,
    "freq_shift": number(-16, 16),
    "down_block_types": words,
    "mid_block_type": maybe(word),
    "up_block_types": words,
    "only_cross_attention": flags,
    "block_out_channels": many(width),
    "layers_per_block": one_of(layers, many(layers)),
    "downsample_padding": whole(0, 8),
    "mid_block_scale_factor": factor,
    "dropout": share,
    "act_fn": word,
    "norm_num_groups": maybe(width),
    "norm_eps": eps,
    "cross_attention_dim": widths,
    "transformer_layers_per_block": depths,
    "reverse_transformer_layers_per_block": maybe(depths),
    "attention_head_dim": widths,
    "num_attention_heads": maybe(widths),
    "dual_cross_attention": flag,
    "use_linear_projection": flag,
    "addition_embed_type": maybe(word),
    "addition_time_embed_dim": maybe(width),
    "projection_class_embeddings_input_dim": maybe(width),
    "addition_embed_type_num_heads": width,
    "upcast_attention": maybe(flag),
    "resnet_time_scale_shift": word,
    "resnet_skip_time_act": flag,
    "resnet_out_scale_factor": factor,
    "time_embedding_type": word,
    "time_embedding_dim": maybe(width),
    "time_embedding_act_fn": maybe(word),
    "timestep_post_act": maybe(word),
    "conv_in_kernel": whole(1, 9),
    "conv_out_kernel": whole(1, 9),
    "attention_type": word,
    "mid_block_only_cross_attention": maybe(flag),
    "cross_attention_norm": maybe(word),
}
KL_VAE: Mapping[str, Bound] = {
    "in_channels": whole(1, 64),
    "out_channels": whole(1, 64),
    "down_block_types": words,
    "up_block_types": words,
    "block_out_channels": many(width),
    "layers_per_block": layers,
    "act_fn": word,
    "latent_channels": whole(1, 64),
    "norm_num_groups": width,
    "sample_size": maybe(width),
    "scaling_factor": factor,
    "shift_factor": maybe(number(-1e3, 1e3)),
    "force_upcast": one_of(flag, number(0, 1)),
    "use_quant_conv": flag,
    "use_post_quant_conv": flag,
    "mid_block_add_attention": flag,
}
CLIP_TEXT_MODEL: Mapping[str, Bound] = {
    "vocab_size": whole(3, 2**20),
    "hidden_size": width,
    "intermediate_size": width,
    "projection_dim": maybe(width),
    "num_hidden_layers": layers,
    "num_attention_heads": width,
    "max_position_embeddings": whole(3, 4096),
    "hidden_act": word,
    "layer_norm_eps": eps,
    "attention_dropout": share,
    "initializer_range": number(0, 1e3),
    "initializer_factor": number(0, 1e3),
    "pad_token_id": maybe(whole(-1, 2**20)),
    "bos_token_id": maybe(whole(-1, 2**20)),
    "eos_token_id": whole(0, 2**20),
}
QWEN3: Mapping[str, Bound] = {
    "vocab_size": whole(3, 2**20),
    "hidden_size": width,
    "intermediate_size": width,
    "num_hidden_layers": layers,
    "num_attention_heads": width,
    "num_key_value_heads": width,
    "head_dim": width,
    "hidden_act": word,
    "max_position_embeddings": whole(3, 2**20),
    "rms_norm_eps": eps,
    # transformers 5 writes the second, earlier versions the first; without either it assumes a base of 10,000 where Qwen3 has 1,000,000
    "rope_theta": number(1, 1e9),
    "rope_parameters": only(
        {"rope_theta": number(1, 1e9), "rope_type": lambda value: value == "default", "partial_rotary_factor": lambda value: value == 1}
    ),
    "rope_scaling": nothing,
    "attention_bias": flag,
    "attention_dropout": share,
    "use_sliding_window": lambda value: value is False,
    "tie_word_embeddings": flag,
    "pad_token_id": maybe(whole(-1, 2**20)),
    "bos_token_id": maybe(whole(-1, 2**20)),
    "eos_token_id": maybe(whole(0, 2**20)),
}
SCHEDULER: Mapping[str, Bound] = {
    "num_train_timesteps": whole(10, MOST_STEPS),
    "beta_start": number(1e-9, 0.5),
    "beta_end": number(1e-9, 0.999),
    "beta_schedule": word,
    "trained_betas": maybe(many(number(1e-9, 0.9999), MOST_STEPS)),
    "prediction_type": word,
    "rescale_betas_zero_snr": flag,
    "timestep_spacing": word,
    "timestep_type": word,
    "steps_offset": whole(0, 1000),
    "skip_prk_steps": flag,
    "set_alpha_to_one": flag,
    "clip_sample": flag,
    "clip_sample_range": factor,
    "thresholding": flag,
    "dynamic_thresholding_ratio": number(0, 1),
    "sample_max_value": factor,
    "variance_type": maybe(word),
    "interpolation_type": word,
    "use_karras_sigmas": maybe(flag),
    "use_exponential_sigmas": maybe(flag),
    "use_beta_sigmas": maybe(flag),
    "use_lu_lambdas": maybe(flag),
    "final_sigmas_type": maybe(word),
    "solver_order": whole(1, 3),
    "algorithm_type": word,
    "solver_type": word,
    "lower_order_final": flag,
    "euler_at_final": flag,
    "lambda_min_clipped": lambda value: value == -math.inf or number(-1e3, 0)(value),
    "predict_x0": flag,
}
FLOW_SCHEDULER: Mapping[str, Bound] = {
    "num_train_timesteps": whole(10, MOST_STEPS),
    "shift": number(1e-3, 1e3),
    "use_dynamic_shifting": flag,
    "base_shift": maybe(number(-10, 10)),
    "max_shift": maybe(number(-10, 10)),
    "base_image_seq_len": maybe(whole(1, 2**20)),
    "max_image_seq_len": maybe(whole(1, 2**20)),
    "shift_terminal": maybe(number(0, 1)),
    "time_shift_type": word,
    "invert_sigmas": flag,
    "use_karras_sigmas": maybe(flag),
    "use_exponential_sigmas": maybe(flag),
    "use_beta_sigmas": maybe(flag),
}


BLOCKS = ("num_hidden_layers", "num_layers", "num_single_layers", "n_layers", "n_refiner_layers")  # counts of layers, in any config


def checked_config(bounds: Mapping[str, Bound], values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The part of a config that the libraries are given: its known keys. Raises ModelUnavailable, naming the file and the key, if a value
    is out of bounds."""
    kept = {key: value for key, value in values.items() if key in bounds}
    for key, value in kept.items():
        if not bounds[key](value):
            raise ModelUnavailable(
                f"{file}: {key} can't be {shortened(repr(value), 80)} in a base that can be trained",
                "fetch the base model again, or name another (see `dreambooth models`)",
            )
    if (found := depth(kept)) > MOST_LAYERS:
        raise ModelUnavailable(f"{file}: {found:,} layers are more than any base has", "fetch the base model again")
    return kept


def depth(config: Mapping[str, Any]) -> int:
    """The most layers that a config can ask for."""
    blocks = sum(int(config.get(key, 0)) for key in BLOCKS)
    levels = max(len(config.get(key, ())) for key in ("block_out_channels", "down_block_types", "up_block_types"))
    return blocks + levels * _largest(config.get("layers_per_block", 1)) * _largest(config.get("transformer_layers_per_block", 1))


def _largest(value: Any) -> int:
    return max(map(_largest, value)) if isinstance(value, list) else int(value)
