"""Stable Diffusion XL: two CLIP text encoders, and a UNet that is told the picture's size."""

from dataclasses import replace

from .family import VAE, Activations, Family, Figures, Rates, SingleFile
from .stable_diffusion import (
    CLIP_L,
    CLIP_PART,
    LEFT_OUT,
    OPENCLIP_BIGG,
    PIPELINES,
    TEXT_ENCODER,
    TOKENIZER_PART,
    UNET,
    UNET_PART,
    VAE_PART,
)

TEXT_ENCODER_2 = "text_encoder_2"
XL_UNET = 2_567_463_684

SDXL = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    live="dreambooth_cli.engine.families.sdxl:StableDiffusionXL",
    pipeline="StableDiffusionXLPipeline",
    named=PIPELINES,
    denoiser=UNET,
    denoiser_title="UNet",
    text_encoders=(TEXT_ENCODER, TEXT_ENCODER_2),
    parts={
        UNET: UNET_PART,
        VAE: VAE_PART,
        TEXT_ENCODER: replace(CLIP_PART, unread=1),  # (Podell et al. 2023, arXiv 2307.01952, section 2.1)
        TEXT_ENCODER_2: replace(CLIP_PART, classes=("CLIPTextModelWithProjection",)),  # its last is read for the pooled embedding
        "tokenizer": TOKENIZER_PART,
        "tokenizer_2": TOKENIZER_PART,
    },
    marks={"addition_embed_type": "text_time"},
    single_file=SingleFile(
        mark="conditioner.embedders.",
        starts={
            UNET: "model.diffusion_model.",
            VAE: "first_stage_model.",
            TEXT_ENCODER: "conditioner.embedders.0.",
            TEXT_ENCODER_2: "conditioner.embedders.1.",
        },
        resolution=1024,
    ),
    noise="diffusion",
    latent_side=128,
    size_numbers=6,  # a refiner gets five
    pipeline_options={"add_watermarker": False},
    pipeline_flags={"force_zeros_for_empty_prompt": True},
    left_out=LEFT_OUT,
    prompt_length=77,
    class_sampler="dpm++",
    guidance=5.0,  # the default of diffusers' own pipeline
    # as for Stable Diffusion; no trainer trains XL's two text encoders in full by default
    rates=Rates(full_with_text=2e-6, full=5e-6, lora=1e-4, text_stop=0.4, trains_text=False),
    # counted as Stable Diffusion's were
    figures=Figures(
        side=1024,
        denoiser=XL_UNET,
        activations={
            ("full", False): (Activations(8.73, 0.88), Activations(13.83, 0.98)),
            ("full", True): (Activations(0.89, 0.33), Activations(1.24, 0.54)),
            ("attention", False): (Activations(7.30, 0.0), Activations(11.33, 0.0)),
            ("attention", True): (Activations(0.73, 0.0), Activations(1.10, 0.0)),
            ("all", False): (Activations(8.93, 0.0), Activations(13.88, 0.0)),
            ("all", True): (Activations(0.955, 0.0), Activations(1.48, 0.0)),
        },
        drawing=0.20,
        quantized={XL_UNET: 0.750},
        lora={"attention": {XL_UNET: 23_224_320}, "all": {XL_UNET: 48_727_040}},
        lora_text={
            "attention": {CLIP_L: 1_081_344, OPENCLIP_BIGG: 5_242_880},  # eleven of twelve blocks of the first, all of the second
            "all": {CLIP_L: 2_433_024, OPENCLIP_BIGG: 11_796_480},
        },
        tflop=(4.599, 0.1146),
        reached=68.9,  # 0.587 s for a photo and a class image of 1024 px
        largest=29_491_200,
        largest_with_text=63_242_240,  # the embedding of CLIP bigG
    ),
)
