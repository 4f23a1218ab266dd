"""Make the home that is kept for a version: run once, with that version's own program, and committed.

    python -m tests.kept.make FOLDER

It has a tiny base, photos, a home (`dreambooth/`) with a finished full run, a finished LoRA and a run stopped half way, the class
images for all of them, the delivered folders, the weights with which the stopped run would have ended undisturbed (`expected/`),
and what each command printed under `--json` (`story/`). In its text files the folder is called @KEPT@.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests import small_models
from tests.conftest import draw_photo

FOLDER = "@KEPT@"
TEXT = (".toml", ".json", ".jsonl")
NEVER_NEEDED = ("tmp", "again", ".lock", ".lock-holder")
TRAIN = ["--class-images", "2", "--class-image-steps", "2", "--learning-rate", "1e-3", "--checkpoint-every", "4"]
TRAIN += ["--keep-checkpoints", "1", "--identifier", "sks", "--seed", "3"]
STOPPED, STEPS = 4, 8


def build_base(folder: Path) -> None:
    """A Stable Diffusion 1 base for pictures of 64 px in 0.4 MB, with random weights."""
    small_models._clip_merges = lambda: None  # the small vocabulary, whatever lies beside the checkout
    small_models.build("sd1", folder)
    for name, values in (
        ("unet", {"block_out_channels": [8, 16], "norm_num_groups": 4, "cross_attention_dim": 16}),
        ("vae", {"block_out_channels": [4, 4, 8], "norm_num_groups": 4}),
    ):
        _rebuild(folder / name, values)
    _rebuild_text_encoder(folder / "text_encoder")


def _rebuild(folder: Path, values: dict[str, object]) -> None:
    import diffusers
    import torch

    config = json.loads((folder / "config.json").read_text())
    shutil.rmtree(folder)
    torch.manual_seed(0)
    getattr(diffusers, config["_class_name"]).from_config(config | values).save_pretrained(folder)


def _rebuild_text_encoder(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig.from_pretrained(folder)
    config.update({"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2})
    shutil.rmtree(folder)
    torch.manual_seed(0)
    CLIPTextModel(config).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    nested = {name if name.startswith("text_model.") else f"text_model.{name}": weights[name] for name in weights}
    save_file(nested, folder / "model.safetensors", metadata={"format": "pt"})


def dreambooth(folder: Path, *words: str, home: str = "dreambooth", stop_at: int | None = None) -> list[str]:
    """Run one command to its end, or until it has printed the step to stop at. Returns its lines."""
    variables = {"DREAMBOOTH_HOME": str(folder / home), "HF_HOME": str(folder / "tmp"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "dreambooth_cli", *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=folder, env=os.environ | variables | {"OMP_NUM_THREADS": "1"}
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if stop_at is not None and f'"event": "step", "step": {stop_at},' in line:
            process.send_signal(signal.SIGINT)
    code = process.wait()
    if code != (0 if stop_at is None else 130):
        raise SystemExit(f"{words} ended with {code}")
    return lines


def tell(folder: Path, name: str, lines: list[str]) -> None:
    """Keep what a command printed."""
    (folder / "story").mkdir(exist_ok=True)
    (folder / "story" / f"{name}.jsonl").write_text("".join(lines))


def make(folder: Path) -> None:
    """Make the whole home."""
    folder.mkdir(parents=True)
    build_base(folder / "base")
    (folder / "photos").mkdir()
    for number, size in enumerate(((160, 120), (120, 160), (128, 128))):
        draw_photo(folder / "photos" / f"{number + 1}.jpg", size, seed=number)
    base, photos = str(folder / "base"), str(folder / "photos")

    words = ["--photos", photos, "--class-prompt", "a photo of a dog", "--model", base, "--yes", "--json"]
    tell(folder, "init", dreambooth(folder, "init", "full", *words, "--identifier", "sks"))
    tell(folder, "prep", dreambooth(folder, "prep", "full", "--json"))
    sampled = ["--sample-every", "4", "--sample-steps", "2", "--steps", "4"]
    train = ["train", "full", *TRAIN, *sampled, "--output-dir", str(folder / "out"), "--json"]
    tell(folder, "train", dreambooth(folder, *train))
    draw = ["a [identifier] dog", "--num-images", "2", "--steps", "2", "--seed", "5", "--grid", "--json"]
    tell(folder, "generate", dreambooth(folder, "generate", "full", *draw))
    tell(folder, "models", dreambooth(folder, "models", "--json"))

    dreambooth(folder, "init", "lora", *words, "--identifier", "sks")
    lora = ["--method", "lora", "--rank", "2", "--steps", "4", "--train-text-encoder"]
    dreambooth(folder, "train", "lora", *TRAIN, *lora, "--output-dir", str(folder / "out-lora"))

    half = ["train", "--model", base, "--photos", photos, "--class-prompt", "a photo of a dog", *TRAIN]
    half += ["--steps", str(STEPS), "--output-dir", str(folder / "out-half"), "--json"]
    dreambooth(folder, *half, stop_at=STOPPED)
    dreambooth(folder, *half, home="again")
    (folder / "expected").mkdir()
    for part in ("unet", "text_encoder"):
        (weights,) = (folder / "out-half" / part).glob("*.safetensors")
        shutil.copy(weights, folder / "expected" / f"{part}.safetensors")
    shutil.rmtree(folder / "out-half")

    for name in NEVER_NEEDED:
        for path in [*folder.rglob(name)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in folder.rglob("*"):
        if path.suffix in TEXT and path.is_file():
            path.write_text(path.read_text().replace(str(folder), FOLDER))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.kept.make")
    parser.add_argument("folder", type=Path)
    make(parser.parse_args().folder.resolve())
