"""Z-Image: rectified flow, a transformer that reads picture and prompt as one sequence, Qwen3 as its text encoder."""

from .family import VAE, Activations, DenoiserFile, Family, Figures, Part, Rates
from .part_config import KL_VAE, flag, layers, many, nothing, number, whole, width
from .qwen3 import FRAME, QWEN3_4B_SIZE, TOKENIZER_PART, text_encoder_part

TRANSFORMER, TEXT_ENCODER = "transformer", "text_encoder"
Z_IMAGE_TRANSFORMER = 6_154_908_736  # parameters, counted from its config
CONFIG = {
    "all_patch_size": many(lambda value: value == 2),
    "all_f_patch_size": many(lambda value: value == 1),
    "in_channels": whole(1, 64),
    "dim": width,
    "n_layers": layers,
    "n_refiner_layers": layers,
    "n_heads": width,
    "n_kv_heads": width,
    "norm_eps": number(1e-12, 0.1),
    "qk_norm": flag,
    "cap_feat_dim": width,
    "siglip_feat_dim": nothing,  # set in the variant that edits pictures
    "rope_theta": number(1, 1e7),
    "t_scale": number(1e-3, 1e6),
    "axes_dims": many(whole(2, 512)),
    "axes_lens": many(whole(1, 2**16)),
}
# Comfy-Org/z_image's names (comfy/utils.py, z_image_to_diffusers; diffusers' single_file_utils.py goes the other way)
ALONE = DenoiserFile(
    mark="noise_refiner.0.attention.qkv.",
    names={
        r"all_x_embedder\.2-1\.(.+)": r"x_embedder.\1",
        r"all_final_layer\.2-1\.(.+)": r"final_layer.\1",
        r"(.+\.attention)\.to_[qkv]\.(.+)": r"\1.qkv.\2",
        r"(.+\.attention)\.norm_([qk])\.(.+)": r"\1.\2_norm.\3",
        r"(.+\.attention)\.to_out\.0\.(.+)": r"\1.out.\2",
    },
)

Z_IMAGE = Family(
    name="z-image",
    title="Z-Image",
    live="dreambooth_cli.engine.families.z_image:ZImage",
    pipeline="ZImagePipeline",
    named=("ZImagePipeline",),
    denoiser=TRANSFORMER,
    denoiser_title="transformer",
    text_encoders=(TEXT_ENCODER,),
    parts={
        TRANSFORMER: Part(
            classes=("ZImageTransformer2DModel",),
            config=CONFIG,
            # those of diffusers' script; the names also match the refiners' layers
            lora=("to_q", "to_k", "to_v", "to_out.0"),
            precise=("all_x_embedder", "all_final_layer", "adaLN_modulation"),  # its class adds the embedders of time and prompt
            lora_others=("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
        ),
        VAE: Part(classes=("AutoencoderKL",), config=KL_VAE),
        TEXT_ENCODER: text_encoder_part("Qwen3Model", "Qwen3ForCausalLM"),
        "tokenizer": TOKENIZER_PART,
    },
    true_size={
        TRANSFORMER: {"axes_lens": [1536, 512, 512]},
        TEXT_ENCODER: QWEN3_4B_SIZE,
        VAE: {
            "block_out_channels": (128, 256, 512, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
            "latent_channels": 16,
            "sample_size": 1024,
            "scaling_factor": 0.3611,
            "shift_factor": 0.1159,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
        "scheduler": {"shift": 6.0},
    },
    denoiser_file=ALONE,
    distilled_schedule={"shift": 3.0, "use_dynamic_shifting": False},  # Turbo; the base's is 6
    noise="flow",
    latent_side=128,
    side_of=16,  # the VAE's 8 times patches of 2
    prompt_length=512,
    prompt_frame=FRAME,
    rare_words=False,
    class_sampler="auto",
    guidance=4.0,  # its makers name 3 to 5; its pipeline computes p + s (p - n)
    no_guidance=0.0,
    prior="base",  # no source shows that class images help here, and its makers use none
    class_guidance=4.0,
    steps=30,  # its makers name 28 to 50
    methods=("lora",),
    fits_fp16=False,  # as in unslothai/unsloth's trainer, which takes only bf16
    # 1e-4 with unshifted times (shift 1) and rank 32, with which a user got a good likeness (kohya-ss/musubi-tuner#908); diffusers' script
    # and ai-toolkit have the same rate
    rates=Rates(full_with_text=1e-5, full=1e-5, lora=1e-4, rank=32, trains_text=False),
    # counted as FLUX.2 klein's were, with a prompt of 24 tokens
    figures=Figures(
        side=1024,
        denoiser=Z_IMAGE_TRANSFORMER,
        activations={
            ("attention", False): (Activations(31.73, 0.0), Activations(39.07, 0.0)),
            ("attention", True): (Activations(2.27, 0.0), Activations(3.67, 0.0)),
            ("all", False): (Activations(35.46, 0.0), Activations(46.36, 0.0)),
            ("all", True): (Activations(2.39, 0.0), Activations(3.73, 0.0)),
        },
        drawing=0.50,
        quantized={Z_IMAGE_TRANSFORMER: 0.5628},
        fp8=1.0226,
        fp8_block=0.354,
        lora={"attention": {Z_IMAGE_TRANSFORMER: 16_711_680}, "all": {Z_IMAGE_TRANSFORMER: 39_690_240}},
        lora_text={},
        tflop=(25.0, 1.64),
        reached=227.0,  # not measured: FLUX.2 klein's, whose products are as large
        largest=39_321_600,
        largest_with_text=39_321_600,
        prompt_pixels=32 * 16**2,
    ),
)
