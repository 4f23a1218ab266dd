"""Our training compared with diffusers' own DreamBooth script: the same model, photos, class images, size, batch, steps and precision.

    python -m tests.benchmarks.speed --peer PATH [--shim FOLDER] [--rounds 5] [--threads 2] [--case NAME ...]

PATH is diffusers' `examples/dreambooth` folder (`train_dreambooth.py`, `train_dreambooth_lora.py`), which is never part of this
repository; `--shim`, one folder or several separated by colons, is its PYTHONPATH if torchvision has no CPU build. Both run in processes of
their own, in turn, with the same number of threads. A step's time is taken when each side says that the step is done; the first two steps
are left out.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image

from tests import small_models
from tests.machine import machine

from .bases import make_base

PHOTOS, CLASS_IMAGES = 5, 4
LEFT_OUT = 2
SMALL, TINY, TRUE = "small", "tiny", "sd15"
LIBRARIES = (
    "from diffusers import AutoencoderKL, UNet2DConditionModel; from transformers import CLIPTextModel, CLIPTokenizer"
)
IMPORTS = [sys.executable, "-c", LIBRARIES]


@dataclass(frozen=True)
class Case:
    """One row: what both sides are told. `target` is the least ratio of steps a second, or the largest ratio of time or memory."""

    name: str
    base: str
    side: int  # of the pictures, in pixels
    steps: int
    target: float
    batch: int = 1
    prior: bool = True
    lora: bool = False
    text_encoder: bool = False
    precision: str = "fp32"
    peer_precision: str = "fp32"
    whole: bool = False  # the process from start to saved model counts, not the step


CASES = (
    Case("full, text encoder frozen", SMALL, 256, 12, 1.4),
    Case("full, text encoder trained", SMALL, 256, 12, 1.35, text_encoder=True),
    Case("LoRA", SMALL, 256, 12, 1.4, lora=True),
    Case("full, both in bf16", SMALL, 256, 12, 1.4, precision="bf16", peer_precision="bf16"),
    Case("full, each at its own default", SMALL, 256, 12, 1.8, precision="auto"),
    Case("tiny, 100 steps, whole process", TINY, 64, 100, 0.6, whole=True),
    # 20 GB of memory and minutes a run: two rounds are enough
    Case(
        "SD 1.5 at its true size, full, text encoder trained, no prior, both in bf16",
        TRUE,
        512,
        6,
        1.45,
        prior=False,
        text_encoder=True,
        precision="bf16",
        peer_precision="bf16",
    ),
)


@dataclass(frozen=True)
class Timed:
    """One process: seconds of each step after the first ones, of all steps, of the whole, its peak resident memory in bytes, and in
    GB what its plan said of that."""

    steps: list[float] = field(default_factory=list)
    loop: float = 0.0
    whole: float = 0.0
    memory: int = 0
    planned: float | None = None


def main() -> int:
    """Print the table. Returns 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.speed")
    parser.add_argument("--peer", type=Path, required=True, help="diffusers' examples/dreambooth")
    parser.add_argument("--shim", help="the peer's PYTHONPATH")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    asked = parser.parse_args()
    print(f"{machine()}; {asked.threads} threads; medians of {asked.rounds} runs each\n")
    print("| run | peer | ours | ratio | target | peak memory, ours / peer | planned / held |\n|---|---|---|---|---|---|---|")
    missed = False
    with TemporaryDirectory() as folder:
        for case in (case for case in CASES if asked.case is None or case.name in asked.case):
            work = prepare(Path(folder), case)
            ours, theirs = [], []
            for _ in range(asked.rounds):
                theirs.append(run_peer(case, work, asked.peer, asked.shim, asked.threads))
                ours.append(run_ours(case, work, asked.threads))
            missed |= not tell(case, ours, theirs)
    floor = statistics.median(watch(IMPORTS, asked.threads, {}, "").whole for _ in range(asked.rounds))
    print(f"\nA process that only imports torch, the UNet, the VAE and the text encoder: {floor:.2f} s.")
    return int(missed)


def tell(case: Case, ours: list[Timed], theirs: list[Timed]) -> bool:
    """Print one row; whether its target is met."""
    held, other_held = (statistics.median(one.memory for one in runs) / 1e9 for runs in (ours, theirs))
    if case.whole:
        mine, other = (statistics.median(one.whole for one in runs) for runs in (ours, theirs))
        ratio, is_met, bound = mine / other, mine / other <= case.target, f"≤ {case.target} × the time"
    else:
        mine, other = (statistics.median(step for one in runs for step in one.steps) for runs in (ours, theirs))
        ratio, is_met, bound = other / mine, other / mine >= case.target, f"≥ {case.target} × the steps a second"
    planned = statistics.median(one.planned for one in ours if one.planned)
    mark = "" if is_met else " (missed)"
    print(
        f"| {case.name} | {other:.3f} s | {mine:.3f} s | {ratio:.2f} | {bound}{mark} "
        f"| {held:.2f} / {other_held:.2f} GB, {held / other_held:.2f} | {planned / held:.2f} |",
        flush=True,
    )
    return is_met


def prepare(work: Path, case: Case) -> Path:
    """The base, photos and class images that both use, where they are not there yet."""
    if not (work / case.base).exists():
        if case.base == TINY:
            small_models.build("sd2", work / TINY)  # names no part that the peer would look for in vain
        else:
            make_base(case.base, work / case.base)
    draw_pictures(work, case.base, case.side)
    return work


