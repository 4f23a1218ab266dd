"""Stable Diffusion XL: two text encoders, a pooled embedding, and the picture's size as conditions."""

import torch
from torch import Tensor

from ...families.sdxl import SDXL
from .latent_diffusion import Conditioning
from .stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """A Stable Diffusion XL pipeline as it is trained."""

    record = SDXL

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Prompts -> embeddings [B, T, D1 + D2] of both text encoders and the pooled embedding [B, P] of the second."""
        first, second = (
            getattr(self.pipe, part)(self.tokens_of(prompts, part), output_hidden_states=True)
            for part in self.record.text_encoders
        )
        # the last layer of either is never read (Podell et al. 2023, section 2.1)
        embeddings = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        return Conditioning(embeddings.to(self.pipe.text_encoder_2.dtype), second.text_embeds)

    def added_conditions(self, latents: Tensor, conditioning: Conditioning) -> dict[str, Tensor] | None:
        """The pooled embedding and the six size numbers [B, 6]: original size, crop corner, target size (Podell et al. 2023,
        section 2.2). Unless `sizes` are given, a picture is a whole one of the training size, so the corner is 0, 0."""
        if conditioning.pooled is None:
            raise ValueError("SDXL needs the pooled embedding")
        if conditioning.sizes is not None:
            return {"text_embeds": conditioning.pooled, "time_ids": conditioning.sizes}
        height, width = (side * self.pipe.vae_scale_factor for side in latents.shape[-2:])
        # created on the device: numbers from the CPU would have to be copied to the GPU, and waited for
        sizes = [
            torch.full((len(latents),), side, device=latents.device, dtype=conditioning.pooled.dtype)
            for side in (height, width, 0, 0, height, width)
        ]
        return {"text_embeds": conditioning.pooled, "time_ids": torch.stack(sizes, dim=1)}
