"""FLUX.2 klein: a transformer over packed patches of latents, which is told sigma and predicts eps - z."""

from collections.abc import Mapping
from math import exp
from typing import Any

import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from torch import Tensor

from ...families.klein import KLEIN, READ_LAYERS, TRANSFORMER
from ...families.qwen3 import CHAT_WITHOUT_THOUGHT
from .latent_diffusion import Conditioning, LatentDistribution
from .noising import RectifiedFlow
from .qwen3 import tokens_of, use_chat

# Its makers trained it with FLUX.1's shift, which depends on the picture's number of tokens (Nerogar/OneTrainer#1516); the larger shift
# that its pipeline computes is for drawing.
FEW_TOKENS, MANY_TOKENS, LEAST_SHIFT, MOST_SHIFT = 256, 4096, 0.5, 1.15


class Klein:
    """A FLUX.2 klein pipeline as it is trained: text encoder, VAE, transformer, and the straight path between picture and noise."""

    record = KLEIN

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.noising = RectifiedFlow(training_shift)
        use_chat(pipe.tokenizer, CHAT_WITHOUT_THOUGHT)
        # its latents' mean and variance, channel by channel; copies, since the VAE may be freed later
        self.mean = pipe.vae.bn.running_mean.detach().float().clone()[None, :, None, None]
        self.variance = pipe.vae.bn.running_var.detach().float().clone()[None, :, None, None]
        self.eps = float(pipe.vae.config.batch_norm_eps)

    def encode_images(self, pixels: Tensor) -> LatentDistribution:
        """Pixels [B, 3, H, W] in -1..1 -> their latents in patches, float32 [B, 128, H/16, W/16]: the most likely ones, as other trainers
        of this model take them too, so their deviation is 0."""
        vae = self.pipe.vae
        with torch.no_grad():
            likeliest = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode()
        patches = Flux2KleinPipeline._patchify_latents(likeliest.float())
        return LatentDistribution(patches, torch.zeros_like(patches))

    def sample_latents(self, distribution: LatentDistribution, noise: Tensor) -> Tensor:
        """Normalised latents [B, 128, h, w]; there is nothing to sample."""
        mean, spread = self._scales(distribution.mean)
        return (distribution.mean - mean) / spread

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents [B, 128, h, w] -> pixels [B, 3, 16 h, 16 w]."""
        mean, spread = self._scales(latents)
        unpacked = Flux2KleinPipeline._unpatchify_latents(latents * spread + mean)
        pixels: Tensor = self.pipe.vae.decode(unpacked.to(self.pipe.vae.dtype), return_dict=False)[0]
        return pixels

    def _scales(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The latents' mean and deviation, on the device and in the format of `latents`, rounded as the pipeline rounds them."""
        mean, variance = self.mean.to(latents.device), self.variance.to(latents.device)
        return mean.to(latents.dtype), torch.sqrt(variance + self.eps).to(latents.dtype)

    def unpack(self, drawn: Tensor, height: int, width: int) -> Tensor:
        """The pipeline's tokens [B, h w, 128], for pictures of this size in pixels, as latents [B, 128, h, w]."""
        side = int(self.pipe.vae_scale_factor) * 2
        return as_latents(drawn, height // side, width // side)

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Prompts -> embeddings [B, 512, 3 D]: the outputs of three layers side by side, those of the padding included, which the
        transformer reads too."""
        encoder, rows = self.pipe.text_encoder, []
        for prompt in prompts:  # one at a time, because every layer's output is kept in memory
            ids, mask = tokens_of(self.pipe.tokenizer, [prompt], most=self.record.prompt_length, padded=True)
            seen = None if encoder.device.type == "meta" else mask.to(encoder.device)  # transformers looks at its values
            states = encoder(ids.to(encoder.device), attention_mask=seen, output_hidden_states=True).hidden_states
            rows.append(torch.cat([states[layer] for layer in READ_LAYERS], dim=-1))
        return Conditioning(torch.cat(rows))

    def predict(self, noisy_latents: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """The transformer's prediction of eps - z, [B, 128, h, w]."""
        prompts, (height, width) = conditioning.embeddings, noisy_latents.shape[-2:]
        said = self.pipe.transformer(
            noisy_latents.to(prompts.dtype).flatten(2).transpose(1, 2),
            encoder_hidden_states=prompts,
            timestep=times.to(prompts.dtype),
            img_ids=positions(height, width, 1, noisy_latents.device),
            txt_ids=positions(1, 1, prompts.shape[1], noisy_latents.device),
            return_dict=False,
        )[0]
        return as_latents(said, height, width)

    def prompted(self, prompts: list[str], negative_prompt: str) -> Mapping[str, Any]:
        """The arguments of the pipeline's call for prompts; a negative prompt can only be given as embeddings."""
        if not negative_prompt:
            return {"prompt": list(prompts)}
        with torch.no_grad():
            away, _ = self.pipe.encode_prompt([negative_prompt] * len(prompts), device=self.pipe.text_encoder.device)
        return {"prompt": list(prompts), "negative_prompt_embeds": away}

    def embed(self, prompt: str, *, guided: bool) -> Mapping[str, Any]:
        """The arguments of the pipeline's call in place of a prompt, and of the empty one if it is `guided` away from that."""
        device = self.pipe.text_encoder.device
        found = {"prompt_embeds": self.pipe.encode_prompt([prompt], device=device)[0]}
        return found | ({"negative_prompt_embeds": self.pipe.encode_prompt([""], device=device)[0]} if guided else {})

    @staticmethod
    def small_networks() -> dict[str, Any]:
        """A tiny transformer with one block of each kind."""
        made = Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
        return {TRANSFORMER: made}

    @staticmethod
    def small_pass(networks: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Latents and a prompt through the small transformer."""
        said = networks[TRANSFORMER](
            torch.zeros(1, 16, 16, dtype=dtype, device=device),
            encoder_hidden_states=torch.zeros(1, 8, 32, dtype=dtype, device=device),
            timestep=torch.full((1,), 0.5, dtype=dtype, device=device),
            img_ids=positions(4, 4, 1, device),
            txt_ids=positions(1, 1, 8, device),
            return_dict=False,
        )[0]
        loss: Tensor = said.float().square().mean()
        return loss


def training_shift(shape: torch.Size) -> float:
    """The shift e^mu for latents in patches of this shape [c, h, w]: mu grows linearly from 0.5 at 256 tokens to 1.15 at 4,096. A patch is
    one token."""
    tokens = shape[-2] * shape[-1]
    return exp(LEAST_SHIFT + (MOST_SHIFT - LEAST_SHIFT) * (tokens - FEW_TOKENS) / (MANY_TOKENS - FEW_TOKENS))


def as_latents(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens [B, h w, c], row by row, as latents [B, c, h, w]."""
    return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], height, width)


def positions(height: int, width: int, length: int, device: torch.device) -> Tensor:
    """The positions of tokens, [n, 4]: picture, row, column, place in the prompt, all from 0."""
    ranges = (torch.arange(count, device=device) for count in (1, height, width, length))
    return torch.cartesian_prod(*ranges)
