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
    """Rare word for the subject; auto: chosen from the base's vocabulary."""
    model: str
    """Base model; a name from `dreambooth models`, a hub repository, a diffusers folder or a .safetensors file."""
    resolution: int | Auto
    """Training size, pixels a side; auto: the base model's own."""
    crop: Literal["auto", "center", "top", "bottom", "left", "right", "pad", "none"]
    """Which square of a photo is kept; auto: the one round the subject; pad: all of it, with a border; none: its own shape."""
    strict: bool
    """Refuse photos that something is wrong with (exit code 3)."""
    method: Literal["auto", "full", "lora"]
    """Train all layers, or a LoRA; auto: all layers wherever they fit."""
    train_text_encoder: bool | Auto
    """Train the text encoder too; auto: wherever it fits, SDXL's never."""
    steps: int
    """Optimizer steps to train."""
    batch_size: int
    """Photos in a batch."""
    class_batch_size: int | Auto
    """Class images in a batch; auto: as many as photos."""
    gradient_accumulation: int
    """Batches in one optimizer step."""
    learning_rate: float | Auto
    """How far a step moves the weights; auto: 1e-4 for lora, 5e-6 for full, 2e-6 with the text encoder."""
    text_encoder_learning_rate: float | Auto
    """The text encoder's own rate; auto: half of --learning-rate."""
    text_encoder_stop: int | Auto
    """Step after which the text encoder is left alone; 0: never; auto: after 40% of the steps of full fine-tuning."""
    lr_schedule: Schedule
    """How the learning rate changes over the steps."""
    warmup_steps: int
    """Steps over which the learning rate rises from 0."""
    optimizer: Literal["auto", "adamw", "adamw8bit"]
    """AdamW, or AdamW with 8-bit state (needs the 8bit extra); auto: 8-bit only where memory is short."""
    weight_decay: float
    """AdamW's weight decay."""
    max_grad_norm: float
    """Clip gradients to this norm; 0: no clipping."""
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """Number format of the forward pass; auto: the best that the GPU is quick with."""
    gradient_checkpointing: bool | Auto
    """Compute activations twice: less memory, slower steps; auto: only where memory is short."""
    rank: int | Auto
    """Rank of the LoRA, its file grows with it; auto: 16, for klein and Z-Image 32."""
    lora_layers: LoraLayers
    """Layers that the LoRA is put beside: attention only, or all, feed-forward layers and convolutions too."""
    alpha: float | Auto
    """Alpha of the LoRA, scaled by alpha / rank; auto: the rank."""
    ema: bool
    """Keep an exponential moving average of the weights and save that."""
    ema_decay: float
    """How slowly the average follows, from 0 to 1."""
    snr_gamma: float
    """Min-SNR weighting of the loss with this gamma; 0: off."""
    prior: Prior
    """What keeps the class: class-images, base (a LoRA is held against its base), none; auto: class-images, klein and Z-Image base."""
    prior_every: int
    """With --prior base: how many steps lie between two that look at the base."""
    prior_loss_weight: float
    """Weight of prior preservation in the loss (lambda); 0: prior preservation is off."""
    class_images: int
    """Class images to make; they keep the class as it was; 0: none."""
    class_data_dir: str | Path | None
    """Folder with class images of your own; only missing ones are made."""
    class_image_steps: int
    """Denoising steps for each class image."""
    class_guidance_scale: float | Auto
    """Guidance scale for the class images; auto: 7.5, for klein and Z-Image 4."""
    frames: Literal["own", "varied"]
    """Sentences that the subject is trained in: your own, or now and then another, with the place that a photo shows."""
    caption_dropout: float
    """How often your own sentence comes without the photo's caption or the place that it shows, from 0 to 1."""
    allow_distilled: bool
    """Train a base that is distilled to a few steps all the same, which loses them."""
    mirror: bool
    """Also mirror the photos; not for text or things that are not symmetric."""
    seed: int
    """Seed of the run; all its random numbers follow from it."""
    checkpoint_every: int
    """Steps from one checkpoint to the next; 0: only at the end."""
    checkpoint_minutes: float
    """Save one after this many minutes too, where steps are slow; 0: don't."""
    keep: Literal["last", "best", "all"]
    """Steps whose weights stay after the run, to draw with: the last, the best as well, or all."""
    judge: Literal["none", "auto"]
    """Whether the steps are judged at the end, by DINO and CLIP (fetched once, 0.7 GB); pocket has its own."""
    keep_checkpoints: int
    """How many checkpoints are kept, the newest."""
    rehearsal: bool
    """Try every phase once, in small, before the run; runs under 50 steps never do."""
    sample_every: int | Auto
    """Steps between sample pictures; auto: four times in the run; 0: none."""
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
    """How many pictures."""
    seed: int | Auto
    """Picture i uses seed + i; auto: a new one, which is said."""
    steps: int | Auto
    """Denoising steps for each picture; auto: 50, for Z-Image 30."""
    guidance_scale: float | Auto
    """How strictly the prompt is followed; auto: 7.5, SDXL and pocket 5, klein and Z-Image 4 (Z-Image counts from 0, not from 1)."""
    width: int | Auto
    """Width in pixels; auto: as trained."""
    height: int | Auto
    """Height in pixels; auto: as trained."""
    scheduler: Scheduler
    """Noise scheduler; auto: the model's own."""
    fast: bool
    """Draw in a few steps, with the distilled twin of the LoRA's base: klein has one."""
    batch_size: int
    """Pictures drawn at once."""
