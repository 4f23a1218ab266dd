"""A short trial of a pipeline before any long work: each network once, on the smallest input that it takes."""

from typing import Any

import torch
from torch import Tensor

from .refusal import refused

SIDE = 8  # latents in one direction, or what a UNet of more levels needs


def try_networks(pipe: Any, device: torch.device) -> None:
    """Run prompt, UNet, scheduler and VAE once, on torch's meta device (shapes alone, nothing computed) or where the weights are.

    Raises ModelUnavailable where parts do not fit each other, or a number that comes out is not finite.
    """
    with torch.no_grad():
        embeddings, pooled = _try_text(pipe, device)
        latents = _try_unet(pipe, device, embeddings, pooled)
        _try_vae(pipe, latents)


def _try_text(pipe: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """The embeddings [1, T, D] of a prompt, those of both encoders of an XL base side by side, and the last one's pooled one."""
    found, output = [], None
    for name in ("text_encoder", "text_encoder_2"):
        encoder = getattr(pipe, name, None)
        if encoder is None:
            continue
        tokenizer = getattr(pipe, name.replace("text_encoder", "tokenizer"))
        with refused(f"a prompt can't go through {name}"):
            ids = tokenizer(
                "a photo", padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
            ).input_ids
            if int(ids.max()) >= encoder.config.vocab_size:
                raise ValueError(f"vocab_size {encoder.config.vocab_size:,} is too small for its tokenizer ({int(ids.max()):,})")
            ends = encoder.config.eos_token_id
            if ends not in (2, tokenizer.eos_token_id):
                raise ValueError(f"eos_token_id {ends} is not the end of its tokenizer's prompts ({tokenizer.eos_token_id})")
            output = encoder(ids.to(device), output_hidden_states=True)
            found.append(_finite(output.hidden_states[-2] if hasattr(pipe, "text_encoder_2") else output.last_hidden_state, name))
    assert output is not None
    return torch.cat(found, dim=-1), output[0]


def _try_unet(pipe: Any, device: torch.device, embeddings: Tensor, pooled: Tensor) -> Tensor:
    """What the UNet predicts, [1, c, h, w]."""
    unet = pipe.unet
    with refused("latents and a prompt can't go through unet"):
        side = max(SIDE, 2 ** (len(unet.config.block_out_channels) - 1))
        noise = torch.linspace(-1, 1, unet.config.in_channels * side * side, dtype=embeddings.dtype)
        noise = noise.reshape(1, unet.config.in_channels, side, side).to(device)
        added = None
        if hasattr(pipe, "text_encoder_2"):
            added = {"text_embeds": pooled, "time_ids": torch.ones(1, 6, device=device, dtype=embeddings.dtype)}
        step = torch.tensor([1], device=device)
        predicted: Tensor = unet(noise, step, embeddings, added_cond_kwargs=added, return_dict=False)[0]
        if predicted.shape != noise.shape:
            raise ValueError(f"it gives {tuple(predicted.shape)} where {tuple(noise.shape)} is needed")
    return _finite(predicted, "unet")


def _try_vae(pipe: Any, latents: Tensor) -> None:
    """Latents to a picture and back."""
    vae = pipe.vae
    with refused("a picture can't go through vae"):
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        picture = vae.decode(torch.zeros_like(latents), return_dict=False)[0]
        wanted = (1, 3, latents.shape[-2] * factor, latents.shape[-1] * factor)
        if tuple(picture.shape) != wanted:
            raise ValueError(f"it gives a picture of {tuple(picture.shape)} where {wanted} is needed")
        back = vae.encode(picture).latent_dist.mean
        if back.shape != latents.shape:
            raise ValueError(f"it gives latents of {tuple(back.shape)} where {tuple(latents.shape)} is needed")
    if vae.dtype == torch.float32:  # in half precision SDXL's own overflows, and is decoded in float32
        _finite(back, "vae")


def _finite(tensor: Tensor, part: str) -> Tensor:
    with refused(f"a trial of {part}"):
        if tensor.device.type != "meta" and not bool(tensor.isfinite().all()):
            raise ValueError("numbers that are not finite come out of it")
    return tensor
