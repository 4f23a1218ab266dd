"""Bases in every form: folder, fp16 variant, single file; what can't be trained is refused with an explanation."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from dreambooth_cli.bases.base import Base
from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.bases.fingerprint import identify
from dreambooth_cli.engine.families.loading import (
    bring_back,
    find_device,
    let_go,
    load_family,
    load_pipeline,
    parts_of,
    text_encoders_of,
)
from dreambooth_cli.engine.images.sampling import Drawing, check_steps, draw, use_scheduler
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
        np.asarray(draw(load_family(base, dtype=torch.float32, device=CPU), ["a dog"], [0], drawing)[0])
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
        assert_close(dict(getattr(mixed, part).state_dict()), dict(expected), rtol=0, atol=0)


def test_what_a_single_file_says_of_its_prediction_stands(sd1, sd2, tmp_path):
    """The configs beside it may be another kind's: an SD 2 file is read with an epsilon scheduler's configs."""
    file = small_models.single_file(sd2, tmp_path / "model.safetensors")
    configs = shutil.copytree(sd2, tmp_path / "configs")
    change_config(configs, "scheduler", prediction_type="epsilon")
    base = Base(name="x", path=file, repository=None, identity="x", facts=read_facts(file), config_path=configs)
    assert load_family(base, dtype=torch.float32, device=CPU).noising.scheduler.config.prediction_type == "v_prediction"


def test_parts_leave_and_come_back(sdxl):
    base = base_of(sdxl)
    pipe = load_family(base, dtype=torch.float32, device=CPU).pipe
    weights = {name: part.state_dict() for name, part in text_encoders_of(pipe).items()}
    let_go(pipe, ["vae", "text_encoder", "text_encoder_2"])
    assert text_encoders_of(pipe) == {}
    assert bring_back(pipe, base, dtype=torch.float32, device=CPU) == ["vae", "text_encoder", "text_encoder_2"]
    for name, part in text_encoders_of(pipe).items():
        assert_close(dict(part.state_dict()), dict(weights[name]), rtol=0, atol=0)
    assert bring_back(pipe, base, dtype=torch.float32, device=CPU) == []


def change_config(folder, part, **values):
    path = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_prediction_type_is_read_from_the_config(sd1, tmp_path):
    """It is not guessed from the name: a folder called sd1 that says velocity is trained on velocity."""
    folder = shutil.copytree(sd1, tmp_path / "sd1")
    change_config(folder, "scheduler", prediction_type="v_prediction")
    assert base_of(folder).facts.prediction_type == "v_prediction"
    assert load_family(base_of(folder), dtype=torch.float32, device=CPU).noising.scheduler.config.prediction_type == "v_prediction"


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
    """As diffusers reports it: in words of its own around the system's."""

    def open_without_room(*args, **options):
        raise RuntimeError("unable to mmap 6440752 bytes from file <unet>: Cannot allocate memory (12)")

    monkeypatch.setattr("dreambooth_cli.engine.families.parts.safe_open", open_without_room)
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
    assert f"{file} can't be read" in caught.value.message


def test_cut_text_encoder_weights_are_told_too(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    base = base_of(folder)
    (file,) = (folder / "text_encoder").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelUnavailable):
        load_family(base, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_a_single_file_is_what_the_configs_beside_it_say(kind, request, tmp_path):
    """Like SD 2.1-base, which has SD 2's architecture but predicts noise; and an SD 1 that predicts velocity."""
    said = {"sd1": "v_prediction", "sd2": "epsilon"}[kind]
    file = small_models.single_file(request.getfixturevalue(kind), tmp_path / "mine.safetensors")
    configs = shutil.copytree(request.getfixturevalue(kind), tmp_path / "mine")
    change_config(configs, "scheduler", prediction_type=said)
    facts = read_facts(file)
    assert (facts.prediction_type, facts.resolution) == (said, 64)
    base = Base(name="x", path=file, repository=None, identity="x", facts=facts, config_path=configs)
    assert load_family(base, dtype=torch.float32, device=CPU).noising.scheduler.config.prediction_type == said


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


# What a base's files hold, compared with what it needs


def change_weights(folder, part, change):
    """Change the weights of a part, given as a dict."""
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    file.unlink()
    save_file(tensors, file)
    return folder


def drop(*names):
    return lambda tensors: [tensors.pop(name) for name in names]


def put(name, tensor):
    return lambda tensors: tensors.__setitem__(name, tensor)


def all_but_two(tensors):
    for name in sorted(tensors)[2:]:
        del tensors[name]


Q = "text_model.encoder.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("text_encoder", all_but_two, "lacks .* more of the .* weights"),
        ("text_encoder_2", drop("text_projection.weight"), "lacks text_projection.weight"),
        ("unet", drop("conv_in.weight", "conv_in.bias"), "lacks conv_in.weight, conv_in.bias of the"),
        ("vae", drop("decoder.conv_in.weight"), "lacks decoder.conv_in.weight"),
        ("vae", put("decoder.conv_in.weight", torch.zeros(3, 3)), "3x3 where 32x4x3x3 is needed"),
        ("unet", put("conv_in.lora.up.weight", torch.zeros(3, 3)), "holds conv_in.lora.up.weight"),
        ("text_encoder", put(Q, torch.zeros(32, 32, dtype=torch.int8)), "is I8.*quantized"),
        ("unet", put("conv_in.bias", torch.full((32,), float("nan"))), "conv_in.bias holds numbers that are not finite"),
    ],
)
def test_weights_are_never_made_up(part, change, told, sdxl, tmp_path):
    folder = change_weights(shutil.copytree(sdxl, tmp_path / "base"), part, change)
    with pytest.raises(ModelUnavailable, match=told) as caught:
        load_family(base_of(folder), dtype=torch.float32, device=CPU)
    assert part in caught.value.message


