"""Bases of every form: folder, fp16 variant, single file; what can't be trained is refused in words."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from dreambooth_cli.base import Base, identify, read_facts
from dreambooth_cli.engine.loading import (
    bring_back,
    find_device,
    let_go,
    load_family,
    load_pipeline,
    parts_of,
    text_encoders_of,
)
from dreambooth_cli.engine.sampling import Drawing, draw
from dreambooth_cli.errors import ModelUnavailable, UsageError
from tests import small_models
from tests.engine.plans import base_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_a_single_file_is_the_folder_it_was_made_of(kind, request, tmp_path):
    folder = request.getfixturevalue(kind)
    file = small_models.single_file(folder, tmp_path / "model.safetensors")
    facts = read_facts(file)
    expected = read_facts(folder)
    assert (facts.family, facts.prediction_type) == (expected.family, expected.prediction_type)
    single = Base(name="single", path=file, repository=None, identity=identify(file), facts=facts, config_path=folder)
    drawing = Drawing(steps=2, guidance_scale=5.0, width=64, height=64)
    pictures = [
        np.asarray(draw(load_family(base, dtype=torch.float32, device=CPU).pipe, ["a dog"], [0], drawing)[0])
        for base in (single, base_of(folder))
    ]
    assert np.array_equal(*pictures)


def test_the_fp16_variant_is_found(sd1, tmp_path):
    pipe = StableDiffusionPipeline.from_pretrained(
        sd1, safety_checker=None, feature_extractor=None, dtype=torch.float16
    )
    pipe.save_pretrained(tmp_path / "half", variant="fp16")
    family = load_family(base_of(tmp_path / "half"), dtype=torch.float32, device=CPU)
    assert family.pipe.unet.dtype == family.pipe.text_encoder.dtype == torch.float32


def test_a_part_that_is_only_there_in_half_is_found_too(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "mixed")
    for file in (folder / "text_encoder").glob("model.safetensors"):
        file.rename(file.with_name("model.fp16.safetensors"))
    mixed = load_family(base_of(folder), dtype=torch.float32, device=CPU).pipe
    plain = load_family(base_of(sd1), dtype=torch.float32, device=CPU).pipe
    for part in ("unet", "text_encoder", "vae"):
        expected = getattr(plain, part).state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in getattr(mixed, part).state_dict().items())


def test_what_a_single_file_says_of_its_prediction_stands(sd1, sd2, tmp_path):
    """The configs beside it may be of the other kind: an SD 2 file read with an epsilon scheduler's configs."""
    file = small_models.single_file(sd2, tmp_path / "model.safetensors")
    configs = shutil.copytree(sd2, tmp_path / "configs")
    change_config(configs, "scheduler", prediction_type="epsilon")
    base = Base(name="x", path=file, repository=None, identity="x", facts=read_facts(file), config_path=configs)
    assert load_family(base, dtype=torch.float32, device=CPU).prediction_type == "v_prediction"


def test_parts_leave_and_come_back(sdxl):
    base = base_of(sdxl)
    pipe = load_family(base, dtype=torch.float32, device=CPU).pipe
    weights = {name: part.state_dict() for name, part in text_encoders_of(pipe).items()}
    let_go(pipe, ["vae", "text_encoder", "text_encoder_2"])
    assert text_encoders_of(pipe) == {}
    assert bring_back(pipe, base, dtype=torch.float32, device=CPU) == ["vae", "text_encoder", "text_encoder_2"]
    for name, part in text_encoders_of(pipe).items():
        assert all(torch.equal(value, weights[name][key]) for key, value in part.state_dict().items())
    assert bring_back(pipe, base, dtype=torch.float32, device=CPU) == []


def change_config(folder, part, **values):
    path = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_prediction_type_is_read_from_the_config(sd1, tmp_path):
    """Not guessed from the name: a folder called sd1 that says velocity is trained on velocity."""
    folder = shutil.copytree(sd1, tmp_path / "sd1")
    change_config(folder, "scheduler", prediction_type="v_prediction")
    assert base_of(folder).facts.prediction_type == "v_prediction"
    assert load_family(base_of(folder), dtype=torch.float32, device=CPU).prediction_type == "v_prediction"


