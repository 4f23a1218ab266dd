"""What training has changed: the same questions asked of the weights before and after, from the same noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..families.latent_diffusion import Conditioning, LatentDiffusion
from ..seeds import generator_of
from .examples import Example, stack
from .objective import row_losses

STEPS = 10  # denoising steps of the picture that is compared
# Below both, nothing shows; each stands about three times or more from what was measured on either side, 50 steps. At a rate of 1e-7:
# on pocket 0.6% of the picture and 0.06% of the loss, on a small base of random weights 5.1% and 0.18% (torch 2.13.0 and 2.14.1
# alike). At 1e-6: 43% and 0.5%, 39% and 1.7%. At 1e-5: 49% and 1.8%, 91% and 11%.
LEAST_PICTURE, LEAST_LOSS = 0.15, 0.01


@dataclass(frozen=True)
class Answer:
    """What a model makes of the instance prompt: the `loss` of the photos at fixed noises, and the `latents` [1, c, h, w] of a
    picture from a fixed seed."""

    loss: float
    latents: Tensor


@dataclass(frozen=True)
class Effect:
    """How far two answers lie apart, as shares: of the picture's latents (root mean square), and of the loss that is gone."""

    picture: float
    loss: float

    @property
    def shows(self) -> bool:
        """Whether a person would see that something was learned."""
        return self.picture >= LEAST_PICTURE or self.loss >= LEAST_LOSS


def compare(before: Answer, after: Answer) -> Effect:
    """From the answer before training and the one after it."""
    changed = (after.latents - before.latents).norm() / before.latents.norm()
    return Effect(picture=changed.item(), loss=(before.loss - after.loss) / before.loss)


@torch.no_grad()
def loss_at_fixed_noises(
    family: LatentDiffusion,
    examples: Sequence[Example],
    conditioning: Conditioning,
    *,
    rows: int = 64,
    batch: int = 32,
) -> float:
    """The denoising loss of examples, those of the first one's size, under a prompt (one row of conditioning), at `rows` times and
    noises that are the same in every call.

    Before and after training, and between prompts, the noises are the same, so that a difference is the prompt's or the weights'.
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
def sketch(family: LatentDiffusion, conditioning: Conditioning, shape: torch.Size, *, seed: int = 0) -> Tensor:
    """The latents [1, c, h, w] of a picture from a fixed seed, without guidance, so that nothing but the denoiser is needed."""
    noise = torch.randn(1, *shape, generator=generator_of(seed, 0, "sketch", 0)).to(conditioning.embeddings.device)
    prompt = conditioning.rows([0])
    latents = family.noising.sketch(noise, lambda noisy, time: family.predict(noisy, time, prompt), steps=STEPS)
    return latents.float().cpu()