def test_known_extras_are_no_reason_to_refuse(sd2, tmp_path):
    extras = {"logit_scale": torch.ones(()), "text_projection.weight": torch.ones(4, 4), "vision_model.x.weight": torch.ones(2)}
    folder = change_weights(shutil.copytree(sd2, tmp_path / "base"), "text_encoder", lambda tensors: tensors.update(extras))
    with_extras, without = (load_family(base_of(place), dtype=torch.float32, device=CPU) for place in (folder, sd2))
    ours, theirs = (family.pipe.text_encoder.state_dict() for family in (with_extras, without))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("gone", ["model.diffusion_model.out.0.weight", "first_stage_model.decoder.norm_out.bias"])
def test_a_single_files_lacking_weights_are_told(gone, sd1, tmp_path):
    file = small_models.single_file(sd1, tmp_path / "model.safetensors")
    tensors = load_file(file)
    del tensors[gone]
    tensors |= {f"model_ema.{number}": torch.ones(1) for number in range(120)}  # passed over
    save_file(tensors, file)
    base = Base(name="x", path=file, repository=None, identity="x", facts=read_facts(file), config_path=sd1)
    with pytest.raises(ModelUnavailable, match=r"lacks (decoder\.)?conv_norm_out\."):
        load_family(base, dtype=torch.float32, device=CPU)


def test_a_separate_vaes_lacking_weights_are_told(sdxl, tmp_path):
    safe = small_models.build_vae(tmp_path / "safe")
    (file,) = safe.glob("*.safetensors")
    tensors = load_file(file)
    del tensors["encoder.conv_out.bias"]
    save_file(tensors, file)
    with pytest.raises(ModelUnavailable, match=r"safe.*lacks encoder.conv_out.bias"):
        load_pipeline(replace(base_of(sdxl), vae_path=safe), dtype=torch.float16)


