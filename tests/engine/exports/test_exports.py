"""What is exported: read again by diffusers it has the same weights and draws the same picture; a file that differs is told."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import psutil
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from dreambooth_cli.bases.metadata import read_header
from dreambooth_cli.bases.true_sizes import CLIP_H, SD2
from dreambooth_cli.disk import sync_all
from dreambooth_cli.engine.exports import adapters, folder, formats, single_file
from dreambooth_cli.engine.exports.original import layout
from dreambooth_cli.engine.exports.original_config import config_of
from dreambooth_cli.engine.exports.proof import compute_in_float32
from dreambooth_cli.engine.exports.weights import Model, Weights, differing
from dreambooth_cli.engine.families.loading import parts_of
from dreambooth_cli.export_order import Export
from dreambooth_cli.families.sdxl import SDXL
from dreambooth_cli.families.stable_diffusion import STABLE_DIFFUSION
from tests import small_models
from tests.benchmarks.export_matrix import POCKET
from tests.benchmarks.others.files import write_lora
from tests.engine.families.test_lora_file import ATTENTION, CONVOLUTIONS, fresh, in_peft, pairs_for
from tests.engine.plans import base_of
from tests.true_sizes import BIG_G, CLIP_L, VAE, XL_UNET


def lora_of(kind, path, *, ends=ATTENTION, dora=False):
    """A LoRA of peft's names for a base, its alpha half its rank, as a file."""
    pipe, tensors = fresh(kind), {}
    for (network, name), (down, up) in pairs_for(pipe, ends=ends).items():
        if "mid_block" in name:  # of another rank than the others
            down, up = torch.cat([down, down / 2]), torch.cat([up, up], 1)
        a, b = in_peft(network, name)
        tensors |= {a: down, b: up, a.replace("lora_A.weight", "alpha"): torch.tensor(len(down) / 2)}
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


def test_a_file_of_stable_diffusion_2_says_beside_it_that_it_predicts_velocity(sd2):
    told = json.loads(config_of(Weights(Model(base_of(sd2)), None)))["model"]["params"]
    assert (told["parameterization"], told["unet_config"]["params"]["context_dim"]) == ("v", 32)
    assert told["first_stage_config"]["params"]["ddconfig"]["ch_mult"] == [1, 1, 2]


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
    proof = formats.check(weights, order, place)
    assert proof.differs == ""
    assert proof.largest_difference < 1e-5
    header = read_header(place)
    if to == "kohya":
        prefixes = {re.match("lora_(unet|te1?2?)", name)[0] for name in header if name != "__metadata__"}
        wanted = {"lora_unet", "lora_te1", "lora_te2"} if kind == "sdxl" else {"lora_unet", "lora_te"}
        assert prefixes == wanted
        assert len([name for name in header if name.endswith(".alpha")]) == len(weights.pairs)
        assert {float(value) for name, value in load_file(place).items() if name.endswith(".alpha")} == {2.0}


@pytest.mark.parametrize("dora", [False, True])
def test_a_lora_is_proved_with_one_network_in_memory_at_a_time(dora, sdxl, tmp_path):
    """Two whole bases in float32 are more than most machines have room for."""
    weights = Weights(Model(base_of(sdxl), lora_of(sdxl, tmp_path / "lora.safetensors", dora=dora)), None)
    path = tmp_path / "kohya.safetensors"
    adapters.write(path, *adapters.in_kohya(weights, torch.float32))
    for read in adapters.readers(weights, path):
        for names in (["unet"], ["text_encoder", "text_encoder_2"], ["vae"]):
            there = parts_of(read(names))
            assert list(there) == names
            assert all(value.device.type == "cpu" for network in there.values() for value in network.parameters())
            layers = sum(isinstance(layer, LoraLayer) for network in there.values() for layer in network.modules())
            assert layers == sum(pair.network in names for pair in weights.pairs)


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
    assert "with other values" in adapters.check(weights, path, torch.float32).differs


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a word for it")
def test_what_was_looked_at_leaves_memory(tmp_path):
    """Of the files of a base, and of one that was written and is read again, while they are written, compared and drawn from."""
    base = Path(shutil.copytree(POCKET, tmp_path / "base"))  # what another process has mapped too would stay
    sync_all(base)
    weights = Weights(Model(base_of(base)), None)
    most = dict.fromkeys(("loading", "writing", "comparing", "drawing"), 0)

    def look(moment, file):
        held = sum(each.rss for each in psutil.Process().memory_maps() if each.path == str(file))
        most[moment] = max(most[moment], held)

    unet, written = base / "unet/diffusion_pytorch_model.safetensors", tmp_path / "model.safetensors"
    live = weights.load(["unet"])
    look("loading", unet)
    del live
    for name in weights.outline("unet"):
        weights.read("unet", name)
    look("writing", unet)
    weights.let_go()
    single_file.write(weights, written, {})
    sync_all(written)
    network = single_file.open_file(weights, written, ["unet"]).unet
    assert differing("unet", network, weights.digests) == ""
    look("comparing", written)
    compute_in_float32(network)
    network.conv_norm_out.register_forward_hook(lambda *_: look("drawing", written))
    with torch.no_grad():
        network(torch.zeros(1, 4, 16, 16), 1, torch.zeros(1, 77, network.config.cross_attention_dim))
    assert most["drawing"] > 0
    assert max(most.values()) < unet.stat().st_size / 2, most  # small tensors' pages come along with their neighbours'


