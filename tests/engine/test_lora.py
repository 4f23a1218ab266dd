"""LoRA layers: drawn from the seed, scaled by alpha over rank, saved so that another reader scales them alike."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from dreambooth_cli.engine.loading import load_family
from dreambooth_cli.engine.lora import add_lora, save_lora
from tests.engine.plans import base_of

SHAPE = (1, 4, 16, 16)


def adapted(sd1, *, seed=0, alpha=12.0):
    """A UNet with LoRA layers of rank 4 whose second matrices are no longer zero."""
    unet = load_family(base_of(sd1), dtype=torch.float32, device=torch.device("cpu")).pipe.unet
    add_lora(unet, "unet", rank=4, alpha=alpha, seed=seed)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=generator)
    return unet


def predict(unet):
    generator = torch.Generator().manual_seed(2)
    width = unet.config.cross_attention_dim
    sample, text = torch.randn(SHAPE, generator=generator), torch.randn(1, 7, width, generator=generator)
    with torch.no_grad():
        return unet(sample, torch.tensor([500]), text).sample


def test_layers_follow_from_the_seed_and_leave_the_global_generator_alone(sd1):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (adapted(sd1, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    names = [name for name in first if "lora_A" in name]
    assert all(torch.equal(first[name], again[name]) for name in names)
    assert not any(torch.equal(first[name], other[name]) for name in names)


def test_alpha_over_rank_scales_what_is_learned(sd1):
    plain, scaled = adapted(sd1, alpha=4.0), adapted(sd1, alpha=12.0)
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    assert plain.get_submodule(layer).scaling["default"] == 1.0
    assert scaled.get_submodule(layer).scaling["default"] == 3.0
    assert not torch.equal(predict(plain), predict(scaled))


def test_another_reader_scales_it_alike(sd1, tmp_path):
    """Rank 4 and alpha 12 survive in the file's header: plain diffusers predicts the same."""
    unet = adapted(sd1)
    save_lora(StableDiffusionPipeline, tmp_path, {"unet": unet}, torch.float32)
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
    assert (metadata["unet.r"], metadata["unet.lora_alpha"]) == (4, 12.0)
    pipe = StableDiffusionPipeline.from_pretrained(sd1, safety_checker=None, feature_extractor=None)
    pipe.load_lora_weights(tmp_path)
    assert predict(pipe.unet) == pytest.approx(predict(unet), abs=1e-6)
