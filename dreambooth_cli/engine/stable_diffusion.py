"""Stable Diffusion 1.x and 2.x: one text encoder, epsilon or velocity prediction."""

from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from ..errors import ModelUnavailable
from .family import Conditioning, LatentDistribution

TRAINABLE_PREDICTIONS = ("epsilon", "v_prediction")


class StableDiffusion:
    """A Stable Diffusion 1 or 2 pipeline seen as what is trained: text encoder, VAE, UNet, noise scheduler."""

    def __init__(self, pipe: Any) -> None:
        """Raises ModelUnavailable where the base predicts something that DreamBooth has no target for."""
        self.pipe = pipe
        self.noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        self.prediction_type = str(self.noise_scheduler.config.prediction_type)
        self.latent_scale = float(pipe.vae.config.scaling_factor)
        self.latent_shift = float(pipe.vae.config.shift_factor or 0.0)
        self.snr_weights: dict[tuple[float, torch.device], Tensor] = {}  # of every timestep, where they were asked for
        self.tokens: dict[tuple[str, str], Tensor] = {}  # of prompts, beside the text encoder that reads them
        if self.prediction_type not in TRAINABLE_PREDICTIONS:
            raise ModelUnavailable(
                f"this base predicts {self.prediction_type!r}, which can't be trained here",
                "use a base that predicts epsilon or velocity, for example sd15",
            )

    def encode_images(self, pixels: Tensor) -> LatentDistribution:
        """Pixels [B, 3, H, W] in -1..1 -> the distribution of their latents, float32 [B, c, H/f, W/f]."""
        vae = self.pipe.vae
        with torch.no_grad():
            distribution = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
        return LatentDistribution(distribution.mean.float(), distribution.std.float())

    def sample_latents(self, distribution: LatentDistribution, noise: Tensor) -> Tensor:
        """One draw of scaled latents (Kingma and Welling 2013, eq. 10; scaling of Rombach et al. 2022, appendix G)."""
        return (distribution.mean + distribution.std * noise - self.latent_shift) * self.latent_scale

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Prompts -> embeddings [B, T, D], what the pipeline's own `encode_prompt` makes of them; that one would copy the prompts'
        tokens to a GPU anew in every step, and wait."""
        encoder = self.pipe.text_encoder
        return Conditioning(encoder(self.tokens_of(prompts, "text_encoder"))[0].to(encoder.dtype))

    def tokens_of(self, prompts: list[str], part: str) -> Tensor:
        """The tokens [B, T] of prompts, beside the text encoder that reads them; each prompt's are made once."""
        device, tokenizer = getattr(self.pipe, part).device, getattr(self.pipe, part.replace("text_encoder", "tokenizer"))
        for prompt in prompts:
            key = (part, prompt)
            if key not in self.tokens or self.tokens[key].device != device:
                most = tokenizer.model_max_length
                made = tokenizer(prompt, padding="max_length", max_length=most, truncation=True, return_tensors="pt")
                self.tokens[key] = made.input_ids.to(device)
        return torch.cat([self.tokens[part, prompt] for prompt in prompts])

    def encode_frozen(self, prompts: list[str]) -> Conditioning:
        """The embeddings of prompts whose encoder stays as it is, without gradients."""
        with torch.no_grad():
            return self.encode_prompts(prompts)

    def autocast(self, precision: str, device: torch.device) -> torch.autocast:
        """The number format of a forward pass on the device that works (between its turns a network may lie elsewhere); fp32 is
        none at all."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        return torch.autocast(device.type, dtype, enabled=dtype is not None)

    def draw_timestep(self, generator: torch.Generator) -> int:
        """Uniform over the scheduler's timesteps."""
        count = int(self.noise_scheduler.config.num_train_timesteps)
        return int(torch.randint(0, count, (), generator=generator))

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """z_t = alpha_t z + sigma_t eps (the paper's section 3.1)."""
        noisy: Tensor = self.noise_scheduler.add_noise(latents, noise, timesteps)
        return noisy

    def predict(self, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's prediction [B, c, h, w]."""
        prediction: Tensor = self.pipe.unet(
            noisy_latents,
            timesteps,
            conditioning.embeddings,
            added_cond_kwargs=self.added_conditions(noisy_latents, conditioning),
            return_dict=False,
        )[0]
        return prediction

    def added_conditions(self, latents: Tensor, conditioning: Conditioning) -> dict[str, Tensor] | None:
        """What the UNet is told beside the embeddings: nothing in this family."""
        return None

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """eps, or v = alpha_t eps - sigma_t z (Salimans and Ho 2022, eq. 15) for velocity models."""
        if self.prediction_type == "epsilon":
            return noise
        velocity: Tensor = self.noise_scheduler.get_velocity(latents, noise, timesteps)
        return velocity

    def loss_weights(self, timesteps: Tensor, snr_gamma: float) -> Tensor:
        """Min-SNR weights [B] (Hang et al. 2023, section 3.4): min(SNR, gamma) / SNR for epsilon, / (SNR + 1) for velocity."""
        if not snr_gamma:
            return torch.ones(len(timesteps), device=timesteps.device)
        key = (snr_gamma, timesteps.device)
        if key not in self.snr_weights:  # copied once: to look them up on the CPU would wait for the GPU in every step
            self.snr_weights[key] = self.every_loss_weight(snr_gamma).to(timesteps.device)
        return self.snr_weights[key][timesteps]

    def every_loss_weight(self, snr_gamma: float) -> Tensor:
        """The weight of every timestep, float32 [T], on the CPU."""
        # in float64: in float32, 1 - alpha has lost its last digits at the smallest timesteps
        alphas = torch.cumprod(1 - self.noise_scheduler.betas.double(), dim=0)
        sigmas = 1 - alphas
        # SNR = alphas / sigmas; written so that a schedule ending in SNR 0 divides by nothing
        if self.prediction_type == "epsilon":
            weights = torch.clamp(snr_gamma * sigmas / alphas.clamp_min(1e-12), max=1.0)
        else:
            weights = torch.minimum(alphas, snr_gamma * sigmas)
        return weights.float()
