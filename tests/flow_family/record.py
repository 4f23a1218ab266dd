"""Tiny Flow: a rectified-flow transformer with a language model as text encoder, in Z-Image's classes."""

from dreambooth_cli.families.family import VAE, Activations, Family, Figures, Part, Rates
from dreambooth_cli.families.part_config import KL_VAE, flag, layers, many, maybe, number, whole, width, word

TRANSFORMER = {
    "all_patch_size": many(whole(1, 16)),
    "all_f_patch_size": many(whole(1, 16)),
    "in_channels": whole(1, 64),
    "dim": width,
    "n_layers": layers,
    "n_refiner_layers": layers,
    "n_heads": width,
    "n_kv_heads": width,
    "norm_eps": number(1e-12, 0.1),
    "qk_norm": flag,
    "cap_feat_dim": width,
    "rope_theta": number(1, 1e7),
    "t_scale": number(1e-3, 1e6),
    "axes_dims": many(whole(2, 512)),
    "axes_lens": many(whole(1, 2**16)),
}
LANGUAGE_MODEL = {
    "vocab_size": whole(3, 2**20),
    "hidden_size": width,
    "intermediate_size": width,
    "num_hidden_layers": layers,
    "num_attention_heads": width,
    "num_key_value_heads": width,
    "head_dim": width,
    "hidden_act": word,
    "max_position_embeddings": whole(3, 2**20),
    "rms_norm_eps": number(1e-12, 0.1),
    "attention_bias": flag,
    "tie_word_embeddings": flag,
    "eos_token_id": maybe(whole(0, 2**20)),
}
ACTIVATIONS = (Activations(0.01, 0.0), Activations(0.02, 0.0))

TINY_FLOW = Family(
    name="tiny-flow",
    title="Tiny Flow",
    live="tests.flow_family.live:TinyFlow",
    pipeline="ZImagePipeline",
    named=("ZImagePipeline",),
    denoiser="transformer",
    denoiser_title="transformer",
    text_encoders=("text_encoder",),
    parts={
        "transformer": Part(classes=("ZImageTransformer2DModel",), config=TRANSFORMER, lora=("to_q", "to_k", "to_v", "to_out.0")),
        VAE: Part(classes=("AutoencoderKL",), config=KL_VAE),
        "text_encoder": Part(classes=("Qwen3Model",), config=LANGUAGE_MODEL),
        "tokenizer": Part(classes=("Qwen2Tokenizer", "Qwen2TokenizerFast")),
    },
    noise="flow",
    latent_side=16,
    prompt_length=128,
    class_sampler="auto",
    guidance=4.0,
    guidance_offset=-1.0,  # its pipeline computes pos + s (pos - neg)
    methods=("lora",),
    rates=Rates(full_with_text=1e-5, full=1e-5, lora=1e-4, trains_text=False),
    figures=Figures(
        side=32,
        denoiser=60_000,
        activations={("attention", False): ACTIVATIONS, ("attention", True): ACTIVATIONS},
        drawing=0.01,
        quantized={60_000: 1.0},
        lora={"attention": {60_000: 10_000}, "all": {60_000: 10_000}},
        lora_text={},
        tflop=(0.01, 0.01),
        largest=10_000,
        largest_with_text=10_000,
    ),
)
