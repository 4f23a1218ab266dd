"""The memory plan on a real GPU: what whole runs on the full-size bases take, compared with what was planned.

    python -m tests.benchmarks.memory_on_card --work FOLDER [--row NAME ...]

Every row is a process of its own, which may use no more of the card than the row's size (`set_per_process_memory_fraction`) and
is planned for a card of that size: class images, encoding, three steps (six of the flow families), saving. What is measured is what the
driver shows: the most that the allocator has reserved, plus the context, which is everything else that the driver counts as this
process's; where it can't tell processes apart, everything else on the card, so rows must then run one after the other. The bases have
random weights; they and the rows' results are kept in FOLDER, so that a table that was stopped can go on.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from PIL import Image

from dreambooth_cli.bases.base import Base
from dreambooth_cli.bases.catalog import find_entry
from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.bases.fingerprint import identify
from dreambooth_cli.config import ask
from dreambooth_cli.engine.families.random_base import write_random_base
from dreambooth_cli.events import PhaseStarted, PlanMade, ProjectSaved, StepDone, Warned
from dreambooth_cli.gpu import Gpu, hand_over
from dreambooth_cli.project import Project
from dreambooth_cli.settings import SubjectSettings
from dreambooth_cli.workflows.initialise import initialise
from dreambooth_cli.workflows.train import train

from .bases import make_base

RUN = {"steps": 3, "class_images": 2, "class_image_steps": 2, "checkpoint_every": 0}


@dataclass(frozen=True)
class Row:
    """A base on a card with so many GB free; `most` is the target for the whole run, in GB."""

    name: str
    base: str
    free: float
    most: float
    settings: dict[str, Any] = field(default_factory=dict)
    resolution: int | None = None


FULL = {"method": "full", "train_text_encoder": True}
LORA = {"method": "lora", "train_text_encoder": False}
ROWS = (
    Row("SD 1.5 full + text encoder, 512", "sd15", 7.2, 6.5, FULL),
    Row("SD 2.1 full + text encoder, 768", "sd21", 11.2, 9.0, FULL),
    Row("SDXL full + both text encoders, 1024", "sdxl", 14.9, 12.0, FULL),
    Row("SDXL LoRA, UNet only, 1024", "sdxl", 7.4, 7.0, LORA),
    # on little more than the plan says that they need
    Row("SD 1.5 full + text encoder, 512, tight", "sd15", 6.8, 6.8, FULL),
    Row("SDXL LoRA, UNet only, 1024, tight", "sdxl", 4.6, 4.6, LORA),
    *(
        Row(f"{title}, {card}", base, free, free, {"steps": 6, "sample_steps": 2})
        for title, base in (("FLUX.2 klein", "klein"), ("Z-Image", "z-image"))
        for card, free in (("8 GB", 7.98), ("12 GB", 11.98), ("16 GB", 15.97), ("70 GB", 70.0))
    ),
    Row("SD 1.5 LoRA, 512", "sd15", 3.0, 3.0, {"method": "lora"}),
    Row("SD 1.5 LoRA on all layers, 512", "sd15", 8.0, 8.0, {"method": "lora", "lora_layers": "all"}),
    Row(
        "SDXL LoRA on all layers, UNet only, 1024",
        "sdxl",
        30.0,
        30.0,
        {"method": "lora", "lora_layers": "all", "train_text_encoder": False},
    ),
    *(
        Row(f"SD 1.5 full, {side} px, {size}+{size}, {words}", "sd15", 60.0, 60.0, settings, side)
        for side in (512, 768)
        for size in (1, 2)
        for words, checkpointed in (("plain", False), ("checkpointing", True))
        for settings in ({"method": "full", "batch_size": size, "gradient_checkpointing": checkpointed},)
    ),
    Row("half as wide as SD 1.5, full, 512", "half as wide as sd15", 20.0, 20.0, FULL, 512),
)


def main() -> int:
    """Measure what has not been measured yet and print the table. Returns 1 if a row misses its target or the plan is off."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory_on_card")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--row", action="append", choices=[row.name for row in ROWS])
    parser.add_argument("--measure", choices=[row.name for row in ROWS], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    hand_over()  # for the rows' own processes, as the program does
    if asked.measure:
        measure(next(row for row in ROWS if row.name == asked.measure), asked.work)
        return 0
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}, CUDA {torch.version.cuda}\n")
    print(
        "| run | free GB | planned GB | measured GB | planned / measured | at most | context | allocated | s a step | means |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    return int(not all([tell(row, asked.work) for row in ROWS if asked.row is None or row.name in asked.row]))


def tell(row: Row, work: Path) -> bool:
    """Print one row; whether the plan was right, the target met, and nothing warned of: a plan that was changed on the way, say."""
    path = result_of(row, work)
    if not path.exists():
        shutil.rmtree(home_of(row, work), ignore_errors=True)  # of a row that was stopped
        command = [sys.executable, "-m", "tests.benchmarks.memory_on_card", "--work", str(work), "--measure", row.name]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        shutil.rmtree(home_of(row, work), ignore_errors=True)
        if done.returncode:
            print(f"| {row.name} | failed: {done.stderr.strip()[-2500:]} |", flush=True)
            return False
    found = json.loads(path.read_text())
    planned, measured = found["planned"] / 1e9, found["measured"] / 1e9
    print(
        f"| {row.name} | {row.free} | {planned:.2f} | {measured:.2f} | {planned / measured:.3f} | {row.most} | "
        f"{found['context'] / 1e9:.2f} | {found['allocated'] / 1e9:.2f} | {found['seconds']:.3f} | "
        f"{', '.join(found['means'] + found['warnings'])} |",
        flush=True,
    )
    return bool(0.97 <= planned / measured <= 1.10 and measured <= row.most and not found["warnings"])


def result_of(row: Row, work: Path) -> Path:
    """Where a row's result is kept."""
    return work / f"{row.name.replace(' ', '-').replace(',', '').replace('/', '-')}.json"


def home_of(row: Row, work: Path) -> Path:
    """A row's own, so that rows can run side by side."""
    return work / f"home {result_of(row, work).stem}"


def made_base(name: str, folder: Path) -> Path:
    """The folder of a base with random weights, which is made where it is missing."""
    if not (folder / "model_index.json").exists():
        entry = find_entry(name)
        if entry is not None and entry.facts.family.true_size:
            write_random_base(entry, folder, tokenizer=Path())
        else:
            make_base(name, folder, dtype=torch.float16, device="cuda")
            torch.cuda.empty_cache()
    return folder


def context_bytes() -> int:
    """What this process has on the card besides what torch's allocator has reserved."""
    free, total = torch.cuda.mem_get_info()
    used = total - free
    with suppress(Exception):  # drivers of virtual machines may not tell
        import pynvml

        pynvml.nvmlInit()
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(0))
        (used,) = [one.usedGpuMemory for one in running if one.pid == os.getpid() and one.usedGpuMemory] or [used]
    return used - torch.cuda.memory_reserved()


