"""A Tiny Flow pipeline seen as what is trained."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from torch import Tensor

from dreambooth_cli.engine.families import kl_vae
from dreambooth_cli.engine.families.latent_diffusion import Conditioning, LatentDistribution
from dreambooth_cli.engine.families.noising import RectifiedFlow

from .record import TINY_FLOW

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"


class TinyFlow:
    """Text encoder, VAE, transformer, and the straight way between picture and noise."""

    record = TINY_FLOW

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.noising = RectifiedFlow(lambda shape: 1.0)  # what Z-Image's users train with, whatever its scheduler draws with
        self.vae_config = pipe.vae.config
        if pipe.tokenizer is not None:
            pipe.tokenizer.chat_template = TEMPLATE  # never the base's own: a template is a program
        pipe.transformer.rope_embedder.freqs_cis = None  # the trial without weights has counted them where nothing is computed

    def encode_images(self, pixels: Tensor) -> LatentDistribution:
        return kl_vae.encode(self.pipe.vae, pixels)

    def sample_latents(self, distribution: LatentDistribution, noise: Tensor) -> Tensor:
        return kl_vae.sample(self.vae_config, distribution, noise)

    def decode(self, latents: Tensor) -> Tensor:
        return kl_vae.decode(self.pipe.vae, latents)

    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
        texts = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        made = tokenizer(texts, padding=True, max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
        # no mask: a word never sees what comes after it, so neither does a prompt its padding
        states = encoder(made.input_ids.to(encoder.device), output_hidden_states=True).hidden_states[-2]
        return Conditioning(states, lengths=tuple(made.attention_mask.sum(dim=1).tolist()))

    def predict(self, noisy_latents: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """The network is told 1 - sigma, reads a list of prompts as long as they are, and says z - eps."""
        assert conditioning.lengths is not None
        rows = zip(conditioning.embeddings, conditioning.lengths, strict=True)
        pictures = list(noisy_latents.to(self.pipe.transformer.dtype).unsqueeze(2))
        said = self.pipe.transformer(pictures, 1 - times, [row[:length] for row, length in rows], return_dict=False)[0]
        return -torch.stack(said).squeeze(2)

    def embed(self, prompt: str, *, guided: bool) -> Mapping[str, Any]:
        found = self.pipe.encode_prompt([prompt], do_classifier_free_guidance=guided, device=self.pipe.text_encoder.device)
        return dict(zip(("prompt_embeds", "negative_prompt_embeds"), found, strict=True))

    @staticmethod
    def small_networks() -> dict[str, Any]:
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
        made.cap_pad_token.data.zero_()
        made.x_pad_token.data.zero_()  # what diffusers leaves as it was in memory
        return {"transformer": made}

    @staticmethod
    def small_pass(networks: Mapping[str, Any], device: torch.device, dtype: torch.dtype) -> Tensor:
        picture, prompt = torch.zeros(4, 1, 8, 8, dtype=dtype, device=device), torch.zeros(8, 32, dtype=dtype, device=device)
        said = networks["transformer"]([picture], torch.full((1,), 0.5, device=device), [prompt], return_dict=False)[0]
        loss: Tensor = said[0].float().square().mean()
        return loss
