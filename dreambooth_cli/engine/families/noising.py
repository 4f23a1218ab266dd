"""How noise is added to latents and what the network is to predict: diffusion and rectified flow.

z are clean latents, eps is noise of the same shape, both [B, c, h, w]; times are [B].
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import torch
from diffusers import DDIMScheduler
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]  # noisy latents [1, c, h, w] and their time [1] -> the prediction


class Noising(Protocol):
    """What training needs to know of a family's noise."""

    def random_time(self, generator: torch.Generator, shape: torch.Size) -> int | float:
        """A random time, distributed as the family is trained; `shape` is that of one row's latents, c, h, w."""

    def spread(self, count: int) -> Tensor:
        """`count` times [count], spread evenly from little noise to much."""

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The noisy latents at these times."""

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """What the network should predict."""

    def loss_weights(self, times: Tensor, snr_gamma: float) -> Tensor:
        """The weight of each row's loss by its own time [B]; all 1 if `snr_gamma` is 0."""

    def sketch(self, noise: Tensor, predict: Predict, *, steps: int) -> Tensor:
        """From pure noise [1, c, h, w] to latents, in a few steps without any randomness."""


class Diffusion:
    """z_t = alpha_t z + sigma_t eps at whole timesteps t (Ho et al. 2020, arXiv 2006.11239, eq. 4), alpha_t^2 + sigma_t^2 = 1."""

    def __init__(self, scheduler: Any) -> None:
        """`scheduler`, a DDPMScheduler, gives the betas and says whether the network predicts eps (`epsilon`) or v (`v_prediction`)."""
        self.scheduler = scheduler
        self.snr_weights: dict[tuple[float, torch.device], Tensor] = {}  # of every timestep, computed when first needed

    @property
    def predicts_noise(self) -> bool:
        """Whether the network predicts eps, not v."""
        return bool(self.scheduler.config.prediction_type == "epsilon")

    def random_time(self, generator: torch.Generator, shape: torch.Size) -> int:
        """Uniform over the scheduler's timesteps."""
        count = int(self.scheduler.config.num_train_timesteps)
        return int(torch.randint(0, count, (), generator=generator))

    def spread(self, count: int) -> Tensor:
        """Timesteps, int64 [count]."""
        return torch.linspace(0, 1, count + 2)[1:-1].mul(len(self.scheduler.alphas_cumprod)).long()

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """z_t = alpha_t z + sigma_t eps."""
        noisy: Tensor = self.scheduler.add_noise(latents, noise, times)
        return noisy

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """eps, or v = alpha_t eps - sigma_t z (Salimans and Ho 2022, arXiv 2202.00512, eq. 15) for velocity models."""
        if self.predicts_noise:
            return noise
        velocity: Tensor = self.scheduler.get_velocity(latents, noise, times)
        return velocity

    def loss_weights(self, times: Tensor, snr_gamma: float) -> Tensor:
        """Min-SNR weights [B] (Hang et al. 2023, arXiv 2303.09556, section 3.4): min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for
        velocity."""
        if not snr_gamma:
            return torch.ones(len(times), device=times.device)
        key = (snr_gamma, times.device)
        if key not in self.snr_weights:  # copied once: looking them up on the CPU would wait for the GPU in every step
            self.snr_weights[key] = self.every_loss_weight(snr_gamma).to(times.device)
        return self.snr_weights[key][times]

    def every_loss_weight(self, snr_gamma: float) -> Tensor:
        """The weight of every timestep, float32 [T], on the CPU."""
        # in float64, since in float32 1 - alpha loses its last digits at the smallest timesteps
        alphas = torch.cumprod(1 - self.scheduler.betas.double(), dim=0)
        sigmas = 1 - alphas
        # SNR = alphas / sigmas; written so that a schedule that ends in SNR 0 does not divide by zero
        if self.predicts_noise:
            weights = torch.clamp(snr_gamma * sigmas / alphas.clamp_min(1e-12), max=1.0)
        else:
            weights = torch.minimum(alphas, snr_gamma * sigmas)
        return weights.float()

    def sketch(self, noise: Tensor, predict: Predict, *, steps: int) -> Tensor:
        """DDIM (Song et al. 2021, arXiv 2010.02502)."""
        scheduler = DDIMScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(steps, device=noise.device)
        latents = noise
        for timestep in scheduler.timesteps:
            latents = scheduler.step(predict(latents, timestep[None]).float(), timestep, latents).prev_sample
        return latents


class RectifiedFlow:
    """z_sigma = (1 - sigma) z + sigma eps at any sigma in 0..1: a straight path whose velocity is dz/dsigma = eps - z (Liu et al.
    2022, arXiv 2209.03003, eq. 1). This is the sign used here; the live class of a family whose network predicts z - eps negates it."""

    def __init__(self, shift: Callable[[torch.Size], float]) -> None:
        """`shift` gives, from the shape of a row's latents, c, h, w, how far its times are shifted towards noise; 1: not at all."""
        self.shift = shift

    def random_time(self, generator: torch.Generator, shape: torch.Size) -> float:
        """sigma = logistic(n), n ~ N(0, 1) (Esser et al. 2024, arXiv 2403.03206, section 3.1), then shifted. It is not taken from a
        scheduler's thousand sigmas, whose own shift may be meant for drawing."""
        spread = torch.randn((), generator=generator, dtype=torch.float64).sigmoid()
        return float(shifted(spread, self.shift(shape)))

    def spread(self, count: int) -> Tensor:
        """Sigmas, float32 [count]."""
        return torch.linspace(0, 1, count + 2)[1:-1]

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """(1 - sigma) z + sigma eps."""
        sigma = times.to(latents.dtype)[:, None, None, None]
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """eps - z, at every sigma."""
        return noise - latents

    def loss_weights(self, times: Tensor, snr_gamma: float) -> Tensor:
        """All 1: the choice of sigmas is the weighting. The plan refuses a gamma."""
        return torch.ones(len(times), device=times.device)

    def sketch(self, noise: Tensor, predict: Predict, *, steps: int) -> Tensor:
        """Euler's method from sigma 1 to 0, at even steps of the shifted sigmas."""
        sigmas = shifted(torch.linspace(1, 0, steps + 1), self.shift(noise.shape[1:]))
        latents = noise
        for sigma, following in pairwise(sigmas):
            latents = latents + (following - sigma) * predict(latents, sigma[None].to(noise.device)).float()
        return latents


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """s sigma / (1 + (s - 1) sigma) (Esser et al. 2024, eq. 23): keeps the visible share of noise the same with s^2 times as many
    pixels."""
    return shift * sigma / (1 + (shift - 1) * sigma)
