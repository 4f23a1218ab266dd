"""Whole runs on the fake card: `train` and `generate` as the commands call them, under a plan for a card."""

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from dreambooth_cli.engine.training.checkpoint import load_checkpoint
from dreambooth_cli.engine.training.loop import Training
from dreambooth_cli.events import CheckpointSaved, Event, StepDone
from dreambooth_cli.gpu import Gpu
from dreambooth_cli.memory.plan import Plan
from dreambooth_cli.workflows import plan, recipe
from tests.workflows.projects import start

from .allowed import is_allowed
from .card import PROPERTIES, Card, Wait, fake_card

GPU = Gpu(
    name=PROPERTIES.name, kind="cuda", total=PROPERTIES.total_memory, free=22 * 10**9, capability=(PROPERTIES.major, PROPERTIES.minor)
)
PREVIEW = "peak: preview"
STEP = {"engine/training/loop.py:steps": "step"}
# A run as short as it can be.
SHORT = {"steps": 2, "checkpoint_every": 1, "sample_steps": 1, "class_images": 1, "class_image_steps": 1}


@contextmanager
def a_card_is_here(gpu: Gpu = GPU, *, room_for_samples: bool = True, **means: Any) -> Iterator[Card]:
    """A fake card that the tool finds; plans for it are the tool's own except for these means, and `room_for_samples` beside a step."""
    own = plan.plan_with

    def plan_with(*args: Any, **options: Any) -> Plan:
        made = own(*args, **options)
        ledger = {group: size for group, size in made.ledger.items() if room_for_samples or group != PREVIEW}
        return replace(made, ledger=ledger, **means)

    with ExitStack() as stack:
        card = stack.enter_context(fake_card())
        card.phases = STEP
        stack.enter_context(mock.patch.object(recipe, "plan_with", plan_with))
        for name in ("freeze", "recipe", "mending", "generate"):
            stack.enter_context(mock.patch(f"dreambooth_cli.workflows.{name}.find_gpu", return_value=gpu))
        yield card


def run_on_card(card: Card, project: Any, **flags: Any) -> tuple[list[Event], dict[int, list[Wait]]]:
    """Train to the end; the first checkpoint is read back, and the run goes on from it. Returns the events and the waits inside each
    step."""
    events, waits, known = [], {}, 0
    for event in start(project, **SHORT | flags):
        events.append(event)
        if isinstance(event, StepDone):
            waits[event.step] = [wait for wait in card.waits[known:] if wait.phase == "step"]
            known = len(card.waits)
        if isinstance(event, CheckpointSaved) and event.step == 1:
            (training,) = trainings()
            training.load(load_checkpoint(event.path))
    return events, waits


def trainings() -> list[Training]:
    """The trainings that are under way."""
    return [one for one in gc.get_objects() if type(one) is Training]


def odd_waits(waits: dict[int, list[Wait]]) -> list[Wait]:
    """Those of the waits by step that are not allowed."""
    return [wait for step, found in waits.items() for wait in found if not is_allowed(wait.place, step)]
