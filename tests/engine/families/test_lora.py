"""LoRA layers: initialised from the seed, scaled by alpha / rank, saved so that other programs scale them the same way."""

import json
import re

import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close

from dreambooth_cli.engine.families.loading import load_family
from dreambooth_cli.engine.families.lora import add_lora, lora_layers_of, save_lora
from dreambooth_cli.engine.seeds import seed_of
from dreambooth_cli.families.stable_diffusion import CLIP_PART, UNET_PART
from tests.engine.plans import base_of

SHAPE = (1, 4, 16, 16)


def adapted(sd1, *, seed=0, alpha=12.0, layers="attention"):
    """A UNet with LoRA layers of rank 4 whose up matrices are not zero."""
    unet = load_family(base_of(sd1), dtype=torch.float32, device=torch.device("cpu")).pipe.unet
    add_lora(unet, layers=UNET_PART.layers_for(layers), rank=4, alpha=alpha, seed=seed_of(seed, "lora", "unet"))
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
        return unet(sample.to(unet.dtype), torch.tensor([500]), text.to(unet.dtype)).sample


def test_layers_follow_from_the_seed_and_leave_the_global_generator_alone(sd1):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (adapted(sd1, seed=seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    names = [name for name in first if "lora_A" in name]
    assert_close({name: again[name] for name in names}, {name: first[name] for name in names}, rtol=0, atol=0)
    assert not any(torch.equal(first[name], other[name]) for name in names)


def test_alpha_over_rank_scales_what_is_learned(sd1):
    plain, scaled = adapted(sd1, alpha=4.0), adapted(sd1, alpha=12.0)
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    assert plain.get_submodule(layer).scaling["default"] == 1.0
    assert scaled.get_submodule(layer).scaling["default"] == 3.0
    assert not torch.equal(predict(plain), predict(scaled))


@pytest.mark.parametrize("layers", ["attention", "all"])
@pytest.mark.parametrize("reads_header", [True, False])
def test_another_reader_scales_it_alike(reads_header, layers, sd1, tmp_path):
    """Rank 4 and alpha 12: plain diffusers predicts the same, with the file's header and without it; in float64, since processors add up
    float32 in orders of their own."""
    unet = adapted(sd1, layers=layers)
    save_lora(StableDiffusionPipeline, tmp_path, {"unet": unet}, torch.float32)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = json.loads(opened.metadata()["lora_adapter_metadata"])
    assert (metadata["unet.r"], metadata["unet.lora_alpha"]) == (4, 4)
    if not reads_header:
        save_file(load_file(file), file)
    pipe = StableDiffusionPipeline.from_pretrained(sd1, safety_checker=None, feature_extractor=None)
    pipe.load_lora_weights(tmp_path)
    assert predict(pipe.unet.double()) == pytest.approx(predict(unet.double()), abs=1e-6)


def test_all_layers_are_every_linear_layer_and_convolution_within_the_blocks(sd1, sdxl):
    """No LoRA is put on the first and last layers, the time embedding before the blocks, and layers that change a picture's size."""
    outside = {"conv_in", "conv_out", "time_embedding", "add_embedding"}
    for base in (sd1, sdxl):
        unet = load_family(base_of(base), dtype=torch.float32, device=torch.device("cpu")).pipe.unet
        layers = {name for name, layer in unet.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
        add_lora(unet, layers=UNET_PART.layers_for("all"), rank=4, alpha=4.0, seed=0)
        with_lora = {name.removesuffix(".base_layer") for name, _ in unet.named_modules() if name.endswith(".base_layer")}
        without = layers - with_lora
        assert with_lora <= layers
        assert {name for name in without if name.split(".")[0] not in outside and "samplers" not in name} == set()


def test_blocks_that_are_never_read_have_no_lora(sdxl):
    """SDXL reads its first text encoder up to the last block but one, and the last block of its second for the pooled embedding."""
    family = load_family(base_of(sdxl), dtype=torch.float32, device=torch.device("cpu"))
    for name, unread in (("text_encoder", 1), ("text_encoder_2", 0)):
        encoder = getattr(family.pipe, name)
        add_lora(encoder, layers=lora_layers_of(encoder, family.record.parts[name], "all"), rank=4, alpha=4.0, seed=0)
        blocks = {re.search(r"layers\.(\d+)\.", key)[1] for key, value in encoder.named_parameters() if value.requires_grad}
        assert blocks == {str(block) for block in range(encoder.config.num_hidden_layers - unread)}


@pytest.mark.parametrize("layers", ["attention", "all"])
def test_a_text_encoder_s_layers_are_the_seed_s_and_the_file_names_no_place(layers, sd1, tmp_path):
    pipe = load_family(base_of(sd1), dtype=torch.float32, device=torch.device("cpu")).pipe
    for name in ("unet", "text_encoder"):
        part = CLIP_PART if name.startswith("text") else UNET_PART
        add_lora(getattr(pipe, name), layers=part.layers_for(layers), rank=4, alpha=4.0, seed=0)
    trained = {key for key, value in pipe.text_encoder.named_parameters() if value.requires_grad}
    assert len(trained) == 2 * len(CLIP_PART.layers_for(layers)) * pipe.text_encoder.config.num_hidden_layers
    assert all("lora_" in key for key in trained)
    modules = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    save_lora(StableDiffusionPipeline, tmp_path, modules, torch.float32)
    assert str(sd1).encode() not in (tmp_path / "pytorch_lora_weights.safetensors").read_bytes()
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", "pt") as file:
        ours = [key for key in sorted(file.keys()) if key.startswith("text_encoder.")]
    assert len(ours) == len(trained)
    # as the nested class of transformers before 5.6 and ComfyUI's table of diffusers' names have them
    attention = r"(self_attn\.(q|k|v|out)_proj)\.lora_linear_layer\.(up|down)"
    everything = r"(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])\.lora_[AB]"
    known = rf"text_encoder\.text_model\.encoder\.layers\.\d+\.{attention if layers == 'attention' else everything}\.weight"
    assert [key for key in ours if not re.fullmatch(known, key)] == []
    fresh = StableDiffusionPipeline.from_pretrained(sd1, safety_checker=None, feature_extractor=None)
    fresh.load_lora_weights(tmp_path)
    saved = get_peft_model_state_dict(pipe.text_encoder)
    read = get_peft_model_state_dict(fresh.text_encoder, adapter_name="default_0")
    assert_close(read, saved, rtol=0, atol=0)
