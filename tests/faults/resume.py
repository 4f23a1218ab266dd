"""N steps equal k steps, a stop, and N - k steps, to the bit, for every k and every way to train."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch

from dreambooth_cli.engine.training.checkpoint import load_checkpoint, save_checkpoint
from dreambooth_cli.engine.training.repeat import copied, largest_difference
from dreambooth_cli.settings import Schedule, TrainSettings
from tests import conftest, small_models
from tests.engine.plans import plan_for
from tests.engine.training.test_loop import VARIANTS, start

from .row import Row

STEPS = 6
SCHEDULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    f"schedule {name}": (
        {},
        {"lr_schedule": name, "warmup_steps": 0 if name == "constant" else 2, "gradient_accumulation": 2},
    )
    for name in get_args(Schedule)
}


def try_every_k(name: str, changes: Mapping[str, Any], options: Mapping[str, Any], base: Path, folder: Path) -> Row:
    """One way to train, stopped after each of its steps."""
    plan, settings = plan_for(**changes), TrainSettings(steps=STEPS, **options)
    whole = start(base, settings, plan, folder / "pictures")
    losses = [step.loss for step in whole.steps()]
    expected = copied(whole.state())
    unequal, slowest, remarks = 0, 0.0, list[str]()
    for stop in range(1, STEPS):
        began = time.monotonic()
        first, later = (start(base, settings, plan, folder / "pictures") for _ in range(2))
        steps = first.steps()
        found = [next(steps).loss for _ in range(stop)]
        later.load(load_checkpoint(save_checkpoint(folder / name / str(stop), first.state(), keep=1)))
        found += [step.loss for step in later.steps()]
        apart, tensor = largest_difference(later.state(), expected)
        if tensor or found != losses:
            unequal += 1
            remarks.append(
                f"stopped after {stop}: {tensor} differs by {apart:.2g}"
                if tensor
                else f"stopped after {stop}: other losses"
            )
        slowest = max(slowest, time.monotonic() - began)
    return Row(f"resume: {name}", STEPS - 1, unequal=unequal, slowest=slowest, remarks=remarks)


def rows() -> Iterator[Row]:
    """A line for each way to train."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        for number in range(4):
            conftest.draw_photo(folder / "pictures" / f"{number}.png", (64, 64), seed=number)
        base = small_models.build("sd1", folder / "base")
        for kind, (changes, options) in (VARIANTS | SCHEDULES).items():
            yield try_every_k(kind, changes, options, base, folder)
