"""Stable Diffusion 1.x and 2.x: one text encoder, epsilon or velocity prediction."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from ...errors import ModelUnavailable
from ...families.family import tokenizer_of
from ...families.stable_diffusion import STABLE_DIFFUSION, TEXT_ENCODER, UNET
from . import kl_vae
from .latent_diffusion import Conditioning, LatentDistribution
from .noising import Diffusion

TRAINABLE_PREDICTIONS = ("epsilon", "v_prediction")
WIDTH = 32  # channels of the small networks: wide enough that the largest weights get 8-bit optimizer state
WORDS = 8  # the vocabulary of their text encoder


class StableDiffusion:
    """A Stable Diffusion 1 or 2 pipeline as it is trained: text encoder, VAE, UNet, noise."""

    record = STABLE_DIFFUSION

    def __init__(self, pipe: Any) -> None:
        """Raises ModelUnavailable if the base predicts something that can't be trained here."""
        self.pipe = pipe
        scheduler: Any = DDPMScheduler.from_config(pipe.scheduler.config)
        self.noising = Diffusion(scheduler)
        self.vae_config = pipe.vae.config
        self.tokens: dict[tuple[str, str], Tensor] = {}  # by part and prompt, on the text encoder's device
        predicted = str(scheduler.config.prediction_type)
        if predicted not in TRAINABLE_PREDICTIONS:
            raise ModelUnavailable(
                f"this base predicts {predicted!r}, which can't be trained here",
                "use a base that predicts epsilon or velocity, for example sd15",
            )

    def encode_images(self, pixels: Tensor) -> LatentDistribution:
        """Pixels [B, 3, H, W] in -1..1 -> the distribution of their latents, float32 [B, c, H/f, W/f]."""
        return kl_vae.encode(self.pipe.vae, pixels)

    def sample_latents(self, distribution: LatentDistribution, noise: Tensor) -> Tensor:
        """One sample of scaled latents."""
        return kl_vae.sample(self.vae_config, distribution, noise)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, c, h, w] -> pixels [B, 3, H, W]."""
        return kl_vae.decode(self.pipe.vae, latents)

    def unpack(self, drawn: Tensor, height: int, width: int) -> Tensor:
        """The pipeline's steps give latents as they are."""
        return drawn

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Prompts -> embeddings [B, T, D], the same as the pipeline's own `encode_prompt` gives, which would copy the tokens to a GPU in
        every step, and wait for it."""
        encoder = self.pipe.text_encoder
        return Conditioning(encoder(self.tokens_of(prompts, TEXT_ENCODER))[0].to(encoder.dtype))

    def tokens_of(self, prompts: list[str], part: str) -> Tensor:
        """The tokens [B, T] of prompts, int64 on the device of the text encoder `part`; each prompt is tokenized once."""
        device, tokenizer = getattr(self.pipe, part).device, getattr(self.pipe, tokenizer_of(part))
        for prompt in prompts:
            key = (part, prompt)
            if key not in self.tokens or self.tokens[key].device != device:
                most = tokenizer.model_max_length
                made = tokenizer(prompt, padding="max_length", max_length=most, truncation=True, return_tensors="pt")
                # pinned and without waiting: a prompt may come up for the first time in any step
                ids = made.input_ids.pin_memory() if device.type == "cuda" else made.input_ids
                self.tokens[key] = ids.to(device, non_blocking=True)
        return torch.cat([self.tokens[part, prompt] for prompt in prompts])

    def predict(self, noisy_latents: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """The UNet's prediction [B, c, h, w]."""
        prediction: Tensor = self.pipe.unet(
            noisy_latents,
            times,
            conditioning.embeddings,
            added_cond_kwargs=self.added_conditions(noisy_latents, conditioning),
            return_dict=False,
        )[0]
        return prediction

    def added_conditions(self, latents: Tensor, conditioning: Conditioning) -> dict[str, Tensor] | None:
        """What the UNet is told besides the embeddings: nothing in this family."""
        return None

    def prompted(self, prompts: list[str], negative_prompt: str) -> Mapping[str, Any]:
        """The arguments of the pipeline's call for prompts."""
        return {"prompt": list(prompts), "negative_prompt": [negative_prompt] * len(prompts) if negative_prompt else None}

    def embed(self, prompt: str, *, guided: bool) -> Mapping[str, Any]:
        """The arguments of the pipeline's call in place of a prompt, and of the empty one if it is `guided` away from that."""
        found = self.pipe.encode_prompt(
            prompt, device=self.pipe.text_encoder.device, num_images_per_prompt=1, do_classifier_free_guidance=guided
        )
        names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
        return dict(zip(names, found, strict=False))

    @staticmethod
    def small_networks() -> dict[str, Any]:
        """A UNet with one block down and one up, and a text encoder with two layers and a vocabulary of eight."""
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(WIDTH,),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=WIDTH,
        )
        config = CLIPTextConfig(
            vocab_size=WORDS,
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=2,  # SDXL reads the last but one layer
            num_attention_heads=1,
            max_position_embeddings=WORDS,
            bos_token_id=0,
            eos_token_id=1,
        )
        return {UNET: unet, TEXT_ENCODER: CLIPTextModel(config)}

    @staticmethod
    def small_pass(networks: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Tensor:
        """A prompt and latents through the small networks."""
        words = torch.zeros(1, WORDS, dtype=torch.long, device=device)
        embeddings = networks[TEXT_ENCODER](words).last_hidden_state
        latents = torch.zeros(1, 4, 8, 8, dtype=dtype, device=device)
        loss: Tensor = networks[UNET](latents, torch.zeros(1, device=device), embeddings).sample.float().square().mean()
        return loss
