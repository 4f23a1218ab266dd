"""A session at a GPU: what only a GPU can show, the most important first, in parts that are kept as they are done.

    python -m tests.benchmarks.card --work FOLDER [--peer PATH [--shim FOLDER]] [--minutes 25] [--only PART ...] [--write]

Each part is a process of its own and leaves `PART.json` in FOLDER, with what it printed beside it; a part that is there is not done
again, so a session that was cut off goes on with the next one. Parts that only show whether something works run side by side within a
stage; what is timed runs alone. A part is stopped at its own limit, and at the end of `--minutes`. `--write` puts what is kept into
`card.md` beside this file. The bases have their true size and random weights, which are made on the card in seconds. `--tiny` tries the
script itself, on any machine.

A lent machine may start a Python with torch in 15 s and write to its disk slowly: FOLDER, and TMPDIR, are best in its memory (/dev/shm).
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests import small_flow, small_models
from tests.machine import machine

from .memory_on_card import made_base
from .speed import draw_noise

TABLE = Path(__file__).with_name("card.md")
PHOTOS, SIDES = 4, {"sd15": 512, "sdxl": 1024}
SHORTEST = 20  # seconds under which no part is begun


@dataclass(frozen=True)
class Sitting:
    """Where results are kept, and what is compared with."""

    work: Path
    peer: Path | None
    shim: str | None
    tiny: bool
    part: str = ""

    @property
    def home(self) -> Path:
        """The part's own, so that it can be thrown away: a disk has room for a few models alone."""
        return self.work / f"home-{self.part}"

    def base(self, name: str) -> Path:
        """A base of this name, drawn where it is not there yet."""
        folder = self.work / "bases" / name
        if not (folder / "model_index.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            if not self.tiny:
                made_base(name, folder)
            elif name in small_flow.KINDS:
                small_flow.build(name, folder)
            else:
                small_models.build("sdxl" if name == "sdxl" else "sd1", folder)
        return folder

    def shared(self, module: str, *names: str) -> Path:
        """A folder for another benchmark, in which the bases that it looks for are these."""
        folder = self.work / module
        folder.mkdir(exist_ok=True)
        for name in names:
            if not (folder / name).exists():
                (folder / name).symlink_to(self.base(name))
        return folder

    def photos(self) -> Path:
        """Photos of soft noise."""
        folder = self.work / "photos"
        if not folder.exists():
            draw_noise(folder, PHOTOS, 64 if self.tiny else 1024)
        return folder

    def dreambooth(self, *words: str) -> tuple[list[dict[str, Any]], float]:
        """The events of a command of ours, and its seconds. Raises RuntimeError with what it said where it fails."""
        environment = os.environ | {"DREAMBOOTH_HOME": str(self.home), "HF_HUB_OFFLINE": "1"}
        began = time.monotonic()
        command = [sys.executable, "-m", "dreambooth_cli", *words]
        told = self.work / f"{self.part}-{words[0]}.events"  # as they come: a part that is stopped shows how far it was
        with told.open("w+", encoding="utf-8") as out:
            done = subprocess.run(command, env=environment, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
            out.seek(0)
            lines = out.read().splitlines()
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{lines[-12:]}\n{done.stderr[-2000:]}")
        return [json.loads(line) for line in lines], time.monotonic() - began

    def train(self, name: str, *more: str) -> tuple[list[dict[str, Any]], float]:
        """`dreambooth train` in its direct form on a base."""
        side = "64" if self.tiny else str(SIDES[name])
        told = ["--photos", str(self.photos()), "--class-prompt", "a photo of a dog", "--identifier", "sks", "--resolution", side]
        return self.dreambooth("train", "--json", "--model", str(self.base(name)), *told, *more)


def story(name: str, *method: str) -> Callable[[Sitting], dict[str, Any]]:
    """The guide's two commands: train, generate."""

    def told(sitting: Sitting) -> dict[str, Any]:
        output = sitting.work / f"{name}-out"
        steps = "4" if sitting.tiny else "100"
        images = ["--class-images", "2" if sitting.tiny else "8", "--class-image-steps", "2" if sitting.tiny else "10"]
        events, took = sitting.train(name, "--steps", steps, *images, *method, "--restart", "--output-dir", str(output))
        side = ["--width", "64", "--height", "64"] if sitting.tiny else []
        drawing = ["--steps", "4" if sitting.tiny else "30", "--output-dir", str(sitting.work / f"{name}-pictures"), *side]
        drawn, took_to_draw = sitting.dreambooth("generate", "--json", "--model-path", str(output), "--prompt", "a sks dog", *drawing)
        (plan,) = [event["plan"] for event in events if event["event"] == "plan"]
        seconds = sorted(event["seconds"] for event in events if event["event"] == "step")
        return {
            "train_s": took,
            "generate_s": took_to_draw,
            "ms_a_step": seconds[len(seconds) // 2] * 1e3,
            "phases": ", ".join(event["name"] for event in events if event["event"] == "phase"),
            "pictures": len([event for event in drawn if event["event"] == "image"]),
            "means": plan["means"],
            "planned_gb": plan["needed"] / 1e9,
            "memory_gb": max((event["memory_gb"] or 0 for event in events if event["event"] == "step"), default=0),
        }

    return told


def verified(sitting: Sitting) -> dict[str, Any]:
    """`train --verify-resume`, in full and LoRA."""
    found = {}
    for method in ("full", "lora"):
        events, took = sitting.train("sd15", "--verify-resume", "--method", method, "--class-images", "0", "--steps", "4")
        told = [event["message"] for event in events if event["event"] in ("note", "warning")]
        found[method] = {"seconds": took, "told": told[-1]}
    return found


def lean_kernel(sitting: Sitting) -> dict[str, Any]:
    """The lean AdamW's kernel beside its plain form: whether they agree, and the time of ten million values in each."""
    from dreambooth_cli.engine.training.adamw import LeanAdamW, _eight_bit_maps, difference_of_forms

    device = torch.device("cpu" if sitting.tiny else "cuda")
    try:
        from dreambooth_cli.engine.training.lean_kernel import lean_adamw

        first, second = _eight_bit_maps()
        agreed = difference_of_forms(lean_adamw, device, (first.to(device), second.to(device))) or "they agree"
    except Exception as error:  # what a compiler says on a machine that nobody has seen
        return {"told": f"{type(error).__name__}: {error}"}
    found: dict[str, Any] = {"told": agreed}
    for form in ("kernel", "plain") if device.type == "cuda" else ():
        weights = torch.nn.Parameter(torch.randn(10_000_000, device=device, dtype=torch.bfloat16))
        lean = LeanAdamW([[weights]], names={weights: "a"}, weight_decay=0.01, eight_bit=True, off_card=False, seed=0)
        lean.is_chosen, lean.kernel = True, lean_adamw if form == "kernel" else None
        weights.grad = torch.randn_like(weights)
        for count in (3, 20):
            torch.cuda.synchronize()
            began = time.monotonic()
            for _ in range(count):
                lean.step()
            torch.cuda.synchronize()
            found[f"{form}_ms"] = (time.monotonic() - began) / count * 1e3
    return found


def fidelity(*, on_card: bool) -> Callable[[Sitting], dict[str, Any]]:
    """How well the pocket base learns three subjects when it is trained on the card, and on the same machine's processor."""

    def told(sitting: Sitting) -> dict[str, Any]:
        from .bench import Bench
        from .fidelity import MAIN, PHOTOS, QUICK, studies_of

        where = sitting.work / ("fidelity-card" if on_card else "fidelity-cpu")
        there = nullcontext() if on_card else mock.patch("dreambooth_cli.workflows.freeze.find_gpu", return_value=None)
        with there:
            bench = Bench(where, seeds=(0,), class_seeds=range(100, 110))
            count, variant = (1, QUICK) if sitting.tiny else (3, MAIN[0])
            measured = [bench.measure(study, variant) for study in studies_of(bench, "main", count, PHOTOS)]
        names = ("scaled", "retrieved", "place", "copied", "seconds")
        return {name: [round(float(getattr(one, name)), 3) for one in measured] for name in names}

    return told


def bases(*names: str) -> Callable[[Sitting], dict[str, Any]]:
    """Draw what the other parts share, so that no two of them do."""

    def told(sitting: Sitting) -> dict[str, Any]:
        found = {}
        if "sd15" in names:
            sitting.photos()
        for name in names:
            began = time.monotonic()
            sitting.base(name)
            found[name] = time.monotonic() - began
        return found

    return told


def doctor(model: str) -> Callable[[Sitting], dict[str, Any]]:
    """`dreambooth doctor --try` on a base: what it told of its parts."""

    def told(sitting: Sitting) -> dict[str, Any]:
        report = sitting.work / f"{sitting.part}.md"
        (document,), took = sitting.dreambooth("doctor", "--try", "--model", model, "--json", "--report", str(report))
        checks = [check for check in document["checks"] if check["status"] != "ok"]
        return {"seconds": took, "ok": document["ok"], "checks": checks, "tried": document["tried"]}

    return told


def profile(name: str, **settings: Any) -> Callable[[Sitting], dict[str, Any]]:
    """Where four steps spend their time, on the card and beside it. Ten were not done in two minutes on a card."""

    def told(sitting: Sitting) -> dict[str, Any]:
        from torch.profiler import ProfilerActivity

        from dreambooth_cli.events import StepDone

        from .memory_on_card import Row, start

        work = sitting.shared("profile", name)
        row = Row(name, name, 0, 0, {"steps": 26, **settings}, 64 if sitting.tiny else SIDES[name])
        profiler = torch.profiler.profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
        began, ms = 0.0, 0.0
        for event in start(row, sitting.base(name), work):
            step = event.step if isinstance(event, StepDone) else None
            if step == 20:
                profiler.start()
                began = time.monotonic()
            if step == 24:
                ms = (time.monotonic() - began) / 4 * 1e3
                profiler.stop()
        averages = profiler.key_averages()
        on_card = [one for one in averages if str(one.device_type).endswith("CUDA")]
        return {
            "ms_a_step_under_the_profiler": ms,
            "kernel_ms_a_step": sum(one.self_device_time_total for one in on_card) / 4e3,
            "kernels_a_step": sum(one.count for one in on_card) / 4,
            "cpu_ms_a_step": sum(one.self_cpu_time_total for one in averages) / 4e3,
            "kernels": [
                [one.key[:90], one.count / 4, round(one.self_device_time_total / 4e3, 3)] for one in by_time(on_card)
            ],
            "operators": [
                [one.key[:60], one.count / 4, round(one.device_time_total / 4e3, 3)] for one in by_time(averages)
            ],
        }

    return told


def by_time(averages: Sequence[Any]) -> list[Any]:
    """The forty that took the card longest."""
    return sorted(averages, key=lambda one: -one.device_time_total)[:40]


def other(module: str, *words: str, of: Sequence[str] = (), **variables: str) -> Callable[[Sitting], dict[str, Any]]:
    """Another benchmark of this folder on bases that are shared, with these environment variables: what it printed, and its exit
    status."""

    def told(sitting: Sitting) -> dict[str, Any]:
        peer = ["--peer", str(sitting.peer), *(["--shim", sitting.shim] if sitting.shim else [])] if sitting.peer else []
        work = sitting.shared(f"{module} {sitting.part}" if variables else module, *of)
        command = [sys.executable, "-m", f"tests.benchmarks.{module}", "--work", str(work), *words]
        command += peer if module == "speed_on_card" else []
        if sitting.tiny:
            return {"command": " ".join(command[1:])}
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
        return {"printed": done.stdout, "status": done.returncode, "said": done.stderr[-1500:] if done.returncode else ""}

    return told


@dataclass(frozen=True)
class Part:
    """What one process does, and the seconds at which it is stopped."""

    do: Callable[[Sitting], dict[str, Any]]
    limit: float


def memory(*rows: str, of: Sequence[str], **variables: str) -> Part:
    """Rows of the table of predicted and measured memory."""
    return Part(other("memory_on_card", *(word for row in rows for word in ("--row", row)), of=of, **variables), 240)


def speed(case: str, *, of: str, limit: float = 240) -> Part:
    """A row of the table of steps a second."""
    return Part(other("speed_on_card", "--rounds", "1", "--case", case, of=[of]), limit)


# One stage after the other; within a stage, side by side.
STAGES: tuple[dict[str, Part], ...] = (
    {
        "bases": Part(bases("sd15", "sdxl", "sd21"), 150),
        "bases-klein": Part(bases("klein"), 150),
        "bases-z-image": Part(bases("z-image"), 150),
        "lean-kernel": Part(lean_kernel, 120),
    },
    {
        "decode": Part(other("decoding", of=["sdxl"]), 60),
        "decode-growing": Part(other("decoding", of=["sdxl"], PYTORCH_ALLOC_CONF="expandable_segments:True"), 60),
    },
    {
        "memory-klein-12": memory("FLUX.2 klein, 12 GB", of=["klein"]),
        "memory-z-image-8": memory("Z-Image, 8 GB", of=["z-image"]),
        "memory-tight-sdxl": memory("SDXL LoRA, UNet only, 1024, tight", of=["sdxl"]),
    },
    {
        "memory-klein": memory("FLUX.2 klein, 8 GB", of=["klein"]),
        "memory-z-image": memory("Z-Image, 12 GB", of=["z-image"]),
        "memory-tight": memory("SD 1.5 full + text encoder, 512, tight", of=["sd15"]),
        "doctor": Part(doctor("sd15"), 240),
    },
    {"profile-sd15": Part(profile("sd15", method="full", train_text_encoder=False), 120)},
    {"flow-whole-card": memory("FLUX.2 klein, 70 GB", "Z-Image, 70 GB", of=["klein", "z-image"])},
    {"speed-sdxl-lora": speed("SDXL LoRA, 1024 px, 1+1", of="sdxl")},
    {
        "memory-12": memory("SD 2.1 full + text encoder, 768", of=["sd21"]),
        "memory-16": memory("SDXL full + both text encoders, 1024", of=["sdxl"]),
        "doctor-klein": Part(doctor("klein"), 240),
    },
    {
        "sd15": Part(story("sd15", "--method", "full"), 240),
        "sdxl-lora": Part(story("sdxl", "--method", "lora"), 240),
        "verify-resume": Part(verified, 240),
        "fidelity-card": Part(fidelity(on_card=True), 240),
    },
    {"speed-sd15": speed("SD 1.5, 512 px, 1+1", of="sd15")},
    {"memory-8": memory("SD 1.5 full + text encoder, 512", "SDXL LoRA, UNet only, 1024", of=["sd15", "sdxl"])},
    {
        "memory-8-fixed": memory(
            *("SD 1.5 full + text encoder, 512", "SDXL LoRA, UNet only, 1024"),
            of=["sd15", "sdxl"],
            PYTORCH_ALLOC_CONF="expandable_segments:False",
        )
    },
    {"speed-1000": speed("SD 1.5, 512 px, 1+1, 1,000 steps", of="sd15")},
    {"speed-sdxl": speed("SDXL, 1024 px, 1+1", of="sdxl")},
    {"speed-sd15-16": speed("SD 1.5, 512 px, 16+16", of="sd15")},
    {"speed-sdxl-lora-alone": speed("SDXL LoRA, 1024 px, 1", of="sdxl")},
    {"speed-sdxl-alone": speed("SDXL, 1024 px, 1", of="sdxl")},
    {"profile-sdxl": Part(profile("sdxl", method="lora"), 120)},
    {"speed-sd15-again": speed("SD 1.5, 512 px, 1+1", of="sd15")},
    {"fidelity-cpu": Part(fidelity(on_card=False), 900)},
)
PARTS = {name: part for stage in STAGES for name, part in stage.items()}


def run(name: str, sitting: Sitting, ends: float) -> None:
    """Do one part in a process of its own and keep its result."""
    words = [sys.executable, "-m", "tests.benchmarks.card", "--work", str(sitting.work), "--do", name]
    words += ["--peer", str(sitting.peer)] if sitting.peer else []
    words += ["--shim", sitting.shim] if sitting.shim else []
    began = time.monotonic()
    limit = min(PARTS[name].limit, ends - began)
    with (sitting.work / f"{name}.txt").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            [*words, *(["--tiny"] if sitting.tiny else [])],
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            how = "done" if process.wait(limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            how = "stopped"
    shutil.rmtree(replace(sitting, part=name).home, ignore_errors=True)
    print(f"{name}: {how} in {time.monotonic() - began:.0f} s", flush=True)


def do(name: str, sitting: Sitting) -> None:
    """One part, in this process."""
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    kept = {
        "on": f"{datetime.now(UTC):%Y-%m-%d}: {where}, {os.cpu_count()} processor cores; {machine()}",
        "result": PARTS[name].do(replace(sitting, part=name)),
    }
    (sitting.work / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def write(work: Path) -> None:
    """The kept results as a page."""
    lines = ["# On a card", "", "Written by `python -m tests.benchmarks.card --write`: each part as it was kept.", ""]
    for name in PARTS:
        if not (kept := work / f"{name}.json").exists():
            lines += [f"## {name}", "", "Not done yet.", ""]
            continue
        part = json.loads(kept.read_text(encoding="utf-8"))
        told = part["result"].pop("printed", None) or json.dumps(part["result"], indent=1)
        text = re.sub(re.escape(str(work)), "FOLDER", told)
        lines += [f"## {name}", "", part["on"], "", *([text] if text.startswith("|") else ["```", text.rstrip(), "```"]), ""]
    TABLE.write_text("\n".join(lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is not kept yet. Returns 1 where a part failed or there was no time for it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.card")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer", type=Path, help="diffusers' examples/dreambooth")
    parser.add_argument("--shim", help="the peer's PYTHONPATH")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--one-by-one", action="store_true", help="for a driver that can't tell processes apart")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="tiny bases: the script itself is tried")
    parser.add_argument("--do", choices=PARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    sitting = Sitting(asked.work.resolve(), asked.peer, asked.shim, asked.tiny)
    sitting.work.mkdir(parents=True, exist_ok=True)
    if asked.do:
        do(asked.do, sitting)
        return 0
    ends = time.monotonic() + asked.minutes * 60
    wanted = asked.only or list(PARTS)
    for stage in STAGES:
        names = [name for name in stage if name in wanted and not (sitting.work / f"{name}.json").exists()]
        if names and time.monotonic() + SHORTEST > ends:
            print(f"no time left for {', '.join(names)}")
            continue
        with ThreadPoolExecutor(1 if asked.one_by_one else None) as beside:
            for done in [beside.submit(run, name, sitting, ends) for name in names]:
                done.result()
    if asked.write:
        write(sitting.work)
    return int(not all((sitting.work / f"{name}.json").exists() for name in wanted))


if __name__ == "__main__":
    sys.exit(main())
