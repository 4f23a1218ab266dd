"""The settings as keyword arguments, for type checkers and editors: written from settings.py by `python -m tests.test_api`."""

from pathlib import Path
from typing import Literal, TypedDict

from .settings import Auto, LoraLayers, Prior, Schedule, Scheduler


class RunSettings(TypedDict, total=False):
    """Of a run: the subject, how its photos are prepared, how the base is fine-tuned."""

    photos: str | Path | None
    """Folder with 3 to 5 photos of the subject."""
    class_prompt: str | None
    """What the subject is, in general: "a dog"."""
    identifier: str
    """Rare word for the subject; auto: chosen from the base model's vocabulary."""
    model: str
    """Base model; a name from `dreambooth models`, a hub repository, a diffusers folder or a .safetensors file."""
    resolution: int | Auto
    """Training size in pixels; auto: the base model's own."""
    crop: Literal["auto", "center", "top", "bottom", "left", "right", "pad", "none"]
    """Which square of a photo is kept; auto: the one around the subject; pad: all of it, with a border; none: the photo's own shape."""
    strict: bool
    """Refuse photos that have a problem, instead of only saying so (exit code 3)."""
    method: Literal["auto", "full", "lora"]
    """Train all layers, or a LoRA; auto: all layers if they fit in memory."""
    train_text_encoder: bool | Auto
    """Train the text encoder too; auto: if it fits, for Stable Diffusion 1 and 2 only."""
    steps: int
    """Number of training steps."""
    batch_size: int
    """Photos per batch."""
    class_batch_size: int | Auto
    """Class images per batch; auto: as many as photos."""
    gradient_accumulation: int
    """Batches per training step."""
    learning_rate: float | Auto
    """How far a step moves the weights; auto: by base; for Stable Diffusion 1e-4 for LoRA, 5e-6 for full, 2e-6 with the text encoder."""
    text_encoder_learning_rate: float | Auto
    """Learning rate of the text encoder; auto: half of --learning-rate."""
    text_encoder_stop: int | Auto
    """Step after which the text encoder is no longer trained; 0: trained to the end; auto: with method full, after 40% of the steps."""
    lr_schedule: Schedule
    """How the learning rate changes over the steps."""
    warmup_steps: int
    """Steps over which the learning rate rises from 0."""
    optimizer: Literal["auto", "adamw", "adamw8bit"]
    """AdamW, or AdamW with 8-bit state (needs the 8bit extra); auto: 8-bit only if memory is short."""
    weight_decay: float
    """AdamW's weight decay."""
    max_grad_norm: float
    """Clip gradients to this norm; 0: no clipping."""
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """Number format of the forward pass; auto: bf16 or fp16 where the hardware is good at it, else fp32."""
    gradient_checkpointing: bool | Auto
    """Compute activations twice: less memory, slower steps; auto: only if memory is short."""
    rank: int | Auto
    """Rank of the LoRA (a higher rank makes a larger file); auto: 16, or 32 for klein and Z-Image."""
    lora_layers: LoraLayers
    """Layers that get a LoRA: attention only, or all, which adds feed-forward layers and convolutions."""
    alpha: float | Auto
    """Alpha of the LoRA, which is scaled by alpha / rank; auto: the rank."""
    ema: bool
    """Keep an exponential moving average (EMA) of the weights and save that."""
    ema_decay: float
    """How slowly the EMA follows the weights, from 0 to 1."""
    snr_gamma: float
    """Min-SNR weighting of the loss with this gamma; 0: off."""
    prior: Prior
    """What keeps the class: class-images, base (a LoRA is compared with it) or none; auto: base for klein, Z-Image, else class-images."""
    prior_every: int
    """With --prior base: every how many steps the LoRA is compared with its base."""
    prior_loss_weight: float
    """Weight of prior preservation in the loss (lambda); 0: off."""
    class_images: int
    """Number of class images; they keep the class as it was; 0: none."""
    class_data_dir: str | Path | None
    """Folder with class images of your own; only those still missing are drawn."""
    class_image_steps: int
    """Denoising steps for each class image."""
    class_guidance_scale: float | Auto
    """Guidance scale for the class images; auto: 7.5, or 4 for klein and Z-Image."""
    frames: Literal["own", "varied"]
    """Sentences to train the subject in: own (your prompt), or varied (now and then another, naming the place that the photo shows)."""
    caption_dropout: float
    """How often the prompt leaves out the photo's caption or place, from 0 to 1."""
    class_place_every: int
    """With --frames varied: every how many class images one is set in a place."""
    allow_distilled: bool
    """Train a distilled base anyway, although it then no longer draws in a few steps."""
    mirror: bool
    """Also mirror the photos; not for text or asymmetric things."""
    seed: int
    """Seed of the run; all its random numbers follow from it."""
    checkpoint_every: int
    """Steps between checkpoints; 0: only at the end."""
    checkpoint_minutes: float
    """Also save a checkpoint after this many minutes, for slow steps; 0: off."""
    keep: Literal["last", "best", "all"]
    """Steps whose weights are kept after the run, to draw with: the last, the last and the best, or all."""
    judge: Literal["none", "auto"]
    """Who judges the steps at the end: none, or auto (DINO and CLIP, fetched once, 0.7 GB); pocket has a judge of its own."""
    keep_checkpoints: int
    """How many of the newest checkpoints are kept during the run."""
    rehearsal: bool
    """Try every phase once before the run, so that trouble shows early; runs under 50 steps skip it."""
    sample_every: int | Auto
    """Steps between sample pictures; auto: four rounds in the run; 0: none."""
    sample_prompt: str | None
    """A prompt of your own for the samples."""
    sample_steps: int
    """Denoising steps for each sample."""
    save_dtype: Literal["fp32", "bf16", "fp16"]
    """Number format of the saved weights."""


class DrawingSettings(TypedDict, total=False):
    """Of pictures."""

    negative_prompt: str
    """What the picture should not show."""
    num_images: int
    """How many pictures to draw."""
    seed: int | Auto
    """Seed of the first picture, picture i uses seed + i; auto: a new one, which is shown."""
    steps: int | Auto
    """Denoising steps for each picture; auto: 50, or 30 for Z-Image."""
    guidance_scale: float | Auto
    """How strictly the prompt is followed; auto: 7.5, or 5 for SDXL and pocket, 4 for klein and Z-Image (Z-Image's starts at 0, not 1)."""
    width: int | Auto
    """Width in pixels; auto: as trained."""
    height: int | Auto
    """Height in pixels; auto: as trained."""
    scheduler: Scheduler
    """Noise scheduler; auto: the model's own."""
    fast: bool
    """Draw in a few steps with the distilled twin of the LoRA's base (klein has one)."""
    batch_size: int
    """Pictures drawn at once."""
