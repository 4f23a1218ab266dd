"""LoRA files in every layout: what is read draws as if it had been added to the weights by hand; everything else is refused, saying what
it is."""

import json
import math
import pickle

import pytest
import torch
from safetensors.torch import save_file

from dreambooth_cli.engine.families.loading import load_family, parts_of
from dreambooth_cli.engine.families.lora_file import load_lora, names_in
from dreambooth_cli.errors import LibraryRefused, ModelUnavailable
from tests import small_models
from tests.engine.plans import base_of

CPU = torch.device("cpu")
ATTENTION = ("attn1.to_q", "attn2.to_k", "attn2.to_out.0", "ff.net.2", "proj_in")
TEXT = ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1")
CONVOLUTIONS = ("resnets.0.conv1", "downsamplers.0.conv", "upsamplers.0.conv", "conv_shortcut", "time_emb_proj")


@pytest.fixture
def pipe(sd1):
    return fresh(sd1)


def fresh(folder):
    return load_family(base_of(folder), dtype=torch.float32, device=CPU).pipe


def pairs_for(pipe, *, rank=4, ends=ATTENTION, text=TEXT, seed=0):
    """Matrices for layers of the UNet and the text encoders: (network, layer) -> down, up."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for network, module in parts_of(pipe).items():
        mine = {"vae": (), "unet": ends}.get(network, text)
        for name, layer in module.named_modules():
            if not name.endswith(mine) or not mine:
                continue
            out, inner, *kernel = layer.weight.shape
            ones = (1, 1) if kernel else ()
            down = torch.randn(rank, inner, *kernel, generator=generator) / 4
            found[network, name] = (down, torch.randn(out, rank, *ones, generator=generator) / 4)
    assert len(found) > 3
    return found


def by_hand(folder, pairs, scale=1.0):
    """A fresh pipeline with the products added to its weights by hand."""
    pipe = fresh(folder)
    with torch.no_grad():
        for (network, name), (down, up) in pairs.items():
            weight = getattr(pipe, network).get_submodule(name).weight
            weight += scale * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    return pipe


def outputs(pipe):
    """What the text encoders and the UNet give for one input."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, 200, (1, 77), generator=generator)
    width, more = pipe.unet.config.cross_attention_dim, {}
    if pipe.unet.config.addition_embed_type:
        more["added_cond_kwargs"] = {
            "text_embeds": torch.randn(1, 40, generator=generator),
            "time_ids": torch.ones(1, 6),
        }
    with torch.no_grad():
        latents, text = torch.randn(1, 4, 16, 16, generator=generator), torch.randn(1, 77, width, generator=generator)
        made = {"unet": pipe.unet(latents, torch.tensor([500]), text, **more).sample}
        for name in ("text_encoder", "text_encoder_2"):
            if encoder := getattr(pipe, name, None):
                made[name] = encoder(tokens, output_hidden_states=True).hidden_states[-1]
    return made


def assert_same(ours, theirs):
    ours, theirs = outputs(ours), outputs(theirs)
    for name, made in theirs.items():
        torch.testing.assert_close(ours[name], made, rtol=1e-4, atol=1e-4, msg=lambda told, name=name: f"{name}: {told}")


# ---- layouts: (network, layer) -> what a file calls its matrices


def nested(name):
    return name if name.startswith("text_model.") else f"text_model.{name}"


def in_peft(network, name):
    return [f"{network}.{name}.lora_{letter}.weight" for letter in "AB"]


def in_diffusers(network, name):
    if network == "unet":
        return [f"unet.{name}.lora.{word}.weight" for word in ("down", "up")]
    return [f"{network}.{nested(name)}.lora_linear_layer.{word}.weight" for word in ("down", "up")]


def in_old_diffusers(network, name):
    last = name.rpartition(".")[2]
    if network == "unet" and (".attn1.to_" in name or ".attn2.to_" in name):
        head, _, tail = name.replace(".to_out.0", ".to_out").rpartition(".")
        return [f"unet.{head}.processor.{tail}_lora.{word}.weight" for word in ("down", "up")]
    if network != "unet" and last in ("q_proj", "out_proj"):
        head = nested(name).rpartition(".")[0]
        old = {"q_proj": "to_q", "out_proj": "to_out"}[last]
        return [f"{network}.{head}.{old}_lora.{word}.weight" for word in ("down", "up")]
    return in_diffusers(network, name)


