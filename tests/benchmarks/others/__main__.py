"""How other programs' own loading code reads our exports, kept as a table in others.md.

`python -m tests.benchmarks.others [BASE ...]` has stable-diffusion.cpp draw through its Python binding, and compares the picture with plain
diffusers'. With `--comfyui FOLDER` or `--kohya FOLDER`, a checkout of that repository, that program's own code loads the files instead, by
the Python of the checkout's `venv` if it has one. None of them is a dependency, and none of their code is here. No network, no GPU.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from dreambooth_cli.bases.metadata import read_header

from . import files
from .asked import KOHYA, SINGLE
from .verdict import BEGIN, Verdict, name_of

TABLE = Path(__file__).parents[1] / "others.md"
# a program's code: its name, where it is kept, a file by which its checkout is known
CHECKOUTS = {
    "comfyui": ("ComfyUI", "github.com/Comfy-Org/ComfyUI", "comfy/lora.py"),
    "kohya": ("kohya's sd-scripts", "github.com/kohya-ss/sd-scripts", "networks/lora.py"),
}
BINDING = "stable_diffusion_cpp"
NO_BINDING = "stable-diffusion.cpp's binding is not installed: pip install stable-diffusion-cpp-python==0.4.7, which needs cmake and gcc"
UNREAD = re.compile("unknown tensor|unused lora tensor|Only .* LoRA tensors")
PICTURE = 1.0  # of 255: half of it is the rounding to bytes, which a PNG has, the rest arithmetic in fp16
WEIGHT = 1.01  # of what rounding a weight to fp16 changes at most
HEAD = """# Exports, read by other programs' own code

What `dreambooth export` wrote: Stable Diffusion 1.5 and XL at true size with random weights in fp16 as one file, and a kohya LoRA for it on
attention, feed-forward layers, convolutions and text encoders; and LoRAs in diffusers' layout for small bases of the flow families, on
attention and feed-forward layers. By `python -m tests.benchmarks.others`, then with `--comfyui FOLDER` and with `--kohya FOLDER`.

- `tensors`: how many the file has. `missing`: keys that the program wants and did not find; `unexpected`: keys in the file that it did not
  read. Not counted are `position_ids`, the numbers from 0 to 76, which real files have and nothing reads, and the `logit_scale` and
  `text_projection` of ComfyUI's own class, which no real file of these bases has (ComfyUI ignores them by itself).
- Largest difference, for stable-diffusion.cpp: between its picture and plain diffusers' with the same file, seed and prompt, in 4 steps of
  Euler's method, in units of 1/255. At most 1 is allowed: its picture has whole numbers, which makes 0.5, and it computes with fp16
  weights where diffusers widens them. Then, how much the LoRA alone changes the picture. With SDXL, whatever the file, it multiplies the
  pooled text by the rows of OpenCLIP's `text_projection` where it should be the columns (clip.hpp, CLIPTextModel; name_conversion.cpp does
  not transpose it): so the matrix is transposed for diffusers' picture too, which otherwise differs by 20.8.
- Largest difference, for ComfyUI and kohya's scripts: between a weight after their code has put the LoRA in and the same weight from
  `--to merged`, in units of what rounding to fp16 may change; they keep it in fp32, so it can be 1. For a flow family: between what ComfyUI
  adds to a weight and the product of the file's two matrices; which weight that is comes from diffusers' own reader of original files.
- Empty modules stand in for torchvision, torchaudio, av and cv2 if they are not installed: loading does not use them.

