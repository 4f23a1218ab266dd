"""The settings as keyword arguments, for type checkers and editors: written from settings.py by `python -m tests.test_api`."""

from pathlib import Path
from typing import Literal, TypedDict

from .settings import Auto, LoraLayers, Schedule, Scheduler


class RunSettings(TypedDict, total=False):
    """Of a run: the subject, how its photos are prepared, how the base is fine-tuned."""

    photos: str | Path | None
    """Folder with 3 to 5 photos of the subject."""
    class_prompt: str | None
    """What the subject is, in general: "a dog"."""
    identifier: str
    """The rare word that will stand for the subject."""
    model: str
    """Base model: a name of `dreambooth models`, a hub repository, a diffusers folder or a .safetensors file."""
    resolution: int | Auto
    """Side of the square training pictures in pixels; auto: the base model's own."""
    crop: Literal["center", "top", "none"]
    """Which square of a photo is kept: its middle, or its top (people standing); none: each photo keeps its shape."""
    strict: bool
    """Refuse photos of which there is something to say (exit code 3)."""
    method: Literal["auto", "full", "lora"]
    """Train all layers (full) or small added ones (lora); auto: full wherever it fits."""
    train_text_encoder: bool | Auto
    """Fine-tune the text encoder as well; auto: wherever it fits, SDXL's never."""
    steps: int
    """Optimizer steps."""
    batch_size: int
    """Photos in a batch."""
    class_batch_size: int | Auto
    """Class images in a batch; auto: as many as photos."""
    gradient_accumulation: int
    """Batches that make one optimizer step."""
    learning_rate: float | Auto
    """Auto: 1e-4 for lora, 5e-6 for full, 2e-6 with the text encoder."""
    text_encoder_learning_rate: float | Auto
    """The text encoder's own rate; auto: half of the other."""
    text_encoder_stop: int | Auto
    """Step after which the text encoder stays as it is; 0: never; auto: after 40% of the steps of full fine-tuning."""
    lr_schedule: Schedule
    """How the learning rate runs over the steps."""
    warmup_steps: int
    """Steps over which the rate rises from 0."""
    optimizer: Literal["auto", "adamw", "adamw8bit"]
    """AdamW, or AdamW with 8-bit state (needs the 8bit extra)."""
    weight_decay: float
    """AdamW's weight decay."""
    max_grad_norm: float
    """Clip gradients to this norm; 0: no clipping."""
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    """Number format of the forward pass."""
    gradient_checkpointing: bool | Auto
    """Compute activations again in backward: less memory, a slower step."""
    rank: int
    """LoRA rank."""
    lora_layers: LoraLayers
    """Layers that LoRA is put beside: those of attention, or all, the feed-forward layers and the convolutions too."""
    alpha: float | Auto
    """LoRA alpha; auto: the rank."""
    ema: bool
    """Keep an exponential moving average of the weights and save that."""
    ema_decay: float
    """How slowly the average follows."""
    snr_gamma: float
    """Min-SNR weighting of the loss with this gamma; 0: off."""
    prior_loss_weight: float
    """Weight of the class images in the loss (lambda); 0: no prior preservation."""
    class_images: int
    """Class images that keep the class what it was; 0: no prior preservation."""
    class_data_dir: str | Path | None
    """Your own class images; only what is missing is made."""
    class_image_steps: int
    """Denoising steps of a class image."""
    class_guidance_scale: float
    """Guidance scale of the class images."""
    frames: Literal["own", "varied"]
    """Sentences that the subject is trained in: your own, or now and then another, with the place that a photo shows."""
    caption_dropout: float
    """Share of the times that your own sentence comes without the photo's caption, or the place that it shows."""
    mirror: bool
    """Also train on the photos mirrored; not for text or asymmetric things."""
    seed: int
    """Every random number of the run follows from it."""
    checkpoint_every: int
    """Steps between checkpoints; 0: only at the end."""
    checkpoint_minutes: float
    """Save one after so many minutes too, where steps are slow; 0: by their number alone."""
    keep_checkpoints: int
    """Checkpoints that are kept, the newest."""
    rehearsal: bool
    """Go through every phase once, in small, before the run; runs under 50 steps never do."""
    sample_every: int
    """Steps between sample pictures; 0: none."""
    sample_prompt: str | None
    """A prompt of your own for the samples."""
    sample_steps: int
    """Denoising steps of a sample."""
    save_dtype: Literal["fp32", "bf16", "fp16"]
    """Number format of the saved model."""


class DrawingSettings(TypedDict, total=False):
    """Of pictures."""

    negative_prompt: str
    """What the picture should not show."""
    num_images: int
    """How many pictures."""
    seed: int | Auto
    """Picture i uses seed + i; auto: drawn, and said."""
    steps: int
    """Denoising steps."""
    guidance_scale: float | Auto
    """How strictly the prompt is followed; auto: 7.5, for SDXL and pocket 5."""
    width: int | Auto
    """Width in pixels; auto: as trained."""
    height: int | Auto
    """Height in pixels; auto: as trained."""
    scheduler: Scheduler
    """Noise scheduler by name; auto: the model's own."""
    batch_size: int
    """Pictures drawn at once."""
