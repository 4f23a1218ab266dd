"""What exporting a model of true size takes: seconds, and the most memory that the process held, beside its largest part.

`python -m tests.benchmarks.exports [sd15|sdxl]` makes a base of the true architecture with random weights in fp16, exports it as one file
and a LoRA beside it as kohya has it, by the command, which reads both again and compares, and writes the rows into exports.md. No network,
no GPU.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from dreambooth_cli.bases.metadata import read_header
from tests import small_models
from tests.true_sizes import BIG_G, CLIP_L, VAE, XL_UNET

TABLE = Path(__file__).with_suffix(".md")
HEAD = """# Exports at true size

Random weights in fp16, exported by `dreambooth export` and read again by diffusers' `from_single_file` or `load_lora_weights`; both
pictures are drawn in float32 arithmetic. By `python -m tests.benchmarks.exports`.

What is held are pages of mapped files as well: they leave memory as soon as they were looked at, while a tensor is written, compared, or
widened for one layer of the picture. A LoRA is proved beside its base's networks in float32, one at a time: its most is the largest of
these.

| base | format | tensors | file | largest part | most memory held | of which the libraries | seconds | largest difference | machine |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
MAKING = "from pathlib import Path; from tests.benchmarks import exports; print(exports.make({kind!r}, Path({folder!r})))"
ADAPTING = "from pathlib import Path; from tests.benchmarks.others.files import write_lora; write_lora(Path({base!r}), Path({file!r}))"
COMMAND = """
import atexit, resource, sys
from pathlib import Path
from dreambooth_cli.cli.app import main
atexit.register(lambda: Path({file!r}).write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)))
main()
"""
IMPORTS = "import resource, dreambooth_cli.workflows.export; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"


def make(kind: str, folder: Path) -> int:
    """Write a base of true size with random weights, and return the bytes of its largest part. For a process of its own."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)  # made as it is kept: in float32 it would hold twice as much
    sizes = []

    def keep(network: Any, name: str) -> None:
        network.save_pretrained(folder / name)
        sizes.append(sum(value.numel() * value.element_size() for value in network.state_dict().values()))

    keep(UNet2DConditionModel(cross_attention_dim=768) if kind == "sd15" else UNet2DConditionModel(**XL_UNET), "unet")
    scale = 0.18215 if kind == "sd15" else 0.13025
    keep(AutoencoderKL(layers_per_block=2, latent_channels=4, sample_size=512, scaling_factor=scale, **VAE), "vae")
    keep(CLIPTextModel(CLIPTextConfig(hidden_act="quick_gelu", eos_token_id=2, bos_token_id=0, **CLIP_L)), "text_encoder")
    small_models.write_tokenizer(folder / "tokenizer", pad="<|endoftext|>")
    if kind == "sd15":
        scheduler: Any = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **small_models.BETAS)
        small_models._write_index(folder, "StableDiffusionPipeline", scheduler="DDIMScheduler")
    else:
        config = CLIPTextConfig(hidden_act="gelu", projection_dim=1280, eos_token_id=2, bos_token_id=0, **BIG_G)
        keep(CLIPTextModelWithProjection(config), "text_encoder_2")
        small_models.write_tokenizer(folder / "tokenizer_2", pad="!")
        scheduler = EulerDiscreteScheduler(timestep_spacing="leading", **small_models.BETAS)
        small_models._write_index(
            folder,
            "StableDiffusionXLPipeline",
            scheduler="EulerDiscreteScheduler",
            text_encoder_2=["transformers", "CLIPTextModelWithProjection"],
            tokenizer_2=["transformers", "CLIPTokenizer"],
            force_zeros_for_empty_prompt=True,
        )
    scheduler.save_pretrained(folder / "scheduler")
    return int(max(sizes))


def rows_of(kind: str, folder: Path) -> Iterator[str]:
    """Export a base of this kind, and a LoRA for it, and return their rows."""
    base, lora = folder / "base", folder / "lora.safetensors"
    # by a process of its own: what a parent holds counts as held by its children too, as Linux counts it
    making = [sys.executable, "-c", MAKING.format(kind=kind, folder=str(base))]
    largest = int(subprocess.run(making, capture_output=True, check=True, text=True).stdout)
    yield row_of(kind, "single-file", largest, ["--model-path", str(base)], folder)
    subprocess.run([sys.executable, "-c", ADAPTING.format(base=str(base), file=str(lora))], check=True)
    yield row_of(kind, "kohya", largest, ["--model-path", str(lora), "--model", str(base)], folder)


def row_of(kind: str, to: str, largest: int, model: Sequence[str], folder: Path) -> str:
    """Export a model in a format, and return its row."""
    file = folder / f"{to}.safetensors"
    libraries = int(subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, check=True, text=True).stdout) * 1024
    words = ["export", *model, "--to", to, "-o", str(file), "--json"]
    began = time.monotonic()
    command = [sys.executable, "-c", COMMAND.format(file=str(folder / "peak")), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    event = json.loads(done.stdout.splitlines()[-1])
    peak = int((folder / "peak").read_text()) * 1024
    tensors = len(read_header(file)) - 1
    cells = (
        kind,
        to,
        f"{tensors:,}",
        f"{file.stat().st_size / 1e9:.2f} GB",
        f"{largest / 1e9:.2f} GB",
        f"{peak / 1e9:.2f} GB",
        f"{libraries / 1e9:.2f} GB",
        f"{seconds:.0f}",
        f"{event['largest_difference']:.2g}",
        f"{os.cpu_count()} cores, {platform.machine()}",
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    for kind in sys.argv[1:] or ("sd15", "sdxl"):
        with TemporaryDirectory(prefix="exports-") as made:
            for row in rows_of(kind, Path(made)):
                start = " | ".join(row.split(" | ")[:2]) + " | "
                text = TABLE.read_text(encoding="utf-8") if TABLE.is_file() else HEAD
                TABLE.write_text("".join(line for line in text.splitlines(True) if not line.startswith(start)) + row, encoding="utf-8")
                print(row)
