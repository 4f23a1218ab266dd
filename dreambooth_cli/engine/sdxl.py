"""Stable Diffusion XL: two text encoders, a pooled embedding, and the picture's size as conditions."""

import torch
from torch import Tensor

from .family import Conditioning
from .stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """A Stable Diffusion XL pipeline seen as what is trained."""

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Prompts -> embeddings [B, T, D1 + D2] of both text encoders and the pooled embedding [B, P] of the second."""
        device = self.pipe.text_encoder.device
        embeddings, _, pooled, _ = self.pipe.encode_prompt(
            prompts, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Conditioning(embeddings, pooled)

    def added_conditions(self, latents: Tensor, conditioning: Conditioning) -> dict[str, Tensor] | None:
        """The pooled embedding and the six size numbers [B, 6]: original size, crop corner, target size (Podell et al. 2023,
        section 2.2). The prepared photos are whole pictures of the training size, so the corner is 0, 0."""
        if conditioning.pooled is None:
            raise ValueError("SDXL needs the pooled embedding")
        height, width = (side * self.pipe.vae_scale_factor for side in latents.shape[-2:])
        # filled on the device: numbers from here would have to be copied to the GPU, and waited for
        sizes = [
            torch.full((len(latents),), side, device=latents.device, dtype=conditioning.pooled.dtype)
            for side in (height, width, 0, 0, height, width)
        ]
        return {"text_embeds": conditioning.pooled, "time_ids": torch.stack(sizes, dim=1)}