def test_shards_are_read_together(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = sorted(load_file(file).items())
    file.unlink()
    for number, some in enumerate((tensors[::2], tensors[1::2]), 1):
        save_file(dict(some), file.with_name(f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"))
    ours = load_pipeline(base_of(folder), dtype=torch.float32).unet.state_dict()
    assert [name for name, value in load_pipeline(base_of(sd1), dtype=torch.float32).unet.state_dict().items()
            if not torch.equal(value, ours[name])] == []  # fmt: skip
    file.with_name("diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match="00002-of-00002"):
        base_of(folder)


def test_shards_that_hold_a_weight_twice_are_told(sd1, tmp_path):
    """It is not clear which of the two is meant."""
    folder = shutil.copytree(sd1, tmp_path / "base")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    save_file(tensors, file.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    save_file({"conv_in.bias": torch.zeros(32)}, file.with_name("diffusion_pytorch_model-00002-of-00002.safetensors"))
    with pytest.raises(ModelUnavailable, match=r"holds conv_in\.bias in two files"):
        load_pipeline(base_of(folder), dtype=torch.float32)


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2"])
@pytest.mark.parametrize("is_nested", [True, False])
def test_a_text_encoder_is_read_nested_or_flat(part, is_nested, sdxl, tmp_path):
    """transformers has had both forms, in files and in classes."""
    folder = shutil.copytree(sdxl, tmp_path / "base")

    def rename(tensors):
        named = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
        nested = {name if name.startswith("text_proj") else f"text_model.{name}": tensor for name, tensor in named.items()}
        tensors.clear()
        tensors.update(nested if is_nested else named)

    change_weights(folder, part, rename)
    ours, theirs = (getattr(load_pipeline(base_of(place), dtype=torch.float32), part).state_dict() for place in (folder, sdxl))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_last_layers_that_a_text_encoders_config_leaves_out_are_said(sd1, tmp_path):
    """As in bases for clip skip, where only the config was changed."""
    folder = shutil.copytree(sd1, tmp_path / "base")
    change_config(folder, "text_encoder", num_hidden_layers=1)
    base = base_of(folder)
    assert base.facts.remarks == ("its text_encoder's config leaves out the last layer of the weights",)
    ours, theirs = (load_pipeline(each, dtype=torch.float32).text_encoder.state_dict() for each in (base, base_of(sd1)))
    torch.testing.assert_close(ours, {name: theirs[name] for name in ours}, rtol=0, atol=0)
    assert not any("layers.1." in name for name in ours)

    def add_two(tensors):
        more = {name.replace("layers.1.", f"layers.{number}."): each.clone() for name, each in tensors.items() for number in (2, 3)}
        tensors.update({name: each for name, each in more.items() if "layers.2." in name or "layers.3." in name})

    change_weights(folder, "text_encoder", add_two)
    with pytest.raises(ModelUnavailable, match="another architecture than its config says"):
        load_pipeline(base_of(folder), dtype=torch.float32)


def test_what_training_left_in_a_single_file_is_passed_over(sd1, tmp_path):
    file = small_models.single_file(sd1, tmp_path / "model.safetensors")
    start = "first_stage_model."
    left = {f"{start}model_ema.num_updates": torch.tensor(3), f"{start}loss.main.1.num_batches_tracked": torch.tensor(3)}
    left |= {"model_ema.num_updates": torch.tensor(3), "global_step": torch.tensor(3)}
    save_file(load_file(file) | left, file)
    base = Base(name="x", path=file, repository=None, identity="x", facts=read_facts(file), config_path=sd1)
    ours, theirs = (load_pipeline(each, dtype=torch.float32).vae.state_dict() for each in (base, base_of(sd1)))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_single_file_whose_configs_lack_a_tokenizer_is_told(sd1, tmp_path):
    """transformers would make up an empty one, for which all prompts are the same."""
    file = small_models.single_file(sd1, tmp_path / "model.safetensors")
    configs = shutil.copytree(sd1, tmp_path / "configs")
    (configs / "tokenizer" / "merges.txt").unlink()
    base = Base(name="x", path=file, repository=None, identity="x", facts=read_facts(file), config_path=configs)
    with pytest.raises(ModelUnavailable, match=r"neither tokenizer\.json nor vocab\.json and merges\.txt"):
        load_pipeline(base, dtype=torch.float32)


def test_a_tokenizer_that_knows_no_word_is_told(sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    (folder / "tokenizer" / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1}')
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ModelUnavailable, match=r"tokenizer.*knows no word"):
        load_pipeline(base_of(folder), dtype=torch.float32)


@pytest.mark.parametrize("kept", [1, 0.5])
def test_merges_that_are_missing_are_told(kept, sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    file = folder / "tokenizer" / "merges.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join(lines[: kept if kept == 1 else len(lines) // 2]) + "\n", encoding="utf-8")
    with pytest.raises(ModelUnavailable, match=r"merges\.txt has [\d,]+ merges where .* need"):
        load_pipeline(base_of(folder), dtype=torch.float32)


@pytest.mark.parametrize("form", ["vocab.json", "tokenizer.json"])
def test_a_mark_before_the_text_of_a_tokenizers_files_is_passed_over(form, sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    if form == "tokenizer.json":
        tokenizer = load_pipeline(base_of(sd1), dtype=torch.float32).tokenizer
        shutil.rmtree(folder / "tokenizer")
        tokenizer.save_pretrained(folder / "tokenizer")
    for file in [*folder.glob("*.json"), *folder.glob("*/*.json"), *folder.glob("*/*.txt")]:
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    ours, theirs = (load_pipeline(base_of(place), dtype=torch.float32) for place in (folder, sd1))
    assert ours.tokenizer("a sks dog's photo").input_ids == theirs.tokenizer("a sks dog's photo").input_ids


def test_no_pickle_is_opened_beside_a_decoy(sd1, tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    folder = shutil.copytree(sd1, tmp_path / "base")
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (folder / part).glob("*.safetensors")
        for ending in (".fp16.bin", ".bin"):
            torch.save({"a": Trap()}, file.with_suffix(ending))
        file.unlink()
        file.with_suffix(".fp16.safetensors").write_bytes(b"decoy")
    with pytest.raises(ModelUnavailable):
        load_family(base_of(folder), dtype=torch.float32, device=CPU)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler"])
def test_keys_that_name_code_do_not_reach_the_libraries(part, sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    named = {key: "nobody/code" for key in ("attn_implementation", "_attn_implementation", "auto_map", "custom_pipeline")}
    change_config(folder, part, trust_remote_code=True, **named)
    pipe = load_family(base_of(folder), dtype=torch.float32, device=CPU).pipe
    assert "nobody/code" not in str(dict(pipe.scheduler.config)) + str(pipe.text_encoder.config) + str(pipe.unet.config)


@pytest.mark.parametrize(
    ("part", "values", "told"),
    [
        ("unet", {"cross_attention_dim": 48}, "has another architecture"),
        ("unet", {"act_fn": "x"}, "no unet can be built as .*unet/config.json says"),
        ("text_encoder", {"hidden_act": "x"}, "no text_encoder can be built"),
        ("text_encoder", {"eos_token_id": 0}, "eos_token_id 0 is not the end"),
        ("unet", {"down_block_types": ["x", "DownBlock2D"]}, "no unet can be built"),
    ],
)
def test_a_config_that_its_weights_do_not_fit_is_told_with_its_file(part, values, told, sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    change_config(folder, part, **values)
    with pytest.raises(ModelUnavailable, match=told):
        load_family(base_of(folder), dtype=torch.float32, device=CPU)


def test_parts_that_do_not_fit_each_other_are_told_before_weights_are_read(sd1, sd2, tmp_path, monkeypatch):
    """A text encoder of another width, whose weights do fit its own config."""
    folder = shutil.copytree(sd1, tmp_path / "base")
    shutil.rmtree(folder / "text_encoder")
    small_models._write_text_encoder(folder / "text_encoder", 60_000, hidden=48, act="gelu")
    monkeypatch.setattr("dreambooth_cli.engine.families.parts.safe_open", lambda *_, **__: pytest.fail("weights are read"))
    with pytest.raises(ModelUnavailable, match="can't go through unet"):
        load_family(base_of(folder), dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("said", [None, 10**30, "x", -1, 77])
def test_a_tokenizer_is_as_long_as_its_text_encoder(said, sd1, tmp_path):
    folder = shutil.copytree(sd1, tmp_path / "base")
    path = folder / "tokenizer" / "tokenizer_config.json"
    values = json.loads(path.read_text())
    del values["model_max_length"]
    path.write_text(json.dumps(values | ({} if said is None else {"model_max_length": said}) | {"auto_map": {"x": "y--z"}}))
    pipe = load_family(base_of(folder), dtype=torch.float32, device=CPU).pipe
    assert pipe.tokenizer.model_max_length == 77
    assert pipe.tokenizer("a dog").input_ids == load_pipeline(base_of(sd1), dtype=torch.float32).tokenizer("a dog").input_ids


def test_zero_terminal_snr_is_kept(sd1, tmp_path):
    """A scheduler that can't draw that way is replaced by one that can; training treats the last timestep as pure noise."""
    folder = shutil.copytree(sd1, tmp_path / "base")
    change_config(folder, "scheduler", rescale_betas_zero_snr=True, prediction_type="v_prediction")
    family = load_family(base_of(folder), dtype=torch.float32, device=CPU)
    assert type(family.pipe.scheduler).__name__ == "DDIMScheduler"
    assert float(family.noising.scheduler.alphas_cumprod[-1]) < 1e-6
    with pytest.raises(UsageError, match="zero terminal SNR"):
        use_scheduler(family.pipe, "pndm")


def test_more_steps_than_a_scheduler_has_are_wrong_usage(sd1):
    pipe = load_pipeline(base_of(sd1), dtype=torch.float32)
    check_steps(pipe, 1000, "--steps")
    with pytest.raises(UsageError, match="more than the 1000 timesteps"):
        check_steps(pipe, 1001, "--steps")
