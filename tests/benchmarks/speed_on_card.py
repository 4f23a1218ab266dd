"""How fast a step is on a GPU, with full-size bases of random weights, compared on request with diffusers' own DreamBooth script.

    python -m tests.benchmarks.speed_on_card --work FOLDER [--peer PATH [--shim FOLDER]] [--rounds 3] [--case NAME ...]

One photo and one class image a step, bf16, the text encoder frozen, unless a row says otherwise. A step's time is the median; the
loop's time is that of all its steps, including what the first ones set up. Utilisation is that of the matrix units: the arithmetic of the
UNet's forward and backward passes (counted once by torch, without computing it) relative to a step's time and the card's dense bf16 peak.
The bases are kept in FOLDER, so that a second call does not make them again.
"""

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from .bases import CONFIGS, make_base
from .speed import Case, Timed, draw_pictures, run_ours, run_peer

PEAK = 989e12  # H200 and H100 SXM, dense bf16: NVIDIA's data sheet
TOKENS = 77
SD15, SDXL = "sd15", "sdxl"


@dataclass(frozen=True)
class Row:
    """A case and what is asked of it: the least ratio to the peer, the most milliseconds a step, the most seconds of its whole
    loop, the least utilisation."""

    case: Case
    ratio: float = 0.0
    milliseconds: float = 0.0
    loop: float = 0.0
    utilisation: float = 0.0


def bf16(
    name: str, base: str, side: int, steps: int, *, batch: int = 1, prior: bool = True, lora: bool = False
) -> Case:
    """A case in bf16 on both sides."""
    return Case(
        name, base, side, steps, 0.0, batch=batch, prior=prior, lora=lora, precision="bf16", peer_precision="bf16"
    )


ROWS = (
    Row(bf16("SD 1.5, 512 px, 1+1", SD15, 512, 200), ratio=2.5),
    Row(bf16("SD 1.5, 512 px, 1+1, 1,000 steps", SD15, 512, 1000), loop=30.0),
    Row(bf16("SD 1.5, 512 px, 16+16", SD15, 512, 40, batch=16), utilisation=0.28),
    Row(bf16("SDXL LoRA, 1024 px, 1+1", SDXL, 1024, 100, lora=True), milliseconds=95),
    Row(bf16("SDXL LoRA, 1024 px, 1", SDXL, 1024, 100, lora=True, prior=False), milliseconds=50),
    Row(bf16("SDXL, 1024 px, 1+1", SDXL, 1024, 100), milliseconds=155),
    Row(bf16("SDXL, 1024 px, 1", SDXL, 1024, 100, prior=False), milliseconds=85),
)


def main() -> int:
    """Print the table. Returns 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.speed_on_card")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer", type=Path, help="diffusers' examples/dreambooth")
    parser.add_argument("--shim", help="the peer's PYTHONPATH")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", choices=[row.case.name for row in ROWS])
    asked = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}, CUDA {torch.version.cuda}\n")
    print(
        "| run | peer, ms a step | ours, ms a step | ratio | loop | utilisation | target |\n|---|---|---|---|---|---|---|"
    )
    met = []
    for row in (row for row in ROWS if asked.case is None or row.case.name in asked.case):
        prepare(row.case, asked.work)
        ours, theirs = [], []
        for _ in range(asked.rounds):
            if row.ratio and asked.peer:
                theirs.append(run_peer(row.case, asked.work, asked.peer, asked.shim, torch.get_num_threads()))
            ours.append(run_ours(row.case, asked.work, torch.get_num_threads()))
        met.append(tell(row, ours, theirs))
    return int(not all(met))


def prepare(case: Case, work: Path) -> None:
    """The case's base and pictures, where they are not there yet."""
    base = work / case.base
    if not (base / "model_index.json").exists():
        base.mkdir(parents=True, exist_ok=True)
        make_base(case.base, base, dtype=torch.float16, device="cuda")
        torch.cuda.empty_cache()
    draw_pictures(work, case.base, case.side)


def tell(row: Row, ours: list[Timed], theirs: list[Timed]) -> bool:
    """Print one row; whether what is asked of it is met."""
    took = median_step(ours)
    ratio = median_step(theirs) / took if theirs else 0.0
    loop = statistics.median(one.loop for one in ours)
    used = arithmetic_of(row.case) / took / PEAK
    peer = f"{median_step(theirs) * 1e3:.1f}" if theirs else ""
    print(
        f"| {row.case.name} | {peer} | {took * 1e3:.1f} | {f'{ratio:.2f}' if theirs else ''} | {loop:.1f} s | {used:.1%} | "
        f"{asked_of(row)} |",
        flush=True,
    )
    return (
        ratio >= row.ratio
        and (not row.milliseconds or took * 1e3 <= row.milliseconds)
        and (not row.loop or loop <= row.loop)
        and used >= row.utilisation
    )


def median_step(runs: list[Timed]) -> float:
    """Seconds of a step, over all steps of all runs."""
    return statistics.median(step for one in runs for step in one.steps)


def asked_of(row: Row) -> str:
    """The row's target in words."""
    if row.ratio:
        return f"≥ {row.ratio} × the steps a second"
    if row.milliseconds:
        return f"≤ {row.milliseconds:.0f} ms"
    return f"≤ {row.loop:.0f} s" if row.loop else f"≥ {row.utilisation:.0%}"


def arithmetic_of(case: Case) -> int:
    """Floating-point operations of a step: two for each multiplication and addition of the UNet's forward and backward passes over
    all rows. LoRA's backward pass has no gradients of the base's weights; what is counted there is all the same the whole."""
    config = CONFIGS[case.base][0]
    rows = case.batch * (2 if case.prior else 1)
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**config)
        noisy = torch.empty(1, 4, case.side // 8, case.side // 8)
        text = torch.empty(1, TOKENS, config["cross_attention_dim"])
        more = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)} if case.base == SDXL else None
        with FlopCounterMode(display=False) as counted:
            unet(noisy, torch.empty(1), text, added_cond_kwargs=more).sample.sum().backward()
    return int(counted.get_total_flops()) * rows


if __name__ == "__main__":
    sys.exit(main())