def in_kohya(network, name):
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"}[network]
    flat = (name if network == "unet" else nested(name)).replace(".", "_")
    return [f"{prefix}_{flat}.lora_{word}.weight" for word in ("down", "up")]


def in_kohya_for_sdxl(pipe):
    """kohya trains SDXL on Stability's own UNet; the names are those of the single-file checkpoints."""
    state = dict(pipe.unet.named_parameters())

    def names(network, name):
        if network == "unet":
            name = small_models._unet_name(f"{name}.weight", state, pipe.unet.config).removesuffix(".weight")
        made = in_kohya(network, name)
        return [each.replace("lora_te_", "lora_te1_") for each in made]

    return names


def in_get_peft_model(network, name):
    return [f"{network}.base_model.model.{name}.lora_{letter}.my_adapter.weight" for letter in "AB"]


def without_a_prefix(network, name):
    return [each.removeprefix(f"{network}.") for each in in_diffusers(network, name)]


def tensors_of(pairs, naming):
    """The tensors of a file with this layout."""
    named = ((naming(*place), both) for place, both in pairs.items())
    return {name: tensor for names, both in named for name, tensor in zip(names, both, strict=True)}


def file_of(tensors, path, metadata=None):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)
    return path


def header(pairs, **values):
    """The header that diffusers' save_lora_weights writes from peft's config."""
    told = {"r": 4, "lora_alpha": 4, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}, "peft_type": "LORA"}
    networks = dict.fromkeys(network for network, _ in pairs)
    config = {f"{network}.{key}": value for network in networks for key, value in (told | values).items()}
    return {"lora_adapter_metadata": json.dumps(config)}


def in_comfyui(network, name):
    """As ComfyUI saves a LoRA that it extracts from a model: with its own names for the text encoders and, say, diffusers' for the UNet."""
    if network == "unet":
        return [f"diffusion_model.{name}.lora_{word}.weight" for word in ("down", "up")]
    return [f"text_encoders.clip_l.transformer.{nested(name)}.lora_{word}.weight" for word in ("down", "up")]


