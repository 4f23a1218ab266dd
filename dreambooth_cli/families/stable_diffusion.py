"""Stable Diffusion 1 and 2: one CLIP text encoder, a UNet, noise as DDPM adds it; they differ in what their configs say."""

from .family import VAE, Activations, Family, Figures, LoraLayers, Part, Rates, SingleFile
from .part_config import CLIP_TEXT_MODEL, KL_VAE, UNET_2D_CONDITION

UNET, TEXT_ENCODER = "unet", "text_encoder"
# A base is recognised by its UNet, whichever pipeline of the two families its index names.
PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
)
CLIP_L, OPENCLIP_H, OPENCLIP_BIGG = 123_060_480, 340_387_840, 694_659_840  # parameters, counted from the models' configs
CLIP_LORA: dict[LoraLayers, dict[int, int]] = {
    "attention": {CLIP_L: 1_179_648, OPENCLIP_H: 3_014_656},
    "all": {CLIP_L: 2_654_208, OPENCLIP_H: 6_782_976},
}
SD1_UNET, SD2_UNET = 859_520_964, 865_910_724
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")  # parts that training and drawing do without
UNET_PART = Part(
    classes=("UNet2DConditionModel",),
    config=UNET_2D_CONDITION,
    refused={
        "time_cond_proj_dim": "is told the guidance scale, like a model distilled to few steps (LCM)",
        "class_embed_type": "has class embeddings, as unCLIP and upscalers do",
        "num_class_embeds": "has class embeddings, as unCLIP and upscalers do",
        "encoder_hid_dim": "reads other embeddings than CLIP's (as Kolors and DeepFloyd do)",
        "encoder_hid_dim_type": "reads other embeddings than CLIP's (as Kolors and DeepFloyd do)",
    },
    lora=("to_q", "to_k", "to_v", "to_out.0"),
    lora_others=("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut", "time_emb_proj"),
)
VAE_PART = Part(classes=("AutoencoderKL",), config=KL_VAE)
CLIP_PART = Part(
    classes=("CLIPTextModel", "CLIPTextModelWithProjection"),
    config=CLIP_TEXT_MODEL,
    lora=("q_proj", "k_proj", "v_proj", "out_proj"),
    lora_others=("fc1", "fc2"),
)
TOKENIZER_PART = Part(classes=("CLIPTokenizer", "CLIPTokenizerFast"))

STABLE_DIFFUSION = Family(
    name="sd",
    title="Stable Diffusion",
    live="dreambooth_cli.engine.families.stable_diffusion:StableDiffusion",
    pipeline=PIPELINES[0],
    named=PIPELINES,
    denoiser=UNET,
    denoiser_title="UNet",
    text_encoders=(TEXT_ENCODER,),
    parts={UNET: UNET_PART, VAE: VAE_PART, TEXT_ENCODER: CLIP_PART, "tokenizer": TOKENIZER_PART},
    single_file=SingleFile(
        mark="",
        starts={UNET: "model.diffusion_model.", VAE: "first_stage_model.", TEXT_ENCODER: "cond_stage_model."},
        resolution=512,
        velocity_mark="cond_stage_model.model.",  # OpenCLIP, so Stable Diffusion 2
        velocity_resolution=768,
    ),
    noise="diffusion",
    latent_side=64,
    pipeline_options={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    left_out=LEFT_OUT,
    prompt_length=77,
    class_sampler="dpm++",
    guidance=7.5,  # the default of diffusers' own pipeline
    # Full fine-tuning with the text encoder: 2e-6 for 400 steps was right for objects, 1e-6 to 2e-6 for 800 to 1,200 steps for faces
    # (huggingface.co/blog/dreambooth, 2022); without it 5e-6, as in the README of diffusers' DreamBooth script. The text encoder at half
    # the rate and for 40% of the steps: it overfits first, as that page and users of other trainers say. LoRA: 1e-4 and 5e-5, the rates
    # of diffusers' and kohya's LoRA scripts.
    rates=Rates(full_with_text=2e-6, full=5e-6, lora=1e-4, text_stop=0.4),
    # counted in a step of the full-size network (2026; fused attention, norms in float32 as under autocast on CUDA) by
    # `python -m tests.benchmarks.memory`
    figures=Figures(
        side=512,
        denoiser=SD1_UNET,
        activations={
            ("full", False): (Activations(1.26, 0.31), Activations(1.88, 0.48)),
            ("full", True): (Activations(0.28, 0.13), Activations(0.40, 0.24)),
            ("attention", False): (Activations(1.12, 0.0), Activations(1.66, 0.0)),
            ("attention", True): (Activations(0.275, 0.0), Activations(0.465, 0.0)),
            ("all", False): (Activations(1.36, 0.0), Activations(1.925, 0.0)),
            ("all", True): (Activations(0.32, 0.0), Activations(0.50, 0.0)),
        },
        drawing=0.10,
        quantized={SD1_UNET: 1.548, SD2_UNET: 1.500},
        lora={"attention": {SD1_UNET: 3_188_736, SD2_UNET: 3_319_808}, "all": {SD1_UNET: 15_942_656, SD2_UNET: 16_073_728}},
        lora_text=CLIP_LORA,
        tflop=(2.042, 0.365),
        reached=19.9,  # 0.242 s for a photo and a class image of 512 px
        largest=29_491_200,  # a convolution
        largest_with_text=50_593_792,  # the embedding of CLIP ViT-H
        # Stable Diffusion 2's attention begins with linear layers, not convolutions
        beside_lora={
            (SD2_UNET, "attention", False): 0.958,
            (SD2_UNET, "attention", True): 0.83,
            (SD2_UNET, "all", False): 0.99,
            (SD2_UNET, "all", True): 0.96,
        },
    ),
)