def draw_pictures(work: Path, base: str, side: int) -> None:
    """A base's photos and class images, where they are not there yet."""
    for folder, count in ((work / f"{base}-photos", PHOTOS), (work / f"{base}-class", CLASS_IMAGES)):
        if not folder.exists():
            draw_noise(folder, count, side)


def draw_noise(folder: Path, count: int, side: int) -> None:
    """Pictures of soft noise, to train on."""
    generator = torch.Generator().manual_seed(0)
    folder.mkdir()
    for number in range(count):
        small = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8).numpy()
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{number}.png")


def run_ours(case: Case, work: Path, threads: int, program: Sequence[str] = ("-m", "dreambooth_cli")) -> Timed:
    """`dreambooth train` in its direct form, its events read as they come."""
    method = ["--method", "lora", "--rank", "4"] if case.lora else ["--method", "full"]
    text = ["--train-text-encoder" if case.text_encoder else "--no-train-text-encoder"]
    prior = ["--class-data-dir", str(work / f"{case.base}-class")] if case.prior else []
    with TemporaryDirectory() as home:
        command = [
            *(sys.executable, *program, "train", "--json", "--model", str(work / case.base)),
            *(
                "--photos",
                str(work / f"{case.base}-photos"),
                "--class-prompt",
                "a photo of a dog",
                "--identifier",
                "sks",
            ),
            *(*prior, "--class-images", str(CLASS_IMAGES if case.prior else 0), "--batch-size", str(case.batch)),
            *("--resolution", str(case.side), "--steps", str(case.steps), "--learning-rate", "5e-6"),
            *("--precision", case.precision, "--checkpoint-every", "0", "--output-dir", f"{home}/output"),
            *(*method, *text, *([] if case.whole else ["--no-rehearsal"])),
        ]
        return watch(command, threads, {"DREAMBOOTH_HOME": home}, r'"event": "(?:run|step)".*?"step": (\d+)')


def run_peer(case: Case, work: Path, peer: Path, shim: str | None, threads: int) -> Timed:
    """The script, its progress bar read as it moves."""
    script = "train_dreambooth_lora.py" if case.lora else "train_dreambooth.py"
    more = ["--rank", "4"] if case.lora else ["--set_grads_to_none"]
    more += ["--train_text_encoder"] if case.text_encoder else []
    precision = {"fp32": "no"}.get(case.peer_precision, case.peer_precision)
    prior = ["--with_prior_preservation", "--num_class_images", str(CLASS_IMAGES)]
    prior += ["--class_data_dir", str(work / f"{case.base}-class"), "--class_prompt", "a photo of a dog"]
    with TemporaryDirectory() as home:
        command = [
            *(sys.executable, str(peer / script), "--pretrained_model_name_or_path", str(work / case.base)),
            *("--instance_data_dir", str(work / f"{case.base}-photos"), "--instance_prompt", "a photo of a sks dog"),
            *(prior if case.prior else []),
            *("--train_batch_size", str(case.batch)),
            *("--resolution", str(case.side), "--max_train_steps", str(case.steps), "--seed", "1"),
            *("--learning_rate", "5e-6", "--lr_warmup_steps", "0", "--mixed_precision", precision),
            *("--checkpointing_steps", "100000", "--output_dir", f"{home}/output", *more),
        ]
        path = {"PYTHONPATH": shim} if shim else {}
        return watch(command, threads, path, rf"Steps:.*?(\d+)/{case.steps} ")


def watch(command: list[str], threads: int, more: dict[str, str], pattern: str) -> Timed:
    """Run a command and note when each step is said to be done. Raises RuntimeError with what it said where it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"} | more
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, moments = "", dict[int, float]()
    with ThreadPoolExecutor() as beside:
        peak = beside.submit(peak_memory, process)
        for piece in pieces_of(process):
            said += piece
            for found in re.finditer(pattern, piece) if pattern else ():
                moments.setdefault(int(found[1]), time.monotonic())
        process.wait()
        ended = time.monotonic()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{said[-3000:]}")
    steps = [moments[step] - moments[step - 1] for step in sorted(moments) if step > LEFT_OUT and step - 1 in moments]
    loop = max(moments.values()) - min(moments.values()) if moments else 0.0
    planned = re.search(r'"ram_gb": ([0-9.]+)', said)
    return Timed(steps, loop, ended - began, peak.result(), float(planned[1]) if planned else None)


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """The most bytes that a process has had resident, asked of Linux until it ends. Not `ru_maxrss`: a child begins there with
    what its parent holds."""
    most = 0
    while process.poll() is None:
        with suppress(FileNotFoundError):  # it ended just now
            status = Path(f"/proc/{process.pid}/status").read_text()
            most = max([most, *(int(kib) * 1024 for kib in re.findall(r"VmHWM:\s*(\d+) kB", status))])
        time.sleep(0.05)
    return most


def pieces_of(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """What a process says, line by line, as it comes; a progress bar begins a line with a carriage return."""
    assert process.stdout is not None
    line = b""
    while byte := process.stdout.read(1):
        line += byte
        if byte in b"\r\n":
            yield line.decode(errors="replace")
            line = b""
    yield line.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