# ---- the true models' files


# What other programs look for, with where that stands; beginnings of a file's tensors, and how many there are of each.
# CompVis/stable-diffusion v1-inference.yaml's model, Stability-AI/generative-models sd_xl_base.yaml's: a true file of 1 has 1,131 tensors,
# one of XL 2,515, of which the scale of OpenCLIP's loss is in no diffusers folder and read by nothing. ComfyUI tells the text encoders by
# these beginnings (comfy/supported_models.py), A1111 too (modules/sd_models_config.py). The text encoder of a true file of 2 has a 24th
# layer, which nothing uses: what comes out of the last but one is read, and diffusers' folders end there (kohya's model_util.py drops it).
FILES = {
    "sd": {"model.diffusion_model.": 686, "first_stage_model.": 248, "cond_stage_model.transformer.text_model.": 197},
    "sd2": {"model.diffusion_model.": 686, "first_stage_model.": 248, "cond_stage_model.model.": 280},
    "sdxl": {
        "model.diffusion_model.": 1680,
        "first_stage_model.": 248,
        "conditioner.embedders.0.transformer.text_model.": 197,
        "conditioner.embedders.1.model.": 389,
    },
}
# kohya-ss/sd-scripts 48d368f, networks/lora.py: the layers of Transformer2DModel, CLIPAttention and CLIPMLP; it prints these numbers when
# it makes a LoRA of such a base. ComfyUI's table of the same names: comfy/lora.py, model_lora_keys_unet and model_lora_keys_clip.
KOHYAS = {
    "sd": {
        r"lora_unet_(down_blocks_\d|up_blocks_\d|mid_block)_attentions_\d_(proj_in|proj_out|transformer_blocks_\d_.+)": 192,
        r"lora_te_text_model_encoder_layers_\d+_(self_attn_(q|k|v|out)_proj|mlp_fc[12])": 72,
    },
    "sd2": {
        r"lora_unet_(down_blocks_\d|up_blocks_\d|mid_block)_attentions_\d_(proj_in|proj_out|transformer_blocks_\d_.+)": 192,
        r"lora_te_text_model_encoder_layers_\d+_(self_attn_(q|k|v|out)_proj|mlp_fc[12])": 138,
    },
    "sdxl": {
        r"lora_unet_(input_blocks_\d|output_blocks_\d|middle_block)_1_(proj_in|proj_out|transformer_blocks_\d_.+)": 722,
        r"lora_te1_text_model_encoder_layers_\d+_(self_attn_(q|k|v|out)_proj|mlp_fc[12])": 72,
        r"lora_te2_text_model_encoder_layers_\d+_(self_attn_(q|k|v|out)_proj|mlp_fc[12])": 192,
    },
}


# What comfy/ldm/flux/model.py (FLUX.2's global modulation) and comfy/ldm/lumina/model.py of the same version call their weights, by which
# comfy/model_detection.py tells them.
MAKERS = {
    "klein": r"(img_in|txt_in|time_in\.(in|out)_layer|(double_stream_modulation_(img|txt)|single_stream_modulation)\.lin"
    r"|final_layer\.(linear|adaLN_modulation\.1)|single_blocks\.\d+\.linear[12]"
    r"|double_blocks\.\d+\.(img|txt)_(attn\.(qkv|proj)|mlp\.[02]))\.weight"
    r"|(double_blocks\.\d+\.(img|txt)_attn|single_blocks\.\d+)\.norm\.(query|key)_norm\.scale",
    "z_image": r"x_embedder\.(weight|bias)|final_layer\.(linear|adaLN_modulation\.1)\.(weight|bias)|(x|cap)_pad_token"
    r"|cap_embedder\.[01]\.(weight|bias)|t_embedder\.mlp\.[02]\.(weight|bias)"
    r"|(layers|context_refiner|noise_refiner)\.\d+\.(attention\.(qkv|out|[qk]_norm)|feed_forward\.w[123]|(attention|ffn)_norm[12]"
    r"|adaLN_modulation\.0)\.(weight|bias)",
}
# ComfyUI 30860264 (0.19.3, 2026-04-17), comfy/utils.py: the layers of flux_to_diffusers and z_image_to_diffusers, under the prefix that
# comfy/lora.py's model_lora_keys_unet gives them.
COMFYUIS = {
    "klein": r"transformer\.(transformer_blocks\.\d+\.("
    r"attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)|(ff|ff_context)\.linear_(in|out))"
    r"|single_transformer_blocks\.\d+\.attn\.(to_qkv_mlp_proj|to_out))\.lora_[AB]\.weight",
    "z_image": r"transformer\.(layers|context_refiner|noise_refiner)\.\d+\."
    r"(attention\.(to_q|to_k|to_v|to_out\.0)|feed_forward\.w[123])\.lora_[AB]\.weight",
}


