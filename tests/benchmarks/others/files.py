"""The files that other programs are given: bases with random weights, a LoRA on every layer, and what `dreambooth export` makes of them.
Stable Diffusion's have their true size, by which other programs recognise a file; the flow families' are small, and only a LoRA is read."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from dreambooth_cli.engine.families.loading import load_empty, parts_of
from dreambooth_cli.engine.families.lora import lora_layers_of
from dreambooth_cli.engine.families.lora_file import shapes_for
from tests import small_flow, small_models
from tests.benchmarks import exports
from tests.engine.plans import base_of

from .asked import BESIDE, KOHYA, LORA, MERGED, SINGLE

TRUE_SIZED = ("sd15", "sdxl")
KINDS = (*TRUE_SIZED, *small_flow.KINDS)
RANK, ALPHA = 4, 2.0


def make(kind: str, folder: Path) -> Path:
    """Make a kind's files that are not there yet: the base, a LoRA with peft's names, and the exports."""
    base = folder / "base"
    if not base.is_dir():
        if kind in TRUE_SIZED and small_models.clip_vocabulary_file() is None:
            sys.exit(f"{small_models.CLIP_FILE} is neither in nor beside the checkout: others read prompts by CLIP's own vocabulary")
        # a process each: what it has held goes with it
        making = exports.MAKING.format(kind=kind, folder=str(base)) if kind in TRUE_SIZED else small(kind, base)
        subprocess.run([sys.executable, "-c", making], check=True, stdout=subprocess.DEVNULL)
    if not (folder / LORA).is_file():
        write_lora(base, folder / LORA)
    if kind in TRUE_SIZED:
        export(folder, base, "single-file", folder / SINGLE)
        export(folder, folder / LORA, "merged", folder / MERGED)
        export(folder, folder / LORA, "kohya", folder / KOHYA)
    else:
        export(folder, folder / LORA, "lora", folder / BESIDE)
    return folder


def small(kind: str, folder: Path) -> str:
    """The program that writes a small base of a flow family."""
    return f"from pathlib import Path; from tests import small_flow; small_flow.build({kind!r}, Path({str(folder)!r}))"


def write_lora(base: Path, file: Path) -> None:
    """A LoRA for a base by peft's names, in fp16: beside its denoiser's attention, feed-forward layers and convolutions, and beside the
    text encoders that are trained."""
    found = base_of(base)
    record, networks, tensors = found.facts.family, parts_of(load_empty(found)), {}
    generator = torch.Generator().manual_seed(2)
    for name in (record.denoiser, *(each for each in record.text_encoders if "full" in record.methods)):
        ends = tuple(f".{end}" for end in lora_layers_of(networks[name], record.parts[name], "all"))
        for layer, module in networks[name].named_modules():
            if f".{layer}".endswith(ends) and isinstance(module, nn.Linear | nn.Conv2d):
                down, up = shapes_for(module, RANK)
                inputs = module.weight[0].numel()
                tensors[f"{name}.{layer}.lora_A.weight"] = (torch.randn(down, generator=generator) * inputs**-0.5).half()
                tensors[f"{name}.{layer}.lora_B.weight"] = (torch.randn(up, generator=generator) * 0.2).half()
                tensors[f"{name}.{layer}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, file)


def export(folder: Path, model: Path, to: str, place: Path) -> None:
    """Export by the command, if it has not been done."""
    if place.exists():
        return
    words = ["export", "--model-path", str(model), "--to", to, "-o", str(place)]
    words += ["--model", str(folder / "base")] if model.is_file() else []
    home = {**os.environ, "DREAMBOOTH_HOME": str(folder / "home")}
    done = subprocess.run([sys.executable, "-m", "dreambooth_cli", *words], env=home, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"dreambooth {' '.join(words)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
