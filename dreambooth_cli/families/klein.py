"""FLUX.2 klein: rectified flow, a transformer of two kinds of blocks, Qwen3 as its text encoder, latents scaled channel by channel."""

from .family import VAE, Activations, DenoiserFile, Family, Figures, Part, Rates
from .part_config import KL_VAE, eps, flag, layers, many, number, whole, width
from .qwen3 import FRAME_WITHOUT_THOUGHT, QWEN3_4B_SIZE, TOKENIZER_PART, text_encoder_part

TRANSFORMER, TEXT_ENCODER = "transformer", "text_encoder"
KLEIN_4B = 3_875_544_576  # parameters, counted from its config
READ_LAYERS = (9, 18, 27)  # the text encoder's layers whose outputs are put side by side
QWEN3_4B_READ = 3_215_021_568  # parameters of its first 28 layers and its token embeddings
CONFIG = {
    "patch_size": whole(1, 1),
    "in_channels": whole(1, 512),
    "num_layers": layers,
    "num_single_layers": layers,
    "attention_head_dim": width,
    "num_attention_heads": width,
    "joint_attention_dim": width,
    "timestep_guidance_channels": width,
    "mlp_ratio": number(0.1, 64),
    "axes_dims_rope": many(whole(2, 512)),
    "rope_theta": number(1, 1e7),
    "eps": eps,
    "guidance_embeds": flag,
}
FLUX2_VAE = {
    **{key: bound for key, bound in KL_VAE.items() if key not in ("scaling_factor", "shift_factor")},
    "decoder_block_out_channels": lambda value: value is None or many(width)(value),
    "batch_norm_eps": eps,
    "batch_norm_momentum": number(0, 1),
    "patch_size": lambda value: value == [2, 2],
}
# black-forest-labs/flux2's names (diffusers' scripts/convert_flux2_to_diffusers.py goes the other way)
ALONE = DenoiserFile(
    mark="double_stream_modulation_img.lin.",
    names={
        r"x_embedder\.(.+)": r"img_in.\1",
        r"context_embedder\.(.+)": r"txt_in.\1",
        r"time_guidance_embed\.timestep_embedder\.linear_1\.(.+)": r"time_in.in_layer.\1",
        r"time_guidance_embed\.timestep_embedder\.linear_2\.(.+)": r"time_in.out_layer.\1",
        r"(\w+_stream_modulation\w*)\.linear\.(.+)": r"\1.lin.\2",
        r"norm_out\.linear\.(.+)": r"final_layer.adaLN_modulation.1.\1",
        r"proj_out\.(.+)": r"final_layer.linear.\1",
        r"transformer_blocks\.(\d+)\.attn\.to_[qkv]\.(.+)": r"double_blocks.\1.img_attn.qkv.\2",
        r"transformer_blocks\.(\d+)\.attn\.add_[qkv]_proj\.(.+)": r"double_blocks.\1.txt_attn.qkv.\2",
        r"transformer_blocks\.(\d+)\.attn\.norm_q\.weight": r"double_blocks.\1.img_attn.norm.query_norm.scale",
        r"transformer_blocks\.(\d+)\.attn\.norm_k\.weight": r"double_blocks.\1.img_attn.norm.key_norm.scale",
        r"transformer_blocks\.(\d+)\.attn\.norm_added_q\.weight": r"double_blocks.\1.txt_attn.norm.query_norm.scale",
        r"transformer_blocks\.(\d+)\.attn\.norm_added_k\.weight": r"double_blocks.\1.txt_attn.norm.key_norm.scale",
        r"transformer_blocks\.(\d+)\.attn\.to_out\.0\.(.+)": r"double_blocks.\1.img_attn.proj.\2",
        r"transformer_blocks\.(\d+)\.attn\.to_add_out\.(.+)": r"double_blocks.\1.txt_attn.proj.\2",
        r"transformer_blocks\.(\d+)\.ff\.linear_in\.(.+)": r"double_blocks.\1.img_mlp.0.\2",
        r"transformer_blocks\.(\d+)\.ff\.linear_out\.(.+)": r"double_blocks.\1.img_mlp.2.\2",
        r"transformer_blocks\.(\d+)\.ff_context\.linear_in\.(.+)": r"double_blocks.\1.txt_mlp.0.\2",
        r"transformer_blocks\.(\d+)\.ff_context\.linear_out\.(.+)": r"double_blocks.\1.txt_mlp.2.\2",
        r"single_transformer_blocks\.(\d+)\.attn\.to_qkv_mlp_proj\.(.+)": r"single_blocks.\1.linear1.\2",
        r"single_transformer_blocks\.(\d+)\.attn\.to_out\.(.+)": r"single_blocks.\1.linear2.\2",
        r"single_transformer_blocks\.(\d+)\.attn\.norm_q\.weight": r"single_blocks.\1.norm.query_norm.scale",
        r"single_transformer_blocks\.(\d+)\.attn\.norm_k\.weight": r"single_blocks.\1.norm.key_norm.scale",
    },
    turned=("final_layer.adaLN_modulation.1.weight",),  # shift and scale there, scale and shift here
)

