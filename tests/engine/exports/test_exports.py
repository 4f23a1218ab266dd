"""What is exported: read again by diffusers it has the same weights and draws the same picture; a file that differs is told."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from dreambooth_cli.bases.metadata import read_header
from dreambooth_cli.engine.exports import adapters, folder, formats, single_file
from dreambooth_cli.engine.exports.original import layout
from dreambooth_cli.engine.exports.weights import Model, Weights
from dreambooth_cli.export_order import Export
from dreambooth_cli.families.sdxl import SDXL
from dreambooth_cli.families.stable_diffusion import STABLE_DIFFUSION
from tests import small_models
from tests.engine.families.test_lora_file import ATTENTION, CONVOLUTIONS, fresh, in_peft, pairs_for
from tests.engine.plans import base_of


def lora_of(kind, path, *, ends=ATTENTION, dora=False):
    """A LoRA of peft's names for a base, its alpha half its rank, as a file."""
    pipe, tensors = fresh(kind), {}
    for (network, name), (down, up) in pairs_for(pipe, ends=ends).items():
        a, b = in_peft(network, name)
        tensors |= {a: down, b: up, a.replace("lora_A.weight", "alpha"): torch.tensor(2.0)}
        if dora:
            weight = getattr(pipe, network).get_submodule(name).weight
            tensors[a.replace("lora_A.weight", "lora_magnitude_vector")] = 1.1 * weight.flatten(1).norm(dim=1).detach()
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


@pytest.mark.parametrize(("kind", "dtype"), [("sd1", None), ("sd2", torch.float16), ("sdxl", torch.bfloat16)])
def test_a_single_file_has_the_original_s_tensors_and_draws_the_same(kind, dtype, request, tmp_path):
    base = request.getfixturevalue(kind)
    weights = Weights(Model(base_of(base)), dtype)
    path = tmp_path / "model.safetensors"
    single_file.write(weights, path, {"modelspec.title": "a dog"})
    proof = single_file.check(weights, path)
    assert proof.differs == ""
    assert (proof.largest_difference == 0) == (dtype is None)
    theirs = load_file(small_models.single_file(base, tmp_path / "theirs.safetensors"))
    ours = load_file(path)
    torch.testing.assert_close({name: ours[name] for name in theirs}, theirs, rtol=2e-2, atol=1e-2, check_dtype=False)
    assert {name for name in ours if not name.endswith("position_ids")} == {name for name in theirs if not name.endswith("position_ids")}
    with safe_open(path, "pt") as file:
        told = file.metadata()
    assert told["modelspec.title"] == "a dog"
    assert told["modelspec.hash_sha256"] == f"0x{hash_of_tensors(path)}"