@pytest.mark.parametrize("kind", COMFYUIS)
def test_a_flow_lora_has_the_names_that_comfyui_looks_for(kind, request, tmp_path):
    """Beside attention and feed-forward layers; it reads no alpha of these, which is in the second matrix."""
    base = request.getfixturevalue(kind)
    write_lora(base, tmp_path / "lora.safetensors")
    weights = Weights(Model(base_of(base), tmp_path / "lora.safetensors"), None)
    tensors, _ = adapters.in_diffusers(weights, torch.float32)
    assert len(tensors) == 2 * len(weights.pairs) > 50
    assert [name for name in tensors if not re.fullmatch(COMFYUIS[kind], name)] == []


@pytest.mark.parametrize(("kind", "dtype"), [("klein", None), ("klein", torch.bfloat16), ("z_image", None)])
def test_a_flow_denoiser_s_own_file_has_its_makers_names_and_draws_the_same(kind, dtype, request, tmp_path):
    """A LoRA baked in, read again by diffusers' reader of the makers' files, in the shapes that its own weights have."""
    base = request.getfixturevalue(kind)
    write_lora(base, tmp_path / "lora.safetensors")
    weights = Weights(Model(base_of(base), tmp_path / "lora.safetensors"), dtype)
    order, path = Export("merged", tmp_path / "model.safetensors", dtype), tmp_path / "model.safetensors"
    single_file.write(weights, path, {})
    proof = single_file.check(weights, path)
    assert (proof.differs, proof.largest_difference < 1e-5) == ("", dtype is None)
    names = [name for name in read_header(path) if name != "__metadata__"]
    assert [name for name in names if not re.fullmatch(MAKERS[kind], name)] == []
    assert path.stat().st_size == pytest.approx(formats.size_of(weights, order), rel=0.1)


@pytest.mark.parametrize("kind", ["klein", "z_image"])
def test_a_flow_denoiser_s_file_that_is_wrong_is_told(kind, request, tmp_path):
    weights, path = Weights(Model(base_of(request.getfixturevalue(kind))), None), tmp_path / "model.safetensors"
    single_file.write(weights, path, {})
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("qkv.weight"))
    save_file(tensors | {name: tensors[name].flip(0)}, path)
    assert "read with other values" in single_file.check(weights, path).differs


# what the loaders look up by its full name: comfy/utils.py, clip_text_transformers_convert; A1111's modules/sd_models_config.py
LOOKED_UP = {
    "sd": "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "sd2": "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight",
    "sdxl": "conditioner.embedders.1.model.text_projection",
}


def true_networks(kind):
    """A base's networks at their true size, without weights."""
    with torch.device("meta"):
        encoder = CLIPTextConfig(hidden_act="quick_gelu", **CLIP_L)
        if kind == "sd2":
            encoder = CLIPTextConfig(hidden_act="gelu", vocab_size=encoder.vocab_size, **CLIP_H)
        unet = UNet2DConditionModel(**{"sd": {"cross_attention_dim": 768}, "sd2": SD2, "sdxl": XL_UNET}[kind])
        vae = AutoencoderKL(layers_per_block=2, latent_channels=4, **VAE)
        networks = {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(encoder)}
        if kind == "sdxl":
            networks["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(hidden_act="gelu", projection_dim=1280, **BIG_G))
    return networks


@pytest.mark.parametrize("kind", FILES)
def test_the_true_models_have_the_names_that_other_programs_look_for(kind):
    family, networks = SDXL if kind == "sdxl" else STABLE_DIFFUSION, true_networks(kind)
    names = list(layout(family, networks))
    assert {start: sum(name.startswith(start) for name in names) for start in FILES[kind]} == FILES[kind]
    assert len(names) == sum(FILES[kind].values())
    assert LOOKED_UP[kind] in names
    named = [
        adapters.kohya_name(family, networks, network, layer)
        for network, module in networks.items()
        for layer, each in module.named_modules()
        if isinstance(each, torch.nn.Linear | torch.nn.Conv2d) and (".attentions." in layer or ".layers." in layer) and network != "vae"
    ]
    assert len(set(named)) == len(named)
    found = {form: sum(re.fullmatch(form, name) is not None for name in named) for form in KOHYAS[kind]}
    assert found == KOHYAS[kind]
    assert len(named) == sum(found.values())
