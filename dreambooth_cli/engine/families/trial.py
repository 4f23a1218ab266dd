"""A short trial of a pipeline before any long work: each network runs once, on a very small input."""

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig

from ...families.family import VAE, tokenizer_of
from ..refusal import refused
from .latent_diffusion import Conditioning, LatentDiffusion, denoiser_of

SIDE = 8  # of the trial's latents; more where a UNet of many levels needs it


def try_networks(family: LatentDiffusion, device: torch.device) -> None:
    """Run text encoders, denoiser and VAE once, on torch's meta device (only shapes, nothing is computed) or where the weights are.

    Raises ModelUnavailable if parts do not fit each other, or if a result is not finite.
    """
    with torch.no_grad():
        conditioning = _try_text(family)
        latents = _try_denoiser(family, device, conditioning)
        _try_vae(family, latents)


def _try_text(family: LatentDiffusion) -> Conditioning:
    """The conditioning that a short prompt gives."""
    names = family.record.text_encoders
    for name in names:
        with refused(f"a prompt can't go through {name}"):
            _check_tokens(getattr(family.pipe, name), getattr(family.pipe, tokenizer_of(name)))
    words = " and ".join(names)
    with refused(f"a prompt can't go through {words}"):
        conditioning = family.encode_prompts(["a photo"])
    _finite(conditioning.embeddings, words)
    if conditioning.pooled is not None:
        _finite(conditioning.pooled, words)
    return conditioning


def _check_tokens(encoder: Any, tokenizer: Any) -> None:
    """Check that a text encoder's vocabulary fits its tokenizer's. Raises ValueError."""
    ids = tokenizer("a photo", padding="max_length", max_length=tokenizer.model_max_length, truncation=True).input_ids
    if max(ids) >= encoder.config.vocab_size:
        raise ValueError(f"vocab_size {encoder.config.vocab_size:,} is too small for its tokenizer ({max(ids):,})")
    if not isinstance(encoder.config, CLIPTextConfig):
        return
    ends = encoder.config.eos_token_id
    if ends not in (2, tokenizer.eos_token_id):
        raise ValueError(f"eos_token_id {ends} is not the end of its tokenizer's prompts ({tokenizer.eos_token_id})")


def _try_denoiser(family: LatentDiffusion, device: torch.device, conditioning: Conditioning) -> Tensor:
    """What the denoiser predicts, [1, c, h, w]."""
    name, network = family.record.denoiser, denoiser_of(family)
    with refused(f"latents and a prompt can't go through {name}"):
        side = max(SIDE, 2 ** (len(network.config.get("block_out_channels", [SIDE])) - 1))
        shape = (1, network.config.in_channels, side, side)
        noise = torch.linspace(-1, 1, shape[1] * side * side, dtype=conditioning.embeddings.dtype).reshape(shape).to(device)
        predicted = family.predict(noise, family.noising.spread(1).to(device), conditioning)
        if predicted.shape != noise.shape:
            raise ValueError(f"it gives {tuple(predicted.shape)} where {tuple(noise.shape)} is needed")
    return _finite(predicted, name)


def _try_vae(family: LatentDiffusion, latents: Tensor) -> None:
    """Latents to a picture and back."""
    vae = family.pipe.vae
    with refused(f"a picture can't go through {VAE}"):
        factor = 2 ** (len(vae.config.block_out_channels) - 1) * round(family.record.channels**0.5)
        picture = family.decode(torch.zeros_like(latents))
        wanted = (1, 3, latents.shape[-2] * factor, latents.shape[-1] * factor)
        if tuple(picture.shape) != wanted:
            raise ValueError(f"it gives a picture of {tuple(picture.shape)} where {wanted} is needed")
        encoded = family.encode_images(picture)
        back = family.sample_latents(encoded, torch.zeros_like(encoded.std))
        if back.shape != latents.shape:
            raise ValueError(f"it gives latents of {tuple(back.shape)} where {tuple(latents.shape)} is needed")
    if vae.dtype == torch.float32:  # in half precision SDXL's own overflows, which is normal: it then decodes in float32
        _finite(back, VAE)


def _finite(tensor: Tensor, part: str) -> Tensor:
    with refused(f"a trial of {part}"):
        if tensor.device.type != "meta" and not bool(tensor.isfinite().all()):
            raise ValueError("it gives numbers that are not finite")
    return tensor
