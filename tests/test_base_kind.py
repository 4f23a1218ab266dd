"""What a base is: those that would train on the wrong noise are refused by name, before any work; sound files never."""

import json
import os
import pickle
import shutil
import socket
import struct
from pathlib import Path

import pytest

from dreambooth_cli.base import ask_for_base, read_facts, read_header, weight_files
from dreambooth_cli.errors import ModelUnavailable
from tests import small_models
from tests.test_base import with_value

SCHEDULER, INDEX = "scheduler/scheduler_config.json", "model_index.json"
OTHERS = [
    ("sdxl", SCHEDULER, {"_class_name": "EDMEulerScheduler"}, "EDM"),
    ("sdxl", SCHEDULER, {"_class_name": "EDMDPMSolverMultistepScheduler"}, "EDM"),
    ("sdxl", SCHEDULER, {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "flow matching"),
    ("sdxl", INDEX, {"scheduler": ["diffusers", "EDMEulerScheduler"]}, "EDM"),
    ("sdxl", SCHEDULER, {"sigma_max": 120.0}, "continuous noise"),
    ("sdxl", SCHEDULER, {"timestep_type": "continuous"}, "continuous noise"),
    ("sdxl", SCHEDULER, {"use_flow_sigmas": True}, "flow matching"),
    ("sd1", SCHEDULER, {"prediction_type": "sample"}, "'sample'"),
    ("sd1", SCHEDULER, {"_class_name": "LCMScheduler"}, "distilled"),
    ("sd1", SCHEDULER, {"_class_name": "TCDScheduler"}, "distilled"),
    ("sd1", SCHEDULER, {"beta_schedule": "sigmoid"}, "beta_schedule"),
    ("sd1", SCHEDULER, {"beta_start": -1}, "beta_start"),
    ("sd1", SCHEDULER, {"trained_betas": [0.1, 0.2]}, "trained_betas"),
    ("sd1", "unet/config.json", {"in_channels": 9}, "inpainting"),
    ("sd1", "unet/config.json", {"in_channels": 8}, "InstructPix2Pix"),
    ("sd1", "unet/config.json", {"time_cond_proj_dim": 256}, "LCM"),
    ("sd1", "unet/config.json", {"class_embed_type": "projection"}, "class embeddings"),
    ("sd1", "unet/config.json", {"num_class_embeds": 1000}, "class embeddings"),
    ("sd1", "unet/config.json", {"encoder_hid_dim": 4096}, "Kolors"),
    ("sd1", "unet/config.json", {"_class_name": "UNet3DConditionModel"}, "UNet3DConditionModel"),
    ("sd1", "unet/config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantized"),
    ("sd1", "vae/config.json", {"_class_name": "AutoencoderTiny"}, "AutoencoderTiny"),
    ("sdxl", "vae/config.json", {"latents_mean": [0.0] * 4}, "channel by channel"),
    ("sd1", "vae/config.json", {"latent_channels": 16}, "16 channels"),
    ("sd1", "text_encoder/config.json", {"num_hidden_layers": 30_000_000}, "num_hidden_layers"),
    ("sd1", "text_encoder/config.json", {"hidden_size": 2**62}, "hidden_size"),
    ("sd1", "unet/config.json", {"layers_per_block": 512}, "layers"),
    ("sd1", "unet/config.json", {"norm_eps": -1}, "norm_eps"),
    ("sdxl", INDEX, {"text_encoder": [None, None]}, "refiner"),
    ("sdxl", INDEX, {"requires_aesthetics_score": True}, "refiner"),
    ("sdxl", "unet/config.json", {"projection_class_embeddings_input_dim": 40 + 5 * 8}, "refiner"),
    ("sd1", INDEX, {"controlnet": ["diffusers", "ControlNetModel"]}, "controlnet"),
    ("sd1", INDEX, {"_class_name": "StableDiffusionInpaintPipeline"}, "StableDiffusionInpaintPipeline"),
    ("sd1", INDEX, {"_class_name": ["pipeline_x", "Own"]}, "pipeline_x"),
    ("sd1", INDEX, {"text_encoder": ["transformers", "T5EncoderModel"]}, "T5EncoderModel"),
]


@pytest.mark.parametrize(("kind", "file", "values", "told"), OTHERS, ids=[f"{file}-{v}"[:60] for _, file, v, _ in OTHERS])
def test_another_kind_of_base_is_refused_by_name(kind, file, values, told, request, tmp_path):
    with pytest.raises(ModelUnavailable) as caught:
        read_facts(with_value(request.getfixturevalue(kind), tmp_path / "base", file, **values))
    assert told in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("lacking", ["beta_start", "beta_end", "beta_schedule"])
def test_noise_that_is_not_stated_is_not_made_up(lacking, sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    path = folder / SCHEDULER
    values = json.loads(path.read_text())
    del values[lacking]
    path.write_text(json.dumps(values))
    with pytest.raises(ModelUnavailable, match=f"{lacking} missing"):
        read_facts(folder)


def test_what_looks_distilled_is_said(sdxl, tmp_path):
    assert read_facts(sdxl).remarks == ()
    turbo = with_value(sdxl, tmp_path / "turbo", SCHEDULER, timestep_spacing="trailing")
    assert "distilled" in read_facts(turbo).remarks[0]
    velocity = with_value(sdxl, tmp_path / "v", SCHEDULER, timestep_spacing="trailing", rescale_betas_zero_snr=True)
    assert read_facts(velocity).remarks == ()
    assert read_facts(velocity).zero_snr


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """A small SD 1 as one file."""
    folder = small_models.build("sd1", tmp_path_factory.mktemp("single") / "sd1")
    return small_models.single_file(folder, folder.parent / "sd1.safetensors")


def changed_header(path, folder, change):
    """The same file with another header."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    text = json.dumps(change(json.loads(data[8 : 8 + length]))).encode()
    made = folder / "changed.safetensors"
    made.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return made


SMALL = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
INPUT = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda header: header | {"edm_vpred.sigma_max": SMALL}, "CosXL"),
        (lambda header: header | {"edm_mean": SMALL}, "Playground"),
        (lambda header: header | {"control_model.x": SMALL}, "ControlNet"),
        (lambda header: header | {"model.diffusion_model.label_emb.0.0.weight": SMALL}, "class embeddings"),
        (lambda header: header | {"__metadata__": {"modelspec.prediction_type": "sample"}}, "'sample'"),
        (lambda header: header | {INPUT: header[INPUT] | {"shape": [32, 9, 3, 3]}}, "inpainting"),
        (lambda header: {name: each for name, each in header.items() if "first_stage" not in name}, "no VAE"),
        (lambda header: {name: each for name, each in header.items() if "cond_stage" not in name}, "no text encoder"),
        (lambda header: {name: each for name, each in header.items() if "diffusion_model" not in name}, "no UNet"),
    ],
)
def test_a_single_file_of_another_kind_is_refused_by_name(change, told, single, tmp_path):
    with pytest.raises(ModelUnavailable, match=told):
        read_facts(changed_header(single, tmp_path, change))


def test_a_single_file_without_a_unet_is_said_for_what_it_is(tmp_path, sd1):
    with pytest.raises(ModelUnavailable, match="it is a VAE; it holds no UNet"):
        read_facts(sd1 / "vae" / "diffusion_pytorch_model.safetensors")


# What is no file, and what is one under any name


@pytest.mark.parametrize("name", ["blob", "x.SAFETENSORS", "x.sft", "x.bin"])
def test_content_decides_what_a_file_is(name, single, tmp_path):
    (tmp_path / name).symlink_to(single)
    request = ask_for_base(str(tmp_path / name))
    assert request.path.name == name
    facts, expected = read_facts(request.path), read_facts(single)
    assert (facts.unet, facts.text_encoders, facts.vae) == (expected.unet, expected.text_encoders, expected.vae)


def test_a_pickle_under_a_good_name_is_not_opened(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ModelUnavailable, match="pickle"):
        read_facts(tmp_path / "x.safetensors")


@pytest.mark.skipif(os.name == "nt", reason="fifos and sockets of POSIX")
@pytest.mark.parametrize("place", ["unet/config.json", "unet/diffusion_pytorch_model.safetensors", INDEX])
def test_a_fifo_is_no_file(place, sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    (folder / place).unlink()
    os.mkfifo(folder / place)
    with pytest.raises(ModelUnavailable):
        read_facts(folder)


@pytest.mark.skipif(os.name == "nt", reason="sockets and devices of POSIX")
def test_what_is_given_as_a_single_file_and_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
    os.mkfifo("fifo")
    for path in ("socket", "fifo", "/dev/zero"):
        with pytest.raises(ModelUnavailable, match="is not a file"):
            read_facts(Path(path))


def test_the_root_is_not_walked(monkeypatch):
    monkeypatch.setattr(Path, "rglob", lambda *_: pytest.fail("the disk is walked"))
    with pytest.raises(ModelUnavailable, match="not a whole base"):
        read_facts(Path("/"))


def test_a_header_of_ninety_megabytes_is_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 90_000_000) + b"{")
        file.truncate(90_000_100)
    with pytest.raises(ModelUnavailable, match="header of 90,000,000 bytes"):
        read_header(path)


def test_a_config_of_many_megabytes_is_not_read(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    with (folder / "unet" / "config.json").open("r+b") as file:
        file.truncate(50_000_000)
    with pytest.raises(ModelUnavailable, match="50,000,000 bytes"):
        read_facts(folder)


def test_files_that_macos_leaves_are_not_the_bases(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    for file in [*folder.glob("*/*"), folder / INDEX]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7" + bytes(60))
    assert read_facts(folder) == read_facts(sd1)
    assert [file.name for file in weight_files(folder / "unet")] == ["diffusion_pytorch_model.safetensors"]


def test_the_whole_file_is_taken_before_shards_and_full_precision_before_half(tmp_path):
    def names():
        return [file.name for file in weight_files(tmp_path)]

    for name in ("model.fp16.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (tmp_path / name).touch()
    assert names() == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (tmp_path / "model.SAFETENSORS").touch()
    assert names() == ["model.SAFETENSORS"]
    for file in tmp_path.glob("model[-.][0S]*"):
        file.unlink()
    assert names() == ["model.fp16.safetensors"]
