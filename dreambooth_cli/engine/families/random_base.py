"""The catalogue's bases at their true size with random weights, to try what a machine can do with them: nothing is fetched."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2Tokenizer,
)

from ...bases.catalog import CatalogEntry
from ...bases.true_sizes import TRUE_SIZES
from ...families.family import Family, Part
from ...families.qwen3 import CHAT, END, START
from ...families.stable_diffusion import STABLE_DIFFUSION, TEXT_ENCODER, UNET
from ...identifier import byte_letters
from .loading import pipeline_class
from .parts import load_tokenizer, quiet

VOCABULARY = 49_408  # CLIP's tokens
BETAS: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
PAD, THINK, THOUGHT = "<|endoftext|>", "<think>", "</think>"
POOL = 1_000_003  # random values, repeated end to end; a prime number, so that no two rows begin alike


def write_random_base(entry: CatalogEntry, folder: Path, *, tokenizer: Path) -> Path:
    """Write a catalogue base with random weights in half precision, in diffusers' layout; returns its folder.

    `tokenizer` is the folder of any CLIP tokenizer of at most CLIP's size, for the bases that have one. The weights' bytes in half
    precision are needed on disk and, while this runs, in the machine's memory: all of Stable Diffusion's, the largest network's of the
    others. Raises OSError, or KeyError for a base whose true size is not known.
    """
    record = entry.facts.family
    with quiet():
        return write_random_flow(record, folder) if record.true_size else write_random_diffusion(entry.name, folder, tokenizer)


def write_random_diffusion(name: str, folder: Path, tokenizer: Path) -> Path:
    """`write_random_base` for Stable Diffusion."""
    unet, encoders, widths = TRUE_SIZES[name]
    read = load_tokenizer(tokenizer, CLIPTokenizer, STABLE_DIFFUSION.prompt_length)
    ends = {"bos_token_id": read.bos_token_id, "eos_token_id": read.eos_token_id, "pad_token_id": read.eos_token_id}
    configs = [text_config(one, VOCABULARY) for one in encoders]
    for config in configs:
        config.update(ends)
    with torch.device("meta"):
        texts: list[Any] = [kind(config) for kind, config in zip((CLIPTextModel, CLIPTextModelWithProjection), configs, strict=False)]
        parts: dict[str, Any] = {UNET: UNet2DConditionModel(**unet), "vae": make_vae(widths), TEXT_ENCODER: texts[0]}
    filled = {part: fill_randomly(network) for part, network in parts.items()}
    pipeline_of(name, filled, [filled[TEXT_ENCODER], *map(fill_randomly, texts[1:])], read).save_pretrained(folder)
    return folder


def write_random_flow(record: Family, folder: Path) -> Path:
    """`write_random_base` for a family that says its true size, one network after the other, in bf16, since not all fit into fp16."""
    with torch.device("meta"):
        parts = {name: network_of(record.parts[name], record.true_size[name]) for name in record.networks}
    scheduler, tokenizer = FlowMatchEulerDiscreteScheduler(**record.true_size["scheduler"]), bytes_tokenizer()
    pipeline_class(record)(scheduler=scheduler, tokenizer=tokenizer, **parts).save_config(folder)
    scheduler.save_pretrained(folder / "scheduler")
    tokenizer.save_pretrained(folder / "tokenizer")
    for name, network in parts.items():
        fill_randomly(network, torch.bfloat16)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        network.save_pretrained(folder / name)
        network.to("meta")
    return folder


def network_of(part: Part, config: Mapping[str, Any]) -> Any:
    """A network of the part's class, with these values in its config."""
    kind: Any = getattr(diffusers, part.built or part.classes[0], None)
    if kind is not None:
        return kind(**config)
    kind = getattr(transformers, part.built or part.classes[0])
    return kind(kind.config_class(**config))


def bytes_tokenizer() -> Qwen2Tokenizer:
    """A tokenizer as Qwen3 has it, but a token for each byte: the prompts of the flow families have a fixed length, or almost none."""
    marks = (PAD, START, END, THINK, THOUGHT)
    words = {token: number for number, token in enumerate([*byte_letters(), *marks])}
    tokenizer = Qwen2Tokenizer(
        vocab=words, merges=[], unk_token=PAD, pad_token=PAD, eos_token=END, additional_special_tokens=[START, END]
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def fill_randomly(network: Any, dtype: torch.dtype = torch.float16) -> Any:
    """A network from the meta device, now on the CPU in this format, its weights random and scaled so that what passes through keeps
    its size."""
    pool = torch.randn(POOL, generator=torch.Generator().manual_seed(0)).to(dtype)
    network = network.to(dtype).to_empty(device="cpu")
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.ndim < 2:  # norms' weights become 1, biases 0
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
                continue
            often = -(-weight.numel() // POOL)
            scale = 0.02 if "embedding" in name else weight[0].numel() ** -0.5
            weight.copy_((pool * scale).repeat(often)[: weight.numel()].reshape(weight.shape))
    return network


def pipeline_of(name: str, parts: dict[str, Any], texts: list[Any], tokenizer: Any) -> Any:
    """The parts put together as the pipeline of the base of this name."""
    parts |= {"tokenizer": tokenizer}
    if name == "sdxl":
        euler = EulerDiscreteScheduler(timestep_spacing="leading", **BETAS)
        more = {"text_encoder_2": texts[1], "tokenizer_2": tokenizer, "add_watermarker": False}
        return StableDiffusionXLPipeline(**parts, **more, scheduler=euler)
    none: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    scheduler: DDIMScheduler | PNDMScheduler
    if name == "sd21":
        scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, **BETAS)
    else:
        scheduler = PNDMScheduler(skip_prk_steps=True, **BETAS)
    return StableDiffusionPipeline(**parts, **none, scheduler=scheduler)


def text_config(sizes: dict[str, int], vocabulary: int) -> CLIPTextConfig:
    """A CLIP text encoder's configuration; the last two tokens of its vocabulary are start and end."""
    last = vocabulary - 1
    tokens = {"vocab_size": vocabulary, "bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last}
    values: dict[str, Any] = {**sizes, **tokens, "projection_dim": 1280}
    return CLIPTextConfig(**values)


def make_vae(widths: tuple[int, ...]) -> AutoencoderKL:
    """A VAE like Stable Diffusion's, with these widths."""
    return AutoencoderKL(
        latent_channels=4,
        layers_per_block=2,
        sample_size=512,
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        force_upcast=False,
    )