def hash_of_tensors(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


@pytest.mark.parametrize(
    ("kind", "to", "dora"),
    [("sd1", "kohya", False), ("sdxl", "kohya", False), ("sd1", "kohya", True), ("sd1", "lora", True), ("sd2", "lora", False)],
)
def test_a_lora_of_every_layer_is_read_by_diffusers_as_it_was(kind, to, dora, request, tmp_path):
    base = request.getfixturevalue(kind)
    ends = ATTENTION + CONVOLUTIONS if kind != "sdxl" else ATTENTION
    model = Model(base_of(base), lora_of(base, tmp_path / "lora.safetensors", ends=ends, dora=dora))
    order = Export(to, tmp_path / "out.safetensors")
    weights = formats.weigh(model, order)
    (tmp_path / "part").mkdir()
    place = formats.write(weights, order, tmp_path / "part", {})
    proof = formats.check(weights, model, order, place)
    assert proof.differs == ""
    assert proof.largest_difference < 1e-5
    header = read_header(place)
    if to == "kohya":
        prefixes = {re.match("lora_(unet|te1?2?)", name)[0] for name in header if name != "__metadata__"}
        wanted = {"lora_unet", "lora_te1", "lora_te2"} if kind == "sdxl" else {"lora_unet", "lora_te"}
        assert prefixes == wanted
        assert len([name for name in header if name.endswith(".alpha")]) == len(weights.pairs)
        assert {float(value) for name, value in load_file(place).items() if name.endswith(".alpha")} == {2.0}


def test_a_lora_is_baked_in_at_its_strength(sd1, tmp_path):
    """Half of it: each weight lies halfway between the base's and that of all of it; a folder's and a single file's are the same."""
    lora, base = lora_of(sd1, tmp_path / "lora.safetensors"), base_of(sd1)
    half, whole, none = (Weights(Model(base, lora, strength), None).load(["unet"])["unet"].state_dict() for strength in (0.5, 1.0, 1e-9))
    changed = [name for name in none if not torch.equal(whole[name], none[name])]
    assert len(changed) > 10
    for name in changed:
        torch.testing.assert_close(half[name], (whole[name] + none[name]) / 2, rtol=0, atol=1e-6)
    weights = Weights(Model(base, lora, 0.5), torch.float16)
    folder.write(weights, tmp_path / "out")
    assert folder.check(weights, tmp_path / "out").differs == ""
    torch.testing.assert_close(load_file(tmp_path / "out/unet/diffusion_pytorch_model.safetensors"), {n: v.half() for n, v in half.items()})
    assert {"vocab.json", "merges.txt", "tokenizer.json"} <= {file.name for file in (tmp_path / "out/tokenizer").iterdir()}
    assert all(name.startswith("text_model.") for name in load_file(tmp_path / "out/text_encoder/model.safetensors"))


def test_a_weight_that_is_read_otherwise_is_told(sd1, tmp_path):
    weights, path = Weights(Model(base_of(sd1)), None), tmp_path / "model.safetensors"
    single_file.write(weights, path, {})
    tensors, name = load_file(path), "model.diffusion_model.time_embed.0.weight"
    tensors[name] = tensors[name] + 1e-7
    save_file(tensors, path)
    proof = single_file.check(weights, path)
    assert "time_embedding.linear_1.weight" in proof.differs


def test_a_lora_with_another_alpha_is_told(sd1, tmp_path):
    model = Model(base_of(sd1), lora_of(sd1, tmp_path / "lora.safetensors"))
    weights, path = Weights(model, None), tmp_path / "out.safetensors"
    tensors, texts = adapters.in_kohya(weights, torch.float32)
    wrong = {name: value * 1.01 if name.endswith(".alpha") else value for name, value in tensors.items()}
    adapters.write(path, wrong, texts)
    assert "with other values" in adapters.check(weights, model.lora, path, torch.float32).differs


# ---- the true models' files

CLIP_L = {"vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
BIG_G = {"vocab_size": 49408, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
UP, DOWN = "UpBlock2D", "DownBlock2D"
XL_UNET = {
    "down_block_types": (DOWN, f"CrossAttn{DOWN}", f"CrossAttn{DOWN}"),
    "up_block_types": (f"CrossAttn{UP}", f"CrossAttn{UP}", UP),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}


@pytest.mark.parametrize(("family", "count"), [(STABLE_DIFFUSION, 1131), (SDXL, 2514)])
def test_the_true_models_have_as_many_tensors_as_their_files(family, count):
    """1,131 of Stable Diffusion 1; of XL 2,515 but for the scale of OpenCLIP's loss, which no diffusers folder has and nothing reads."""
    with torch.device("meta"):
        first = CLIPTextModel(CLIPTextConfig(hidden_act="quick_gelu", **CLIP_L))
        vae = AutoencoderKL(layers_per_block=2, latent_channels=4, **VAE)
        unet = UNet2DConditionModel(cross_attention_dim=768) if family is STABLE_DIFFUSION else UNet2DConditionModel(**XL_UNET)
        networks = {"unet": unet, "vae": vae, "text_encoder": first}
        if family is SDXL:
            networks["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(hidden_act="gelu", projection_dim=1280, **BIG_G))
    assert len(layout(family, networks)) == count