| program | file | tensors | missing | unexpected | largest difference | version | on |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def module(name: str, *words: Path, python: Path | str = sys.executable) -> str:
    """Run one of these modules in a process of its own and return what it printed; exits with its message if it fails."""
    command = [str(python), "-m", f"{__package__}.{name}", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout + done.stderr


def loaded(program: str, checkout: Path, folder: Path) -> Iterator[str]:
    """The lines of a program whose own code loads a base's files; exits if a key is missing or unexpected, or if a weight differs."""
    python, commit = checkout / "venv" / "bin" / "python", ["git", "-C", str(checkout), "log", "-1", "--format=%h of %cs"]
    said = module(program, checkout, folder, python=python if python.exists() else sys.executable)
    version = subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip()
    for line in said.splitlines():
        if line.startswith(BEGIN):
            found = Verdict(**json.loads(line.removeprefix(BEGIN)))
            if found.missing or found.unexpected or (found.difference or 0) > WEIGHT:
                sys.exit(f"{program}: {found}")
            difference = "" if found.difference is None else f"{found.difference:.2g}, over {found.weights} weights"
            yield row(CHECKOUTS[program][0], found.file, found.tensors, difference, version)


def drawn(folder: Path) -> Iterator[str]:
    """The lines of stable-diffusion.cpp, which draws with a base's files; exits if a tensor is not read, or if the picture differs."""
    plain = None
    for file in (folder / SINGLE, folder / KOHYA):
        lora = [file] if file.name == KOHYA else []
        said = module("cpp", folder, folder / "cpp.png", *lora).splitlines()
        unread = [line for line in said if UNREAD.search(line)]
        module("picture", folder, folder / "ours.npy", *lora)
        ours, theirs = np.load(folder / "ours.npy"), np.asarray(Image.open(folder / "cpp.png").convert("RGB"))
        largest = float(abs(ours - theirs).max())
        if unread or not largest <= PICTURE:
            sys.exit(f"stable-diffusion.cpp: of {name_of(file)} the picture differs by {largest:.2f} of 255, and unread are {unread}")
        moved = "" if plain is None else f"; the LoRA moves it by {abs(ours - plain).max():.0f}"
        plain = ours
        yield row("stable-diffusion.cpp", name_of(file), len(read_header(file)) - 1, f"{largest:.2f} of 255{moved}", binding_version())


def binding_version() -> str:
    """The binding and its version."""
    return f"stable-diffusion-cpp-python {version('stable-diffusion-cpp-python')}"


def row(program: str, file: str, tensors: int, difference: str, version: str) -> str:
    """A line of the table, for a file without missing or unexpected keys."""
    return f"| {program} | {file} | {tensors:,} | 0 | 0 | {difference} | {version} | {datetime.now(UTC):%Y-%m-%d} |\n"


def keep(rows: Sequence[str]) -> None:
    """Write lines into the table, in place of those for the same programs and files."""
    text = TABLE.read_text(encoding="utf-8") if TABLE.is_file() else HEAD
    same = tuple("|".join(line.split("|")[:3]) for line in rows)
    TABLE.write_text("".join([*(line for line in text.splitlines(True) if not line.startswith(same)), *rows]), encoding="utf-8")


def main(words: Sequence[str]) -> None:
    """Make the files and have them read."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}")
    parser.add_argument("bases", nargs="*", metavar="BASE", help=f"of {', '.join(files.KINDS)}; all that the program reads")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="where the files are kept for another time; they take 20 GB")
    for program, (name, place, _) in CHECKOUTS.items():
        parser.add_argument(f"--{program}", type=Path, metavar="FOLDER", help=f"{name}'s code: a checkout of {place}")
    asked = parser.parse_args(words)
    checkouts = {program: given.resolve() for program in CHECKOUTS if (given := getattr(asked, program))}
    for program, checkout in checkouts.items():
        if not (checkout / CHECKOUTS[program][2]).is_file():
            parser.error(f"{checkout} is no checkout of {CHECKOUTS[program][1]}")
    if not checkouts and find_spec(BINDING) is None:
        parser.error(NO_BINDING)
    with TemporaryDirectory(prefix="others-") as made:
        for kind in asked.bases or (files.KINDS if "comfyui" in checkouts else files.TRUE_SIZED):
            folder = (asked.work or Path(made)).resolve() / kind
            folder.mkdir(parents=True, exist_ok=True)
            files.make(kind, folder)
            rows = [line for program, checkout in checkouts.items() for line in loaded(program, checkout, folder)]
            rows = rows if checkouts else list(drawn(folder))
            print("".join(rows), end="", flush=True)
            keep(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
