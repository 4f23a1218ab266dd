"""What a model's name stands for, and what a base on disk says about itself."""

import json
import shutil

import pytest

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.bases.cache import find_cached, hub_cache
from dreambooth_cli.bases.catalog import CATALOG, find_entry, moved_note
from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.bases.fingerprint import identify
from dreambooth_cli.bases.folder import missing_parts
from dreambooth_cli.errors import ModelUnavailable
from tests import small_models


@pytest.mark.parametrize(
    ("named", "entry"),
    [
        ("sd15", "sd15"),
        ("SD15", "sd15"),
        ("runwayml/stable-diffusion-v1-5", "sd15"),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", "sd15"),
        ("CompVis/stable-diffusion-v1-4", "sd14"),
        ("stabilityai/stable-diffusion-2-1", "sd21"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl"),
    ],
)
def test_the_guides_names_reach_the_catalogue(named, entry):
    request = ask_for_base(named)
    assert request.entry is not None
    assert request.entry.name == entry
    assert request.repository == request.entry.repository


@pytest.mark.parametrize("gone", ["runwayml/stable-diffusion-v1-5", "stabilityai/stable-diffusion-2-1"])
def test_what_moved_is_said_in_one_line(gone):
    note = moved_note(gone)
    assert note is not None
    assert "\n" not in note
    assert find_entry(gone).repository in note


def test_what_did_not_move_is_not_said():
    names = [name for entry in CATALOG for name in (entry.name, entry.repository) if name]
    assert [moved_note(name) for name in names] == [None] * len(names)


def test_a_repository_of_ones_own():
    request = ask_for_base("someone/their-model")
    assert (request.repository, request.revision, request.entry) == ("someone/their-model", "main", None)


@pytest.mark.parametrize(
    ("named", "hint"), [("sdx", "sdxl"), ("./nowhere", "path"), ("nowhere.safetensors", "path"), ("", "models")]
)
def test_names_that_mean_nothing(named, hint):
    with pytest.raises(ModelUnavailable) as caught:
        ask_for_base(named)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("kind", "family", "prediction"),
    [("sd1", "sd", "epsilon"), ("sd2", "sd", "v_prediction"), ("sdxl", "sdxl", "epsilon")],
)
def test_facts_are_read_from_the_configs(kind, family, prediction, request):
    folder = request.getfixturevalue(kind)
    facts = read_facts(folder)
    assert (facts.family.name, facts.prediction_type, facts.resolution) == (family, prediction, 64)
    assert len(facts.text_encoders) == (2 if kind == "sdxl" else 1)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_counts_are_the_networks_own(kind, request):
    import torch

    from dreambooth_cli.engine.families.loading import load_family, parts_of
    from tests.engine.plans import base_of

    folder = request.getfixturevalue(kind)
    facts = read_facts(folder)
    parts = parts_of(load_family(base_of(folder), dtype=torch.float32, device=torch.device("cpu")).pipe)
    counted = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in parts.items()}
    assert facts.denoiser == counted["unet"]
    assert facts.vae == counted["vae"]
    assert list(facts.text_encoders) == [count for name, count in counted.items() if name.startswith("text")]


@pytest.mark.parametrize(
    "part", ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "model_index.json"]
)
def test_a_missing_part_is_named(part, sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    (folder / part).unlink()
    assert part in missing_parts(folder)
    with pytest.raises(ModelUnavailable) as caught:
        read_facts(folder)
    assert part in caught.value.message


def test_a_config_that_is_no_json_is_told(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    (folder / "unet" / "config.json").write_text("{" * 5000)
    with pytest.raises(ModelUnavailable) as caught:
        read_facts(folder)
    assert "unet/config.json" in caught.value.message


def test_identity_follows_the_files(sd1, tmp_path):
    first = shutil.copytree(sd1, tmp_path / "first" / "base")
    second = shutil.copytree(sd1, tmp_path / "second" / "base")
    assert identify(first) == identify(second)
    config = second / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    assert identify(first) != identify(second)


def test_a_base_in_the_hubs_cache_is_found(sd1):
    request = ask_for_base("runwayml/stable-diffusion-v1-5")
    assert find_cached(request) is None
    snapshot = small_models.lay_out_hub_cache(sd1, hub_cache(), request.repository, request.revision)
    assert find_cached(request) == snapshot
    next((snapshot / "unet").glob("*.safetensors")).unlink()
    assert find_cached(request) is None


def with_value(base, folder, file, **values):
    """A copy of a base with one of its configs changed."""
    shutil.copytree(base, folder)
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("unet/config.json", {"sample_size": "large"}),
        ("unet/config.json", {"sample_size": 0}),
        ("unet/config.json", {"sample_size": [64, 64]}),
        ("unet/config.json", {"sample_size": 10**30}),
        ("vae/config.json", {"block_out_channels": 4}),
        ("vae/config.json", {"block_out_channels": [1] * 5000}),
        ("vae/config.json", {"block_out_channels": []}),
    ],
)
def test_configs_that_no_base_has(file, values, sd1, tmp_path):
    with pytest.raises(ModelUnavailable) as caught:
        read_facts(with_value(sd1, tmp_path / "base", file, **values))
    assert caught.value.hint


@pytest.mark.parametrize("encoder", [3, "x", [], None, {}])
def test_an_index_that_names_its_parts_oddly(encoder, sd1, tmp_path):
    folder = with_value(sd1, tmp_path / "base", "model_index.json", text_encoder_2=encoder)
    assert read_facts(folder) == read_facts(sd1)


@pytest.mark.parametrize("weights", [3, ["a"], {"a": 3}])
def test_an_index_of_shards_that_is_none(weights, sd1, tmp_path):
    shutil.copytree(sd1, tmp_path / "base")
    (tmp_path / "base" / "unet" / "x.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    with pytest.raises(ModelUnavailable):
        read_facts(tmp_path / "base")


@pytest.mark.parametrize(
    "header",
    [
        {"a": 3},
        {"a": {"shape": 3}},
        {"a": {"shape": [-1]}},
        {"a": {"shape": [True]}},
        {"a": {"shape": [10**30]}},
        {"a": {"shape": [2**62] * 5000}},
        {"a": {}},
        {"__metadata__": 3},
        {"__metadata__": None},
    ],
    ids=lambda header: str(header)[:40],
)
def test_a_header_that_describes_no_tensors(header, tmp_path):
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ModelUnavailable, match="not a whole safetensors file"):
        read_facts(tmp_path / "a.safetensors")


def test_an_attention_of_one_axis_is_no_unet(tmp_path):
    name = "model.diffusion_model.transformer_blocks.0.attn2.to_k.weight"
    text = json.dumps({name: {"shape": [4]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ModelUnavailable, match="holds no UNet"):
        read_facts(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-that-name", "a\0b"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(ModelUnavailable):
        ask_for_base(name)
