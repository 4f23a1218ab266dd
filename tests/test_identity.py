"""A run's identity depends on what shapes its weights, no more and no less: what is read of a base, the photos in order, settings."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.bases.fingerprint import identify
from dreambooth_cli.identity import content_of, former_identities, former_run_digest, is_same_base, run_digest
from tests.engine.plans import base_of

PARTS = {"asked": {"steps": 3}, "photos": ["1", "2"], "class_photos": ["3", "4"], "base": "x"}


@pytest.mark.parametrize(
    "change",
    [
        {"asked": {"steps": 4}},
        {"photos": ["2", "1"]},
        {"photos": ["1"]},
        {"photos": ["1", "2", "2"]},
        {"class_photos": ["4", "3"]},
        {"class_photos": []},
        {"base": "y"},
    ],
    ids=str,
)
def test_whatever_shapes_the_weights_names_another_run(change: dict[str, object]) -> None:
    assert run_digest(**(PARTS | change)) != run_digest(**PARTS)


def test_a_run_of_0_1_is_found_in_whatever_order() -> None:
    turned = PARTS | {"photos": ["2", "1"], "class_photos": ["4", "3"]}
    assert former_run_digest(**turned) == former_run_digest(**PARTS)


def put(name: str, content: bytes = b"{}") -> Callable[[Path], None]:
    """Add a file to the base's folder."""

    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def another_name(folder: Path) -> None:
    folder.rename(folder.with_name("another"))
    (folder.with_name("another")).rename(folder)
    for file in folder.rglob("*"):
        os.utime(file, (1, 1))


NOTHING = {
    "a note": put("notes.txt", b"mine"),
    "a readme": put("README.md", b"mine"),
    "a json": put("training.json"),
    "a json in a part": put("unet/old_config.json"),
    "a text in the tokenizer": put("tokenizer/words.txt"),
    "a safety checker": put("safety_checker/model.safetensors", b"x"),
    "DS_Store": put(".DS_Store", b"x"),
    "an index of a variant": put("unet/diffusion_pytorch_model.safetensors.index.fp16.json"),
    "weights of another name": put("unet/model-old.safetensors", b"x"),
    "weights of half precision": put("unet/diffusion_pytorch_model.fp16.safetensors", b"x"),
    "a pickle of the same name": put("unet/diffusion_pytorch_model.bin", b"x"),
    "a pickle that comes first": put("unet/a.ckpt", b"x"),
    "a shard of another set": put("vae/diffusion_pytorch_model-00001-of-00002.safetensors", b"x"),
    "macOS's of the weights": put("unet/._diffusion_pytorch_model.safetensors", b"x"),
    "macOS's of an index": put("unet/._diffusion_pytorch_model.safetensors.index.json", b"x"),
    "macOS's of a config": put("vae/._config.json", b"x"),
    "macOS's of the tokenizer": put("tokenizer/._vocab.json", b"x"),
    "other times": another_name,
}


@pytest.mark.parametrize("change", NOTHING.values(), ids=NOTHING)
def test_what_is_not_read_of_a_base_is_not_in_its_identity(change: Callable[[Path], None], sd1: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sd1, tmp_path / "base"))
    before = content_of(base_of(folder))
    change(folder)
    assert content_of(base_of(folder)) == before == identify(folder)


def weights(part: str) -> Callable[[Path], None]:
    """Negate one value of a part's weights, keeping the file's size and time."""

    def change(folder: Path) -> None:
        (file,) = (folder / part).glob("*.safetensors")
        state, tensors = file.stat(), load_file(file)
        name = sorted(tensors)[0]
        tensors[name] = -tensors[name].flip(0)
        save_file(tensors, file, metadata={"format": "pt"})
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))

    return change


def value(file: str, key: str, to: object) -> Callable[[Path], None]:
    """Change one value of a config."""

    def change(folder: Path) -> None:
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(config | {key: to}))

    return change


SOMETHING = {
    **{f"the weights of {part}": weights(part) for part in ("unet", "vae", "text_encoder")},
    "the noise": value("scheduler/scheduler_config.json", "beta_start", 0.0009),
    "a class": value("model_index.json", "requires_safety_checker", True),
    "an activation": value("text_encoder/config.json", "hidden_act", "gelu"),
    "the longest prompt": value("tokenizer/tokenizer_config.json", "model_max_length", 20),
    "a token": put("tokenizer/added_tokens.json", b'{"<x>": 900}'),
}


@pytest.mark.parametrize("change", SOMETHING.values(), ids=SOMETHING)
def test_whatever_is_read_of_a_base_is_in_its_identity(change: Callable[[Path], None], sd1: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sd1, tmp_path / "base"))
    base = base_of(folder)
    before = content_of(base)
    change(folder)
    assert content_of(base) != before


def test_the_files_of_a_hub_s_revision_count_and_not_its_name(sd1: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sd1, tmp_path / "0123456789"))
    base = replace(base_of(folder), repository="some/one", identity="0123456789")
    before = content_of(base)
    assert before == content_of(base_of(sd1))
    weights("unet")(folder)
    assert content_of(base) != before


def test_a_single_file_is_held_with_the_configs_it_is_loaded_with(sd1: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.safetensors"
    shutil.copy(sd1 / "unet/diffusion_pytorch_model.safetensors", file)
    configs = Path(shutil.copytree(sd1, tmp_path / "one"))
    base = replace(base_of(sd1), path=file, config_path=configs, identity=identify(file))
    before = content_of(base)
    weights("unet")(configs)  # those of the file are read
    assert content_of(base) == before
    assert content_of(replace(base, facts=replace(base.facts, prediction_type="v_prediction"))) != before
    value("scheduler/scheduler_config.json", "beta_start", 0.0009)(configs)
    assert content_of(base) != before


def test_a_base_is_known_by_what_0_1_called_it(sd1: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sd1, tmp_path / "base"))
    assert set(former_identities(base_of(folder))) == {identify(folder)}
    put("notes.txt")(folder)
    now, then = former_identities(base_of(folder))
    assert now != then
    assert is_same_base(base_of(folder), then)
    assert not is_same_base(base_of(folder), "sha256:else")
    assert read_facts(folder) == read_facts(sd1)


def test_a_folder_of_everything_is_not_gone_through_for_0_1_s_sake(
    sd1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(sd1, tmp_path / "base"))
    for number in range(100):
        (folder / f"{number}.txt").touch()
    base = base_of(folder)
    assert len(list(former_identities(base))) == 2
    monkeypatch.setattr("dreambooth_cli.identity.MOST_FORMER", 50)
    assert list(former_identities(base)) == [base.identity]