def test_a_prediction_that_has_no_target_is_refused(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    change_config(folder, "scheduler", prediction_type="sample")
    with pytest.raises(ModelUnavailable) as caught:
        load_family(base_of(folder), dtype=torch.float32, device=CPU)
    assert "'sample'" in caught.value.message


def test_an_inpainting_base_is_refused(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    change_config(folder, "unet", in_channels=9)
    with pytest.raises(ModelUnavailable) as caught:
        read_facts(folder)
    assert "inpainting" in caught.value.hint


def test_pickled_weights_are_refused_with_the_way_to_convert(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    for file in (folder / "unet").glob("*.safetensors"):
        file.rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelUnavailable) as caught:
        read_facts(folder)
    assert caught.value.exit_code == 5
    assert "never loaded" in caught.value.hint


def test_no_room_for_a_base_is_not_a_broken_base(sd1, monkeypatch):
    """As diffusers tells it: in words of its own, round the system's."""

    def open_without_room(*args, **options):
        raise RuntimeError("unable to mmap 6440752 bytes from file <unet>: Cannot allocate memory (12)")

    monkeypatch.setattr(safetensors.torch, "load_file", open_without_room)
    base = Base(name="sd1", path=sd1, repository=None, identity="", facts=read_facts(sd1))
    with pytest.raises(MemoryError, match="unable to mmap"):
        load_pipeline(base, dtype=torch.float32)


def test_a_ckpt_file_is_refused(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"pickle")
    with pytest.raises(ModelUnavailable) as caught:
        read_facts(tmp_path / "model.ckpt")
    assert "safetensors" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{}", b"\x02\0\0\0\0\0\0\0[]"])
def test_a_broken_single_file_is_refused(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelUnavailable):
        read_facts(tmp_path / "model.safetensors")


def test_cut_weights_are_told_with_the_base(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    base = base_of(folder)
    (file,) = (folder / "vae").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelUnavailable) as caught:
        load_family(base, dtype=torch.float32, device=CPU)
    assert "can't be loaded" in caught.value.message


def test_cut_text_encoder_weights_are_told_too(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    base = base_of(folder)
    (file,) = (folder / "text_encoder").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelUnavailable):
        load_family(base, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_a_single_file_is_what_the_configs_beside_it_say(kind, request, tmp_path):
    """As SD 2.1-base: the architecture of SD 2 that predicts noise; and an SD 1 that predicts velocity."""
    said = {"sd1": "v_prediction", "sd2": "epsilon"}[kind]
    file = small_models.single_file(request.getfixturevalue(kind), tmp_path / "mine.safetensors")
    configs = shutil.copytree(request.getfixturevalue(kind), tmp_path / "mine")
    change_config(configs, "scheduler", prediction_type=said)
    facts = read_facts(file)
    assert (facts.prediction_type, facts.resolution) == (said, 64)
    base = Base(name="x", path=file, repository=None, identity="x", facts=facts, config_path=configs)
    assert load_family(base, dtype=torch.float32, device=CPU).prediction_type == said


def test_a_part_that_comes_back_comes_alone(sd1):
    base = base_of(sd1)
    assert set(parts_of(load_pipeline(base, dtype=torch.float32, only=["vae"]))) == {"vae"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
def test_a_gpu_that_torch_can_not_use_is_told():
    with pytest.raises(UsageError) as caught:
        find_device("cuda")
    assert "CUDA build" in caught.value.hint


def test_the_catalogues_sdxl_takes_the_fp16_safe_vae_in_fp16_alone(sdxl, tmp_path):
    safe = small_models.build_vae(tmp_path / "vae")
    base = replace(base_of(sdxl), vae_path=safe)
    safe_weights = AutoencoderKL.from_pretrained(safe).decoder.conv_in.weight

    def is_safe(base, dtype):
        vae = load_pipeline(base, dtype=dtype).vae
        return vae.dtype == dtype and torch.equal(vae.decoder.conv_in.weight.float(), safe_weights.to(dtype).float())

    assert is_safe(base, torch.float16)
    assert not is_safe(base, torch.float32)
    assert not is_safe(base_of(sdxl), torch.float16)
