"""What kind a base is: those that would train on the wrong noise are refused before any work, with a reason; sound files never are."""

import json
import os
import pickle
import shutil
import socket
import struct
from pathlib import Path

import pytest

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.bases.facts import read_facts, schedule_of
from dreambooth_cli.bases.fingerprint import identify
from dreambooth_cli.bases.folder import files_read, weight_files
from dreambooth_cli.bases.metadata import read_header
from dreambooth_cli.errors import ModelUnavailable
from dreambooth_cli.identifier import load_tokenizer, single_token
from tests import small_models
from tests.bases.test_base import with_value

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
    ("sd1", "unet/config.json", {"num_class_embeds": 0}, "class embeddings"),
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
    ("klein", "transformer/config.json", {"guidance_embeds": True}, "is told the guidance scale, like FLUX.2 dev's"),
]


@pytest.mark.parametrize(("kind", "file", "values", "told"), OTHERS, ids=[f"{file}-{v}"[:60] for _, file, v, _ in OTHERS])
def test_another_kind_of_base_is_refused_by_name(kind, file, values, told, request, tmp_path):
    with pytest.raises(ModelUnavailable) as caught:
        read_facts(with_value(request.getfixturevalue(kind), tmp_path / "base", file, **values))
    assert told in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, 5) for key in ("time_cond_proj_dim", "class_embed_type", "num_class_embeds", "encoder_hid_dim", "encoder_hid_dim_type")),
        *((key, {}) for key in ("in_channels", "out_channels", "_class_name", "addition_embed_type")),
    ],
)
def test_another_kind_of_network_is_told_with_file_and_key(key, value, sdxl, tmp_path):
    with pytest.raises(ModelUnavailable, match=rf"\(unet/config\.json: .*{key}"):
        read_facts(with_value(sdxl, tmp_path / "base", "unet/config.json", **{key: value}))


SOUND = [
    ("sd1", "unet/config.json", {"sample_size": None}),
    ("sdxl", "unet/config.json", {"transformer_layers_per_block": [0, 2]}),
    ("sdxl", "unet/config.json", {"mid_block_type": "UNetMidBlock2DCrossAttn", "a_key_of_a_later_version": {"x": [1]}}),
    ("sdxl", "vae/config.json", {"latents_mean": None, "latents_std": None, "shift_factor": None}),
    ("sd1", INDEX, {"image_encoder": ["transformers", "CLIPVisionModelWithProjection"], "requires_safety_checker": True}),
    ("sd1", INDEX, {"safety_checker": None, "feature_extractor": None, "_name_or_path": "/home/x"}),
    ("sd1", INDEX, {"feature_extractor": ["transformers", "CLIPFeatureExtractor"], "_diffusers_version": "0.2.2"}),
    ("sd1", "text_encoder/config.json", {"torch_dtype": "float16", "dropout": 0.0, "output_attentions": True, "return_dict": False}),
    ("sd1", SCHEDULER, {"use_karras_sigmas": None, "variance_type": None, "trained_betas": None, "sigma_max": None}),
    ("sd1", SCHEDULER, {"_class_name": "SASolverScheduler"}),
    ("sd1", SCHEDULER, {"_class_name": "DDIMParallelScheduler"}),
]


@pytest.mark.parametrize(("kind", "file", "values"), SOUND, ids=[f"{file}-{v}"[:60] for _, file, v in SOUND])
def test_what_sound_bases_hold_is_no_reason_to_refuse(kind, file, values, request, tmp_path):
    base = request.getfixturevalue(kind)
    facts, expected = read_facts(with_value(base, tmp_path / "base", file, **values)), read_facts(base)
    assert facts.denoiser == expected.denoiser
    assert facts.resolution == (256 if values == {"sample_size": None} else 64)  # 64 latents, and a VAE whose factor is 4


def test_of_what_draws_with_a_package_that_is_not_here_another_takes_the_place(sd1, tmp_path, monkeypatch):
    monkeypatch.setattr("dreambooth_cli.bases.kind.installed", lambda name: None)
    named = {"LMSDiscreteScheduler": ("scipy", "EulerDiscrete"), "DPMSolverSDEScheduler": ("torchsde", "DPMSolverMultistep")}
    for name, (package, other) in named.items():
        folder = with_value(sd1, tmp_path / name, SCHEDULER, _class_name=name)
        with_value(folder, tmp_path / f"{name}-2", INDEX, scheduler=["diffusers", name])
        (told,) = read_facts(tmp_path / f"{name}-2").remarks
        assert f"{name} needs the package {package}, which is not installed: {other}Scheduler draws" in told
        assert schedule_of(tmp_path / f"{name}-2")[0] == f"{other}Scheduler"
    beta = with_value(sd1, tmp_path / "beta", SCHEDULER, use_beta_sigmas=True)
    assert "use_beta_sigmas needs the package scipy" in read_facts(beta).remarks[0]
    assert "use_beta_sigmas" not in schedule_of(beta)[1]
    monkeypatch.setattr("dreambooth_cli.bases.kind.installed", lambda name: "1")
    assert read_facts(tmp_path / "LMSDiscreteScheduler-2").remarks == ()
    assert schedule_of(tmp_path / "LMSDiscreteScheduler-2")[0] == "LMSDiscreteScheduler"
    assert schedule_of(beta)[1]["use_beta_sigmas"] is True


