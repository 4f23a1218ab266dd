"""What makes a step fast on a CPU: one change at a time compared with our step as it is, in turn, in one process.

    python -m tests.benchmarks.tried [--rounds 7] [--threads 2] [--resolution 256] [--means NAME ...]

Full fine-tuning of the small base in `bases.py`, one instance and one class row, in float32 unless stated. A ratio above 1 says how much
longer a step takes with that change. Compiling is timed separately. The last line is for whole processes: 100 steps on the tiny base.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import torch

from dreambooth_cli.bases.base import Base
from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.bases.fingerprint import identify
from dreambooth_cli.engine.families.latent_diffusion import encode_frozen
from dreambooth_cli.engine.families.loading import load_family
from dreambooth_cli.engine.training.examples import Example, encode_pictures
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.memory.plan import Job, Plan
from dreambooth_cli.memory.search import make_plan
from dreambooth_cli.settings import TrainSettings
from tests.machine import machine

from .bases import make_base
from .speed import CASES, CLASS_IMAGES, PHOTOS, draw_noise, prepare, run_ours

COLLECTOR = "the garbage collector at work while libraries are imported"
COLLECTING = ("-c", "import gc; gc.disable = lambda: None; from dreambooth_cli.cli.app import main; main()")
PROMPTS = ["a photo of a sks dog", "a photo of a dog"]


@dataclass(frozen=True)
class Means:
    """A change: of the plan, of what is built, or of what happens around each step."""

    name: str
    plan: Callable[[Plan], Plan] = lambda plan: plan
    change: Callable[[Training], None] = lambda training: None
    around: Callable[[Training], AbstractContextManager[object]] = lambda training: nullcontext()


def encode_again(training: Training) -> AbstractContextManager[object]:
    """Every step encodes its two pictures, as other trainers do."""
    side, plain = training.plan.resolution, training.batches
    pixels = torch.rand(2, 3, side, side) * 2 - 1

    def encoding(*asked: object) -> object:
        training.family.encode_images(pixels)
        return plain(*asked)  # type: ignore[arg-type]

    return mock.patch.object(training, "batches", encoding)


def embed_again(training: Training) -> AbstractContextManager[object]:
    """Every step runs the frozen text encoder over its two rows."""

    def embedding(kinds: object) -> object:
        return encode_frozen(training.family, PROMPTS)

    return mock.patch.object(training, "encode", embedding)


def with_optimizer(*, foreach: bool) -> Callable[[Training], None]:
    """AdamW of another implementation."""

    def change(training: Training) -> None:
        groups = [{"params": group["params"]} for group in training.update.optimizer.param_groups]
        training.update.optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.01, foreach=foreach)

    return change


def to_channels_last(training: Training) -> None:
    """The UNet's convolutions over channels that lie last."""
    training.family.pipe.unet.to(memory_format=torch.channels_last)


def compile_unet(training: Training) -> None:
    """The UNet through Inductor."""
    training.family.pipe.unet.compile()


MEANS = (
    Means("as it is"),
    Means("as it is, once more"),
    Means("pictures encoded in every step", around=encode_again),
    Means("prompts encoded in every step", around=embed_again),
    Means("instance and class rows one after the other", plan=lambda plan: replace(plan, rows_in_turn=True)),
    Means("AdamW foreach instead of fused", change=with_optimizer(foreach=True)),
    Means("AdamW a tensor at a time", change=with_optimizer(foreach=False)),
    Means("optimizer step inside backward", plan=lambda plan: replace(plan, inside_backward=True)),
    Means("gradients clipped to 1", change=lambda training: setattr(training.update, "max_grad_norm", 1.0)),
    Means("gradient checkpointing", plan=lambda plan: replace(plan, gradient_checkpointing=True)),
    Means("channels last", change=to_channels_last),
    Means("bf16 autocast", plan=lambda plan: replace(plan, precision="bf16")),
    Means("bf16 autocast, channels last", lambda plan: replace(plan, precision="bf16"), to_channels_last),
    Means("torch.compile", change=compile_unet),
)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.tried")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--means", action="append", choices=[*(means.name for means in MEANS), COLLECTOR])
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"{machine()}; {asked.threads} threads; {asked.resolution} px; medians of {asked.rounds} steps\n")
    print("| with | first step | step | ratio |\n|---|---|---|---|")
    with TemporaryDirectory() as folder:
        make_base("small", Path(folder) / "base")
        draw_noise(Path(folder) / "photos", PHOTOS, asked.resolution)
        draw_noise(Path(folder) / "class", CLASS_IMAGES, asked.resolution)
        for means in MEANS[1:]:
            if asked.means is None or means.name in asked.means:
                compare(means, Path(folder), asked.resolution, asked.rounds)
    if asked.means is None or COLLECTOR in asked.means:
        compare_collector(asked.rounds, asked.threads)
    return 0


def compare_collector(rounds: int, threads: int) -> None:
    """Print the row for whole processes with garbage collection from the start, compared with ours, in turn."""
    tiny = next(case for case in CASES if case.whole)
    before, after = [], []
    with TemporaryDirectory() as folder:
        work = prepare(Path(folder), tiny)
        for _ in range(rounds):
            before.append(run_ours(tiny, work, threads).whole)
            after.append(run_ours(tiny, work, threads, COLLECTING).whole)
    took, as_it_is = statistics.median(after), statistics.median(before)
    print(f"| {COLLECTOR} | | {took:.2f} s | {took / as_it_is:.3f} |", flush=True)


def compare(means: Means, folder: Path, resolution: int, rounds: int) -> None:
    """Print one row: the change compared with our step as it is, a step of each in turn."""
    plain, changed = start(MEANS[0], folder, resolution), start(means, folder, resolution)
    first = time_step(changed, means, 0)
    time_step(plain, MEANS[0], 0)
    before, after = [], []
    for number in range(1, rounds + 1):
        before.append(time_step(plain, MEANS[0], number))
        after.append(time_step(changed, means, number))
    took, as_it_is = statistics.median(after), statistics.median(before)
    print(f"| {means.name} | {first:.2f} s | {took:.3f} s | {took / as_it_is:.3f} |", flush=True)


def time_step(training: Training, means: Means, number: int) -> float:
    """Seconds of one step."""
    with means.around(training):
        began = time.perf_counter()
        training.train_step(number)
        return time.perf_counter() - began


def start(means: Means, folder: Path, resolution: int) -> Training:
    """A run with one means."""
    facts = read_facts(folder / "base")
    path = folder / "base"
    base = Base(name="small", path=path, repository=None, identity=identify(path), facts=facts)
    family = load_family(base, dtype=torch.float32, device=torch.device("cpu"))
    settings = TrainSettings(
        steps=1000, learning_rate=5e-6, train_text_encoder=False, precision="fp32", max_grad_norm=0.0
    )
    plan = make_plan(Job(facts, settings, resolution=resolution, gpu=None, has_8bit=False, name="small"))
    folders = {"instance": folder / "photos", "class": folder / "class"}
    examples = {
        kind: [Example(one, (row,)) for one in encode_pictures(family, sorted(place.iterdir()))]
        for row, (kind, place) in enumerate(folders.items())
    }
    training = Training(
        family,
        means.plan(plan),
        settings,
        device=torch.device("cpu"),
        examples=examples,
        prompts=PROMPTS,
        conditioning=encode_frozen(family, PROMPTS),
    )
    means.change(training)
    return training


if __name__ == "__main__":
    sys.exit(main())
