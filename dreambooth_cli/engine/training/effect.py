"""What training has changed: the weights before and after are asked the same questions, from the same noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...verdict import Figures
from ..families.latent_diffusion import Conditioning, LatentDiffusion
from ..seeds import generator_of
from .examples import Example, stack
from .objective import row_losses


@dataclass(frozen=True)
class Answer:
    """What a model makes of the instance prompt and the class prompt: under each of them the loss of the photos, at fixed noises, and
    the latents [1, c, h, w] of a picture, from a fixed seed."""

    loss: float
    class_loss: float
    latents: Tensor
    class_latents: Tensor


def compare(before: Answer, after: Answer) -> Figures:
    """The figures of the verdict, from the answers before and after training."""
    return Figures(
        loss=(before.loss, after.loss),
        class_loss=(before.class_loss, after.class_loss),
        picture=_apart(before.latents, after.latents),
        class_picture=_apart(before.class_latents, after.class_latents),
    )


def _apart(before: Tensor, after: Tensor) -> float:
    """How much a picture's latents differ, as a share of the earlier ones, by root mean square."""
    share: float = ((after - before).norm() / before.norm()).item()
    return share


@torch.no_grad()
def loss_at_fixed_noises(
    family: LatentDiffusion,
    examples: Sequence[Example],
    conditioning: Conditioning,
    *,
    rows: int = 64,
    batch: int = 32,
) -> float:
    """The mean denoising loss of the examples (only those of the first one's size) under one prompt, the first row of `conditioning`, at
    `rows` times and noises that are the same in every call. `batch` rows go through the network at once.

    Because the noises are the same before and after training, and for every prompt, a difference comes from the prompt or the weights.
    """
    alike = stack(each.latents for each in examples if each.shape == examples[0].shape)
    mean, device = alike.mean, conditioning.embeddings.device
    generator = generator_of(0, 0, "fixed noises", 0)
    pictures = torch.arange(rows) % len(mean)
    times = family.noising.spread(rows)
    noise = torch.randn(rows, *mean.shape[1:], generator=generator).to(device)
    clean = family.sample_latents(alike, torch.zeros_like(mean))[pictures].to(device)
    losses = []
    for start in range(0, rows, batch):
        part = slice(start, start + batch)
        at = times[part].to(device)
        noisy = family.noising.add_noise(clean[part], noise[part], at)
        predicted = family.predict(noisy, at, conditioning.rows([0] * len(at)))
        losses.append(row_losses(predicted, family.noising.target(clean[part], noise[part], at)))
    return torch.cat(losses).mean().item()


@torch.no_grad()
def sketch(family: LatentDiffusion, conditioning: Conditioning, shape: torch.Size, *, steps: int, seed: int = 0) -> Tensor:
    """The latents [1, c, h, w] of a picture from a fixed seed, float32 on the CPU, in `steps` denoising steps without guidance, so that
    only the denoiser is needed. `shape` is theirs without the first axis."""
    noise = torch.randn(1, *shape, generator=generator_of(seed, 0, "sketch", 0)).to(conditioning.embeddings.device)
    prompt = conditioning.rows([0])
    latents = family.noising.sketch(noise, lambda noisy, time: family.predict(noisy, time, prompt), steps=steps)
    return latents.float().cpu()