@pytest.mark.parametrize("pipeline", ["FluxPipeline", "StableDiffusion3Pipeline"])
def test_a_model_without_a_unet_is_named_and_not_called_broken(pipeline, sdxl, tmp_path):
    folder = with_value(sdxl, tmp_path / "base", INDEX, _class_name=pipeline, transformer=["diffusers", "SD3Transformer2DModel"])
    (folder / "unet").rename(folder / "transformer")
    with pytest.raises(ModelUnavailable, match=f"it is made for {pipeline}"):
        read_facts(folder)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_mark_before_the_text_of_any_config_is_passed_over(kind, request, tmp_path):
    """As editors and shells on Windows write one."""
    base = request.getfixturevalue(kind)
    folder = shutil.copytree(base, tmp_path / "base")
    for file in [*folder.glob("*.json"), *folder.glob("*/*.json"), *folder.glob("*/*.txt")]:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_facts(folder) == read_facts(base)
    ours, theirs = load_tokenizer(folder), load_tokenizer(base)
    assert [single_token(ours, word) for word in ("dog", "sks", "zwx")] == [single_token(theirs, word) for word in ("dog", "sks", "zwx")]


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
        (lambda header: {"model.diffusion_model.double_blocks.0.x": SMALL}, "a Flux model; it holds no UNet"),
        (lambda header: {"model.diffusion_model.joint_blocks.0.x": SMALL, "first_stage_model.x": SMALL}, "Diffusion 3 model"),
        (lambda header: {"body.0.rdb1.conv1.weight": SMALL}, "an upscaler; it"),
        (lambda header: {"clip_l": SMALL, "clip_g": SMALL}, "a textual inversion; it"),
        (
            lambda header: {name.replace("cond_stage_model", "conditioner.embedders.0"): each for name, each in header.items()}
            | {"model.diffusion_model.label_emb.0.0.weight": SMALL},
            r"no text encoder \(conditioner.embedders.1",
        ),
    ],
)
def test_a_single_file_of_another_kind_is_refused_by_name(change, told, single, tmp_path):
    with pytest.raises(ModelUnavailable, match=told):
        read_facts(changed_header(single, tmp_path, change))


@pytest.mark.parametrize("key", ["modelspec.prediction_type", "modelspec.predict_key"])
@pytest.mark.parametrize("said", ["v", "V", "v-prediction", "v_pred", "vpred", "epsilon", "Epsilon", "eps"])
def test_a_prediction_is_understood_as_programs_write_it(key, said, single, tmp_path):
    """The second key is ComfyUI's."""
    file = changed_header(single, tmp_path, lambda header: header | {"__metadata__": {key: said}})
    assert read_facts(file).prediction_type == ("v_prediction" if said[0] in "vV" else "epsilon")


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
    assert (facts.denoiser, facts.text_encoders, facts.vae) == (expected.denoiser, expected.text_encoders, expected.vae)


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


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tokenizer/vocab.json", "vocab.json has 1,000,000,000,000 bytes, more than any"),
        ("tokenizer/special_tokens_map.json", "special_tokens_map.json has 1,000,000,000,000 bytes"),
        ("vae/diffusion_pytorch_model.safetensors", "model.safetensors has 1,000,000,000,000 bytes, but "),
    ],
)
def test_a_file_with_a_hole_of_a_terabyte_is_not_read(name, told, sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    try:
        os.truncate(folder / name, 10**12)
    except OSError as error:
        pytest.skip(f"no file of that length here: {error}")
    with pytest.raises(ModelUnavailable, match=told):
        identify(folder)


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
    for name in ("model.bf16.safetensors", "model.ema.safetensors", "model.non_ema.safetensors"):
        (tmp_path / name).touch()
    assert names() == ["model.fp16.safetensors"]
    (tmp_path / "model.fp16.safetensors").unlink()
    assert names() == ["model.bf16.safetensors"]
    (tmp_path / "model.bf16.safetensors").unlink()
    assert names() == []  # other weights, not the same ones


def test_an_index_left_over_beside_a_whole_file_is_no_matter(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    index = {"weight_map": {"conv_in.bias": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert read_facts(folder) == read_facts(sd1)


def test_weights_in_bf16_alone_are_a_base(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    for file in list(folder.rglob("*.safetensors")):
        file.rename(file.with_suffix(".bf16.safetensors"))
    assert read_facts(folder) == read_facts(sd1)
    assert {file for file in files_read(folder) if file.suffix == ".safetensors"} == {*folder.rglob("*.bf16.safetensors")}