LAYOUTS = {
    "ComfyUI": in_comfyui,
    "diffusers": in_diffusers,
    "old diffusers": in_old_diffusers,
    "peft": in_peft,
    "get_peft_model": in_get_peft_model,
    "no prefix": without_a_prefix,
    "kohya": in_kohya,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_draws_as_if_added_by_hand(layout, sd1, pipe, tmp_path):
    pairs = pairs_for(pipe)
    load_lora(pipe, file_of(tensors_of(pairs, LAYOUTS[layout]), tmp_path / "x.safetensors"))
    assert_same(pipe, by_hand(sd1, pairs))


def test_kohyas_names_for_sdxl(sdxl, tmp_path):
    pipe = fresh(sdxl)
    pairs = pairs_for(pipe, ends=ATTENTION + CONVOLUTIONS)
    tensors = tensors_of(pairs, in_kohya_for_sdxl(pipe))
    alphas = {f"{name.partition('.')[0]}.alpha": torch.tensor(2.0) for name in tensors}
    assert load_lora(pipe, file_of(tensors | alphas, tmp_path / "x.safetensors")) == []
    assert_same(pipe, by_hand(sdxl, pairs, scale=0.5))


def test_no_two_layers_of_a_network_are_called_alike(sd1, sdxl):
    for folder in (sd1, sdxl):
        for network, module in parts_of(fresh(folder)).items():
            layers = [name for name, each in module.named_modules() if isinstance(each, torch.nn.Linear | torch.nn.Conv2d)]
            if network != "vae":
                assert {names_in(module)[name.replace(".", "_")] for name in layers} == set(layers)


def test_a_locon_with_convolutions(sd1, pipe, tmp_path):
    pairs = pairs_for(pipe, ends=(*CONVOLUTIONS, "proj_out"), text=())
    load_lora(pipe, file_of(tensors_of(pairs, in_kohya), tmp_path / "x.safetensors"))
    assert_same(pipe, by_hand(sd1, pairs))


ALPHAS = {
    "tensors": (lambda pairs: {f"{in_kohya(*place)[0].partition('.')[0]}.alpha": torch.tensor(3) for place in pairs}, None),
    "kohya's header": (lambda pairs: {}, lambda pairs: {"ss_network_alpha": "3.0", "ss_network_dim": "4"}),
    "diffusers' header": (lambda pairs: {}, lambda pairs: header(pairs, lora_alpha=3)),
    "a pattern": (lambda pairs: {}, lambda pairs: header(pairs, lora_alpha=9, alpha_pattern={"to_q": 3, **dict.fromkeys(ENDS, 3.0)})),
    "over the root of the rank": (lambda pairs: {}, lambda pairs: header(pairs, lora_alpha=1.5, use_rslora=True)),
}
ENDS = ("^q_proj", "out_proj", "mlp.fc1", "attn2.to_k", "to_out.0", r"ff\.net\.2", "proj_in")


@pytest.mark.parametrize("where", ALPHAS)
def test_alpha_over_rank_wherever_alpha_is_said(where, sd1, pipe, tmp_path):
    pairs = pairs_for(pipe)
    more, metadata = ALPHAS[where]
    naming = in_diffusers if where in ("diffusers' header", "a pattern") else in_kohya
    tensors = tensors_of(pairs, naming) | more(pairs)
    load_lora(pipe, file_of(tensors, tmp_path / "x.safetensors", metadata and metadata(pairs)))
    assert_same(pipe, by_hand(sd1, pairs, scale=0.75))


def test_ranks_that_differ(sd1, pipe, tmp_path):
    few, many = pairs_for(pipe, rank=2), pairs_for(pipe, rank=7)
    pairs = {place: (few if number % 3 else many)[place] for number, place in enumerate(few)}
    ranks = {name: 7 for (_, name), (down, _) in pairs.items() if len(down) == 7}
    metadata = header(pairs, r=2, lora_alpha=2, rank_pattern=ranks, alpha_pattern=ranks)
    load_lora(pipe, file_of(tensors_of(pairs, in_peft), tmp_path / "x.safetensors", metadata))
    assert_same(pipe, by_hand(sd1, pairs))


def test_pefts_own_folder(sd1, pipe, tmp_path):
    pairs = pairs_for(pipe, text=())
    names = [name.replace("unet.", "base_model.model.", 1) for name in tensors_of(pairs, in_peft)]
    tensors = dict(zip(names, tensors_of(pairs, in_peft).values(), strict=True))
    file_of(tensors, tmp_path / "adapter_model.safetensors")
    assert "alpha" in load_lora(fresh(sd1), tmp_path)[0]
    config = {"r": 4, "lora_alpha": 8, "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8-sig")  # with a mark before the text
    assert load_lora(pipe, tmp_path) == []
    assert_same(pipe, by_hand(sd1, pairs, scale=2.0))


@pytest.mark.parametrize("key", ["lora_magnitude_vector.weight", "lora_magnitude_vector", "dora_scale"])
def test_the_scale_of_a_dora_is_kept(key, sd1, pipe, tmp_path):
    pairs = pairs_for(pipe)
    tensors, expected = tensors_of(pairs, in_kohya if key == "dora_scale" else in_peft), by_hand(sd1, pairs)
    with torch.no_grad():
        for (network, name), (_, up) in pairs.items():
            weight = getattr(expected, network).get_submodule(name).weight
            scale = 1 + torch.arange(len(up)).reshape(-1, *(1 for _ in weight.shape[1:])) / len(up)
            weight *= scale / weight.flatten(1).norm(dim=1).reshape(scale.shape)
            place = (in_kohya if key == "dora_scale" else in_peft)(network, name)[0]
            stem = place.removesuffix(".lora_down.weight").removesuffix(".lora_A.weight")
            tensors[f"{stem}.{key}"] = scale if key == "dora_scale" else scale.flatten()
    load_lora(pipe, file_of(tensors, tmp_path / "x.safetensors"))
    assert_same(pipe, expected)


# ---- what is told


def test_what_has_no_place_is_told(sd1, pipe, tmp_path):
    pairs = pairs_for(pipe)
    tensors = tensors_of(pairs, in_diffusers)
    odd = {name.replace("unet.down_blocks.0", "unet.down_blocks.7"): tensor for name, tensor in tensors.items()}
    (told,) = load_lora(pipe, file_of(odd, tmp_path / "x.safetensors"))
    assert "down_blocks.7" in told
    kept = {place: both for place, both in pairs.items() if not place[1].startswith("down_blocks.0")}
    assert f"lacks {len(pairs) - len(kept)} of the {len(pairs)} layers" in told
    assert_same(pipe, by_hand(sd1, kept))


def test_a_header_that_is_silent_on_one_network_is_told(sd1, pipe, tmp_path):
    pairs = pairs_for(pipe)
    metadata = header({place: both for place, both in pairs.items() if place[0] == "unet"}, lora_alpha=4)
    (told,) = load_lora(pipe, file_of(tensors_of(pairs, in_peft), tmp_path / "x.safetensors", metadata))
    assert "gives no alpha for text_encoder" in told
    assert_same(pipe, by_hand(sd1, pairs))


def test_a_lora_of_zeros_is_told(pipe, tmp_path):
    tensors = {name: tensor * 0 for name, tensor in tensors_of(pairs_for(pipe), in_peft).items()}
    assert "changes nothing" in load_lora(pipe, file_of(tensors, tmp_path / "x.safetensors"))[0]


# ---- what is refused


def wrong(tensors, change):
    return {change(name): tensor for name, tensor in tensors.items()}


REFUSED = {
    "no tensors": (lambda t: {}, "no pair"),
    "half a pair": (lambda t: {n: v for n, v in t.items() if n != sorted(t)[0]}, "lacks the"),
    "no layer of it here": (lambda t: wrong(t, lambda n: n.replace("attentions", "rooms").replace("layers", "rows")), "nothing in"),
    "an encoder that is not here": (
        lambda t: {n.replace("text_encoder.", "text_encoder_2."): v for n, v in t.items() if n.startswith("text")},
        "nothing in",
    ),
    "another base's shapes": (lambda t: {n: torch.cat([v, v], -1) if "lora.down" in n else v for n, v in t.items()}, "another base"),
    "a rank that differs within a pair": (lambda t: {n: v[:3] if "down" in n else v for n, v in t.items()}, "another base"),
    "no finite numbers": (lambda t: {n: v / 0 for n, v in t.items()}, "not finite"),
    "integers": (lambda t: {n: v.int() for n, v in t.items()}, "dtype I32"),
    "some other tensor": (lambda t: t | {"something.weight": torch.zeros(3)}, "an unknown kind"),
    "alphas of some": (lambda t: t | {sorted(t)[0].partition(".lora")[0] + ".alpha": torch.tensor(1.0)}, "lacks the alpha"),
    "an alpha of zero": (lambda t: t | {n.partition(".lora")[0] + ".alpha": torch.tensor(0.0) for n in t}, "alpha can't be"),
    "a scale of some": (
        lambda t: t | {sorted(t)[0].partition(".lora")[0] + ".lora_magnitude_vector": torch.ones(32)},
        "lacks the DoRA scale",
    ),
    "a LoHa": (lambda t: {f"lora_unet_a.hada_w{n}_a": torch.ones(2, 2) for n in (1, 2)}, "LoHa"),
    "a LoKr": (lambda t: {f"lora_unet_a.lokr_w{n}": torch.ones(2, 2) for n in (1, 2)}, "LoKr"),
    "Tucker form": (lambda t: t | {"lora_unet_a.lora_mid.weight": torch.ones(2, 2)}, "Tucker"),
    "a transformer's": (lambda t: {f"transformer.x.lora_{n}.weight": torch.ones(2, 2) for n in "AB"}, "and this base has a UNet"),
    "a textual inversion": (lambda t: {"emb_params": torch.ones(2, 2)}, "textual inversion"),
    "a whole base": (lambda t: {"model.diffusion_model.out.2.weight": torch.ones(2)}, "whole base"),
    "a VAE": (lambda t: {"decoder.conv_in.weight": torch.ones(2)}, "VAE"),
    "a whole text encoder": (lambda t: {"text_model.encoder.layers.0.mlp.fc1.weight": torch.ones(2)}, "whole text encoder"),
    "a whole UNet": (lambda t: {"down_blocks.0.resnets.0.conv1.weight": torch.ones(2)}, "whole UNet"),
    "with biases": (lambda t: t | {"unet.x.lora_B.bias": torch.ones(2)}, "biases"),
}


@pytest.fixture(scope="module")
def shared(sd1):
    """A pipeline that no LoRA is ever put into."""
    return fresh(sd1)


@pytest.mark.parametrize("what", REFUSED)
def test_what_can_not_be_read_is_refused_by_name(what, sd1, shared, tmp_path):
    change, words = REFUSED[what]
    tensors = change(tensors_of(pairs_for(shared), in_diffusers))
    pipe = fresh(sd1) if what == "no finite numbers" else shared
    with pytest.raises(ModelUnavailable, match=words) as caught:
        load_lora(pipe, file_of(tensors, tmp_path / "x.safetensors"))
    assert "x.safetensors" in caught.value.message
    assert caught.value.hint
    assert not any("lora" in name for name, _ in shared.unet.named_parameters())


HEADERS = {
    "rank": {"r": 10**9},
    "alpha": {"lora_alpha": -1},
    "alpha x": {"lora_alpha": "x"},
    "alpha none": {"lora_alpha": None},
    "alpha inf": {"lora_alpha": math.inf},
    "pattern": {"alpha_pattern": {"(a+)+$": 1}},
    "pattern x": {"rank_pattern": ["x"]},
    "rslora": {"use_rslora": "x"},
    "dora": {"use_dora": True},
    "kind": {"peft_type": "LOHA"},
    "pissa": {"init_lora_weights": "pissa_niter_4"},
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_can_not_be_is_told(what, shared, tmp_path):
    pairs = pairs_for(shared)
    file = file_of(tensors_of(pairs, in_diffusers), tmp_path / "x.safetensors", header(pairs, **HEADERS[what]))
    with pytest.raises(ModelUnavailable, match=r"x\.safetensors"):
        load_lora(shared, file)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "[" * 100_000, '{"unet.r": ' + "9" * 5000 + "}"])
