"""Z-Image: one transformer over picture and prompt, which is told 1 - sigma and predicts z - eps."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...families.qwen3 import CHAT
from ...families.z_image import TRANSFORMER, Z_IMAGE
from . import kl_vae
from .latent_diffusion import Conditioning, LatentDistribution
from .noising import RectifiedFlow
from .qwen3 import tokens_of, use_chat


class ZImage:
    """A Z-Image pipeline as it is trained: text encoder, VAE, transformer, and the straight path between picture and noise."""

    record = Z_IMAGE

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        # times are not shifted (kohya-ss/musubi-tuner#908); the scheduler's shift of 6 is for drawing
        self.noising = RectifiedFlow(lambda shape: 1.0)
        self.vae_config = pipe.vae.config
        use_chat(pipe.tokenizer, CHAT)
        if pipe.transformer is not None:
            pipe.transformer.rope_embedder.freqs_cis = None  # the trial on the meta device has cached them without values

    def encode_images(self, pixels: Tensor) -> LatentDistribution:
        """Pixels [B, 3, H, W] in -1..1 -> the distribution of their latents, float32 [B, 16, H/8, W/8]."""
        return kl_vae.encode(self.pipe.vae, pixels)

    def sample_latents(self, distribution: LatentDistribution, noise: Tensor) -> Tensor:
        """One sample of scaled latents, (z - shift) * scale."""
        return kl_vae.sample(self.vae_config, distribution, noise)

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [B, 16, h, w] -> pixels [B, 3, H, W]."""
        return kl_vae.decode(self.pipe.vae, latents)

    def unpack(self, drawn: Tensor, height: int, width: int) -> Tensor:
        """The pipeline's steps give latents as they are."""
        return drawn

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Prompts -> embeddings [B, T, D], the output of the last layer but one, and how many tokens of each row are the prompt's own."""
        encoder, rows = self.pipe.text_encoder, []
        for prompt in prompts:  # one at a time, because every layer's output is kept in memory
            ids, _ = tokens_of(self.pipe.tokenizer, [prompt], most=self.record.prompt_length, padded=False)
            rows.append(encoder(ids.to(encoder.device), output_hidden_states=True).hidden_states[-2][0])
        return Conditioning(pad_sequence(rows, batch_first=True), lengths=tuple(map(len, rows)))

    def predict(self, noisy_latents: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """The transformer's prediction, negated to eps - z, [B, c, h, w]. It takes a list of prompts without padding."""
        if conditioning.lengths is None:
            raise ValueError("Z-Image needs the lengths of its prompts")
        rows = zip(conditioning.embeddings, conditioning.lengths, strict=True)
        pictures = list(noisy_latents.to(conditioning.embeddings.dtype).unsqueeze(2))
        said = self.pipe.transformer(pictures, 1 - times, [row[:length] for row, length in rows], return_dict=False)[0]
        return -torch.stack(said).squeeze(2)

    def prompted(self, prompts: list[str], negative_prompt: str) -> Mapping[str, Any]:
        """The arguments of the pipeline's call for prompts, in fresh lists, since the pipeline writes into them."""
        return {"prompt": list(prompts), "negative_prompt": [negative_prompt] * len(prompts) if negative_prompt else None}

    def embed(self, prompt: str, *, guided: bool) -> Mapping[str, Any]:
        """The arguments of the pipeline's call in place of a prompt, and of the empty one if it is `guided` away from that."""
        found = self.pipe.encode_prompt([prompt], do_classifier_free_guidance=guided, device=self.pipe.text_encoder.device)
        return dict(zip(("prompt_embeds", "negative_prompt_embeds"), found, strict=True))

    @staticmethod
    def small_networks() -> dict[str, Any]:
        """A tiny transformer with one layer of each kind."""
        made = ZImageTransformer2DModel(
            in_channels=4,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=32,
            axes_dims=[4, 6, 6],
            axes_lens=[64, 16, 16],
        )
        return {TRANSFORMER: made}

    @staticmethod
    def small_pass(networks: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Latents and a prompt through the small transformer."""
        picture, prompt = torch.zeros(4, 1, 8, 8, dtype=dtype, device=device), torch.zeros(8, 32, dtype=dtype, device=device)
        said = networks[TRANSFORMER]([picture], torch.full((1,), 0.5, device=device), [prompt], return_dict=False)[0]
        loss: Tensor = said[0].float().square().mean()
        return loss