def watched(events: Any, phases: dict[str, tuple[int, int]], progress: Path) -> Any:
    """The same events; `phases` gets the most bytes that were allocated and reserved in each phase of the run, also if it fails. The file
    `progress` gets each event's kind as it comes, and when: a row that is stopped shows where it was."""
    name, began = "start", time.monotonic()
    try:
        torch.cuda.reset_peak_memory_stats()
        for event in events:
            if isinstance(event, PhaseStarted):
                note_peak(name, phases)
                name = event.name
            with progress.open("a", encoding="utf-8") as file:
                file.write(f"{time.monotonic() - began:.1f} s: {name}: {type(event).__name__}\n")
            yield event
    finally:
        note_peak(name, phases)
        print({phase: [round(value / 1e9, 2) for value in most] for phase, most in phases.items()}, file=sys.stderr)


def note_peak(name: str, phases: dict[str, tuple[int, int]]) -> None:
    """Keep what has been held since the last phase began, and begin anew."""
    phases[name] = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    torch.cuda.reset_peak_memory_stats()


def measure(row: Row, work: Path) -> None:
    """One run in this process, and its result in the work folder."""
    os.environ["DREAMBOOTH_HOME"] = str(home_of(row, work))
    base = made_base(row.base, work / row.base)
    total = torch.cuda.get_device_properties(0).total_memory
    empty = context_bytes()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (row.free * 1e9 - empty) / total))
    card = Gpu(name="the card", kind="cuda", total=round(row.free * 1e9), free=round(row.free * 1e9), capability=(9, 0))
    freeze = "dreambooth_cli.workflows.freeze"
    phases: dict[str, tuple[int, int]] = {}
    with mock.patch(f"{freeze}.find_gpu", return_value=card), mock.patch(f"{freeze}.as_torch_has_it", return_value=card):
        events = list(watched(start(row, base, work), phases, result_of(row, work).with_suffix(".txt")))
    (plan,) = [event.plan for event in events if isinstance(event, PlanMade)]
    context = context_bytes()  # with the kernels that were loaded since
    seconds = [event.seconds for event in events if isinstance(event, StepDone)]
    found = {
        "planned": plan["needed"],
        "measured": max(reserved for _, reserved in phases.values()) + context,
        "allocated": max(allocated for allocated, _ in phases.values()),
        "phases": phases,
        "context": context,
        "context_at_start": empty,
        "seconds": statistics.median(seconds),
        "warnings": [event.message for event in events if isinstance(event, Warned)],
        "means": plan["means"],
        "ledger": plan["ledger"],
    }
    result_of(row, work).write_text(json.dumps(found, indent=1))


def start(row: Row, base: Path, work: Path) -> Any:
    """The events of the run."""
    photos = home_of(row, work) / "photos"
    photos.mkdir(parents=True)
    for number in range(3):
        Image.effect_noise((1100, 1100), 60 + number).convert("RGB").save(photos / f"{number}.png")
    side = row.resolution or read_facts(base).resolution
    known = Base(name=row.base, path=base, repository=None, identity=identify(base), facts=read_facts(base))
    subject = SubjectSettings(photos=photos, class_prompt="a dog", identifier="tms", model=str(known.path))
    made = list(initialise(None, subject=subject, prep={"resolution": side}, train={**RUN, **row.settings}))
    (saved,) = [event for event in made if isinstance(event, ProjectSaved)]
    stored = Project(saved.path).settings()
    return train(
        Project(saved.path),
        ask(stored),
    )


if __name__ == "__main__":
    sys.exit(main())
