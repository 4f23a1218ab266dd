"""Which place a photo shows, by what the base itself sees in it: a diffusion classifier (Li et al. 2023, arXiv 2303.16203)."""

import torch

from ..families.latent_diffusion import Conditioning, LatentDiffusion, LatentDistribution
from ..seeds import generator_of
from .objective import row_losses

# Places are recognised where there is most noise, since that is where the background is decided. With these last three of 39 times spread
# from little noise to much, pocket is right for 65 of 65 photos; with four at half the noise, for 34 (tests/benchmarks/recipe.md). When
# the worse half of the places is left out after each time, it is right for the same 65.
TIMES = slice(-3, None)
STEPS = 39


@torch.no_grad()
def find_place(family: LatentDiffusion, photo: LatentDistribution, prompts: Conditioning, *, batch: int) -> int:
    """The row of `prompts` that fits a photo best: argmin over prompts c of the sum of ||target - prediction(z_t, t, c)||^2 at the same
    times and noises for all; the worse half of the prompts is left out after each time. `batch` prompts go through the network at once."""
    device, losses = prompts.embeddings.device, torch.zeros(len(prompts.embeddings))
    left = torch.arange(len(losses))
    clean = family.sample_latents(photo, torch.zeros_like(photo.mean)).to(device)
    for number, time in enumerate(family.noising.spread(STEPS)[TIMES].to(device)):
        noise = torch.randn(clean.shape, generator=generator_of(0, number, "places", 0)).to(device)
        noisy, target = family.noising.add_noise(clean, noise, time[None]), family.noising.target(clean, noise, time[None])
        for rows in left.split(batch):
            count = len(rows)
            predicted = family.predict(noisy.expand(count, -1, -1, -1), time.expand(count), prompts.rows(rows.tolist()))
            losses[rows] += row_losses(predicted, target.expand(count, -1, -1, -1)).float().cpu()
        left = left[losses[left].argsort()[: (len(left) + 1) // 2]]
    return int(left[0])
