"""The catalogue's bases at their true size with random weights, to try what a machine can do with them: nothing is fetched."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3Model,
)

from ...bases.true_sizes import FLOW_SIZES, QWEN3_4B, TRUE_SIZES
from ...families.qwen3 import CHAT, END, START
from ...families.stable_diffusion import STABLE_DIFFUSION, TEXT_ENCODER, UNET
from ...identifier import byte_letters
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


def write_random_base(name: str, folder: Path, *, tokenizer: Path) -> Path:
    """Write a catalogue base with random weights in half precision, in diffusers' layout; returns its folder.

    `tokenizer` is the folder of any CLIP tokenizer of at most CLIP's size, for the bases that have one. The weights' bytes in half
    precision are needed on disk and, while this runs, in the machine's memory: all of Stable Diffusion's, the largest network's of the
    flow families. Raises OSError, or KeyError for a name whose true size is not known.
    """
    with quiet():
        return write_random_flow(name, folder) if name in FLOW_SIZES else write_random_diffusion(name, folder, tokenizer)


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


def write_random_flow(name: str, folder: Path) -> Path:
    """`write_random_base` for the flow families, one network after the other, in bf16: its values don't fit into fp16."""
    transformer, layers, vae = FLOW_SIZES[name]
    with torch.device("meta"):
        parts: dict[str, Any] = {
            "transformer": Flux2Transformer2DModel(**transformer) if name == "klein" else ZImageTransformer2DModel(**transformer),
            "text_encoder": Qwen3Model(Qwen3Config(**QWEN3_4B, num_hidden_layers=layers)),
            "vae": AutoencoderKLFlux2(**vae) if name == "klein" else AutoencoderKL(**vae),
        }
    tokenizer = bytes_tokenizer()
    if name == "klein":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
        pipe: Any = Flux2KleinPipeline(scheduler=scheduler, tokenizer=tokenizer, **parts)
    else:
        scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
        pipe = ZImagePipeline(scheduler=scheduler, tokenizer=tokenizer, **parts)
    pipe.save_config(folder)
    scheduler.save_pretrained(folder / "scheduler")
    tokenizer.save_pretrained(folder / "tokenizer")
    for part, network in parts.items():
        fill_randomly(network, torch.bfloat16)
        if isinstance(network, AutoencoderKLFlux2):
            network.bn.reset_running_stats()
        network.save_pretrained(folder / part)
        network.to("meta")
    return folder


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