def test_metadata_that_is_no_object_is_told(text, shared, tmp_path):
    tensors = tensors_of(pairs_for(shared), in_diffusers)
    with pytest.raises(ModelUnavailable, match=r"x\.safetensors"):
        load_lora(shared, file_of(tensors, tmp_path / "x.safetensors", {"lora_adapter_metadata": text}))


def test_a_library_that_refuses_another_is_not_a_broken_file(sd1, shared, refused_torchao, tmp_path):
    file = file_of(tensors_of(pairs_for(shared), in_diffusers), tmp_path / "x.safetensors")
    with pytest.raises(LibraryRefused, match=r"torchao 0\.3"):
        load_lora(fresh(sd1), file)


class Trap:
    """What a pickle can do: leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("form", ["torch", "bare", "old torch"])
@pytest.mark.parametrize("name", ["lora.bin", "x.safetensors", "folder/pytorch_lora_weights.bin", "folder/adapter_model.bin"])
def test_a_pickle_is_never_opened_whatever_it_is_called(name, form, shared, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    trap = {"a": Trap(tmp_path / "sprung")}
    if form == "bare":
        path.write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(ModelUnavailable, match="is a pickle"):
        load_lora(shared, path.parent if path.parent != tmp_path else path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["LORA.SAFETENSORS", "lora.sft", "lora.bin", "lora.pt", "lora", "link"])
def test_what_a_sound_file_is_called_does_not_matter(name, sd1, shared, pipe, tmp_path):
    pairs = pairs_for(shared)
    file = file_of(tensors_of(pairs, in_kohya), tmp_path / ("blob" if name == "link" else name))
    if name == "link":  # as the hub's cache has it: a link to a file without suffix
        (tmp_path / "lora.safetensors").symlink_to(file)
        file = tmp_path / "lora.safetensors"
    assert load_lora(pipe, file) == []
    if name == "link":
        assert_same(pipe, by_hand(sd1, pairs))


def test_a_folder_with_one_lora_file(pipe, tmp_path):
    file_of(tensors_of(pairs_for(pipe), in_kohya), tmp_path / "mine.safetensors")
    (tmp_path / "._mine.safetensors").write_bytes(b"\0" * 100)
    (tmp_path / "pytorch_lora_weights.bin").write_bytes(pickle.dumps({}))
    assert load_lora(pipe, tmp_path) == []


def test_a_folder_with_several_is_asked_about(shared, tmp_path):
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelUnavailable, match="several"):
        load_lora(shared, tmp_path)
