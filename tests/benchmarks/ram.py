"""The plan's figures for the machine's memory compared with what whole runs hold, moment by moment.

    python -m tests.benchmarks.ram [--work FOLDER] [--case NAME ...]

Without a GPU, so that every tensor is in the machine's memory. Each case is a process of its own that trains a base with random weights,
from photos to the finished model; its peak (`VmHWM`) is read and reset at each moment. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dreambooth_cli.config import ask
from dreambooth_cli.events import (
    CheckpointSaved,
    Event,
    Events,
    PhaseStarted,
    PlanMade,
    ProjectSaved,
    RunOpened,
    StepDone,
)
from dreambooth_cli.machine import give_back, resident_memory
from dreambooth_cli.project import Project
from dreambooth_cli.settings import SubjectSettings
from tests import small_models
from tests.conftest import draw_photo
from tests.faults.peak import forget_peak, peak_of_memory

from .bases import make_base

TOLERANCE = 0.05
FULL = {"method": "full", "train_text_encoder": True}
FEW = {"steps": 3, "class_images": 2, "class_image_steps": 2, "learning_rate": 1e-5}


@dataclass(frozen=True)
class Case:
    """A run: its base (one of `bases`, or `sd1`, `sdxl` of the tests at a width), its pictures' side, its settings."""

    name: str
    base: str
    resolution: int
    settings: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case("tests' sd1, 1 M, full", "sd1-32", 64, FULL),
    Case("tests' sd1, 1 M, LoRA", "sd1-32", 64, {"method": "lora"}),
    Case("tests' sd1, 50 M, full", "sd1-256", 64, FULL),
    Case("tests' sd1, 50 M, LoRA", "sd1-256", 64, {"method": "lora"}),
    Case("tests' sdxl, 60 M, full, saved in fp16", "sdxl-256", 64, FULL | {"save_dtype": "fp16"}),
    Case("tests' sd1, 50 M, full, EMA", "sd1-256", 64, FULL | {"ema": True}),
    Case("half of SD 1.5, full, 256 px", "half as wide as sd15", 256, FULL | {"precision": "fp32"}),
    Case(
        "half of SD 1.5, full, 256 px, bf16, checkpointing",
        "half as wide as sd15",
        256,
        FULL | {"precision": "bf16", "gradient_checkpointing": True},
    ),
    Case("half of SD 1.5, LoRA, 256 px", "half as wide as sd15", 256, {"method": "lora", "precision": "fp32"}),
)


def moments(events: Iterator[Event]) -> Iterator[tuple[str, int, Event]]:
    """The moment of the run that ends with each event, and the most bytes that were held in it."""
    moment = "begin"
    forget_peak()
    for event in events:
        yield moment, peak_of_memory(), event
        forget_peak()
        match event:
            case PhaseStarted():
                moment = event.name
            case CheckpointSaved():
                moment = "after the checkpoint"
            case StepDone():
                moment = "checkpoint" if event.step == event.steps else "training"
            case RunOpened():
                moment = "training"


def measure(case: Case, work: Path) -> dict[str, Any]:
    """One run in this process: what was planned and what was held, in bytes by moment."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    base, smallest = work / case.base, work / "sd1-32"
    missing = [name for name in dict.fromkeys((case.base, smallest.name)) if not (work / name).exists()]
    for name in missing:
        kind, _, width = name.partition("-")
        if width:
            small_models.build(kind, work / name, width=int(width))
        else:
            make_base(name, work / name)
    if missing:
        raise SystemExit(75)  # once more in a process that has built nothing
    photos = work / "photos"
    photos.mkdir(exist_ok=True)
    for number in range(2):
        draw_photo(photos / f"{number}.png", (300, 300), seed=number)
    for _ in start(photos, smallest, 64, FULL | FEW):
        pass  # what the libraries take when they are first used is the program's
    give_back()
    program = resident_memory()
    held: dict[str, int] = {}
    plan: dict[str, Any] = {}
    for moment, peak, event in moments(start(photos, base, case.resolution, FEW | case.settings)):
        held[moment] = max(held.get(moment, 0), peak)
        if isinstance(event, PlanMade):
            plan = event.plan
    return {"planned": plan["ram"], "held": held, "program": program}


def start(photos: Path, base: Path, resolution: int, settings: dict[str, Any]) -> Events:
    """The events of a run on these photos."""
    from dreambooth_cli.workflows.initialise import initialise
    from dreambooth_cli.workflows.train import train

    subject = SubjectSettings(photos=photos, class_prompt="a dog", identifier="sks", model=str(base))
    made = list(initialise(None, subject=subject, prep={"resolution": resolution}, train=settings))
    (path,) = (event.path for event in made if isinstance(event, ProjectSaved))
    stored = Project(path).settings()
    return train(
        Project(path),
        ask(stored),
    )


def result_of(case: Case, work: Path) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.ram", "--work", str(work), "--measure", case.name]
    for _ in range(2):
        with TemporaryDirectory() as home:
            env = os.environ | {"DREAMBOOTH_HOME": home}
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 75:
            break
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Print the table. Returns 1 if the plan is off by more than the tolerance."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ram")
    parser.add_argument("--work", type=Path, help="where the bases are kept")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--measure", choices=[case.name for case in CASES], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(next(case for case in CASES if case.name == asked.measure), asked.work)))
        return 0
    with TemporaryDirectory() as folder:
        work = asked.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        print("| run | planned GB | held GB | planned / held | where |\n|---|---|---|---|---|")
        worst = 0.0
        for case in CASES:
            if asked.case and case.name not in asked.case:
                continue
            found = result_of(case, work)
            planned, held = max(found["planned"].values()), max(found["held"].values())
            worst = max(worst, abs(planned / held - 1))
            where = max(found["held"], key=lambda moment: found["held"][moment])
            print(f"| {case.name} | {planned / 1e9:.2f} | {held / 1e9:.2f} | {planned / held:.3f} | {where} |", flush=True)
            if os.environ.get("MOMENTS"):
                for what in ("planned", "held"):
                    print(what, {name: round(count / 1e9, 3) for name, count in found[what].items()}, flush=True)
    print(f"\nThe largest error is {worst:.1%} (allowed: {TOLERANCE:.0%})")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