KLEIN = Family(
    name="klein",
    title="FLUX.2 klein",
    live="dreambooth_cli.engine.families.klein:Klein",
    pipeline="Flux2KleinPipeline",
    named=("Flux2KleinPipeline",),
    denoiser=TRANSFORMER,
    denoiser_title="transformer",
    beside_denoiser=(VAE,),  # its pipeline scales the last latents back by the VAE's statistics, even where it returns latents
    text_encoders=(TEXT_ENCODER,),
    parts={
        TRANSFORMER: Part(
            classes=("Flux2Transformer2DModel",),
            config=CONFIG,
            refused={"guidance_embeds": "is told the guidance scale, like FLUX.2 dev's"},
            # those of diffusers' script; without the single blocks' to_out another trainer drew the wrong dogs (unslothai/unsloth#8267)
            lora=("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj", "attn.to_out"),
            # everything that leads into the blocks, and what time does in them
            precise=("x_embedder", "context_embedder", "time_guidance_embed", "stream_modulation"),
            lora_others=(
                *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
                *("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
            ),
        ),
        VAE: Part(classes=("AutoencoderKLFlux2",), config=FLUX2_VAE),
        # one layer more than is read, since the last layer's output is normalised
        TEXT_ENCODER: text_encoder_part("Qwen3ForCausalLM", "Qwen3Model", layers=max(READ_LAYERS) + 1),
        "tokenizer": TOKENIZER_PART,
    },
    true_size={
        TRANSFORMER: {
            "num_layers": 5,
            "num_single_layers": 20,
            "num_attention_heads": 24,
            "joint_attention_dim": 7680,
            "guidance_embeds": False,
        },
        TEXT_ENCODER: QWEN3_4B_SIZE | {"num_hidden_layers": max(READ_LAYERS) + 1},  # of 36, the others are not read
        VAE: {},
        "scheduler": {"shift": 3.0, "use_dynamic_shifting": True},
    },
    pipeline_flags={"is_distilled": False},
    distilled_index={"is_distilled": True},  # not by the schedule: both state a shift of 3, which has no effect
    fast=(4, 1.0),
    denoiser_file=ALONE,
    noise="flow",
    channels=4,  # patches of 2 x 2
    latent_side=128,
    side_of=16,  # the VAE's 8 times patches of 2
    prompt_length=512,
    prompt_frame=FRAME_WITHOUT_THOUGHT,
    rare_words=False,
    class_sampler="auto",
    guidance=4.0,  # its makers' and its pipeline's default, with 50 steps
    prior="base",  # no source shows that class images help here, and its makers use none
    class_guidance=4.0,
    methods=("lora",),
    # 2e-4 at rank 32 for a subject, with 800 to 1,200 steps: from its makers' workshop (stephen37/workshops)
    rates=Rates(full_with_text=1e-5, full=1e-5, lora=2e-4, rank=32, trains_text=False),
    # counted in a step of the full-size transformer on the fake card, 2026-11-27 (tests/benchmarks/memory.md)
    figures=Figures(
        side=1024,
        denoiser=KLEIN_4B,
        activations={
            ("attention", False): (Activations(18.81, 0.0), Activations(29.72, 0.0)),
            ("attention", True): (Activations(2.06, 0.0), Activations(3.44, 0.0)),
            ("all", False): (Activations(19.45, 0.0), Activations(30.89, 0.0)),
            ("all", True): (Activations(2.06, 0.0), Activations(3.44, 0.0)),
        },
        drawing=0.92,
        quantized={KLEIN_4B: 0.5625},
        fp8=1.0502,
        fp8_block=0.245,
        lora={"attention": {KLEIN_4B: 16_711_680}, "all": {KLEIN_4B: 24_084_480}},
        lora_text={},
        tflop=(20.0, 2.17),
        reached=227.0,  # 0.350 s for a photo of 1024 px
        largest=84_934_656,
        largest_with_text=84_934_656,
        prompt_pixels=512 * 16**2,
    ),
)
