"""Once through every later phase at true size, before the first class image: what would fail in an hour fails in the first minute.

All of it is thrown away and the base loaded anew, so that a run comes out the same to the bit with a rehearsal and without.
"""

import time
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from ..base import Base
from ..catalog import guidance_of
from ..disk import disk_errors, temporary
from ..engine.checkpoint import load_checkpoint, save_checkpoint
from ..engine.loading import DTYPES, bring_back, forget_failed_attempt, let_go
from ..engine.prior import missing_batches
from ..engine.sampling import Drawing
from ..engine.training import Training, held_memory
from ..events import Events, PhaseStarted, Rehearsed, Yielding
from ..memory import Plan
from ..project import Project, Run
from ..settings import TrainSettings
from .assemble import make_training
from .class_images import class_image_folder, class_images_of
from .deliver import write_model
from .freeze import Asked, Prompts, keep_rehearsed
from .prepare import prepared_photos

T = TypeVar("T")

REHEARSAL = "rehearsal: "  # before the name of a phase
FROM = 50  # steps: a shorter run is a try itself
STEPS = 2  # the first sets up, the second holds all there is
DRAWN = 2  # denoising steps of a picture


def is_rehearsed(settings: TrainSettings) -> bool:
    """Whether a run of these settings is rehearsed."""
    return settings.rehearsal and settings.steps >= FROM


def rehearse(
    run: Run, asked: Asked, base: Base, plan: Plan, prompts: Prompts, project: Project, own_class_images: list[Path]
) -> Events:
    """One batch of class images where some are lacking, one photo encoded, two steps, a checkpoint written and read back, a sample
    where samples are wanted, the finished model written. Raises whatever the phases raise."""
    settings, began = asked.train, time.monotonic()
    photos = [path for path, _ in prepared_photos(project)][:1]
    drawn, lacking = few_class_images(base, plan, settings, prompts, own_class_images)
    small = replace(settings, class_images=max(1, len(drawn) or plan.class_image_batch), class_image_steps=DRAWN)
    small = small if settings.with_prior else settings
    spent: dict[str, float] = {}
    with disk_errors(run.path), temporary(run.path) as scratch:
        scratch.mkdir()
        training = yield from named(
            make_training(small, base, plan, prompts, photos, drawn, cache=scratch / "class-images"), spent
        )
        steps = yield from named(step_and_save(training, scratch), spent)
        if settings.sample_every:
            yield PhaseStarted(name=f"{REHEARSAL}sample")
            draw_sample(training, base, prompts)
        yield PhaseStarted(name=f"{REHEARSAL}saving the model")
        held = held_memory(training.device)
        training.finish()
        training.let_state_go()
        write_model(training, base, scratch / "model")
    del training
    forget_failed_attempt()
    keep_rehearsed(run, held)
    batches = -(-lacking // plan.class_image_batch)
    images = spent.get("class images", 0.0) / DRAWN * settings.class_image_steps * batches if lacking else 0.0
    yield Rehearsed(
        seconds=time.monotonic() - began, expected=images + steps * settings.steps, step_seconds=steps, memory=held
    )


def few_class_images(
    base: Base, plan: Plan, settings: TrainSettings, prompts: Prompts, own: list[Path]
) -> tuple[list[Path], int]:
    """A class image that is there already, if none is to be drawn, and how many are."""
    if not settings.with_prior:
        return [], 0
    folder, _ = class_image_folder(base, plan, settings, prompts)
    wanted = max(0, settings.class_images - len(own))
    lacking = sum(map(len, missing_batches(folder, wanted, plan.class_image_batch)))
    return ([] if lacking else class_images_of(base, plan, settings, prompts, own)[:1]), lacking


def named(events: Yielding[T], spent: dict[str, float]) -> Yielding[T]:
    """Of a phase's events only that it has begun, under the rehearsal's name; `spent` takes up the seconds of each."""
    name, began = "", time.monotonic()
    with closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as done:
                spent[name] = spent.get(name, 0.0) + time.monotonic() - began
                result: T = done.value
                return result
            if isinstance(event, PhaseStarted):
                spent[name] = spent.get(name, 0.0) + time.monotonic() - began
                name, began = event.name, time.monotonic()
                yield PhaseStarted(name=f"{REHEARSAL}{name}")


def step_and_save(training: Training, scratch: Path) -> Yielding[float]:
    """Two steps, then a checkpoint written and read back. Returns the seconds of the second step."""
    yield PhaseStarted(name="training")
    with closing(training.steps()) as steps:
        *_, last = islice(steps, STEPS)
    training.check_finite()
    yield PhaseStarted(name="checkpoint")
    saved = save_checkpoint(scratch / "checkpoints", training.state(), keep=1)
    training.load(load_checkpoint(saved))
    return last.seconds


def draw_sample(training: Training, base: Base, prompts: Prompts) -> None:
    """A picture of the instance prompt."""
    size = training.plan.resolution
    guidance = guidance_of(base.name, base.facts.family)
    brought = bring_back(training.family.pipe, base, dtype=DTYPES["fp32"], device=training.device)
    try:
        drawing = Drawing(steps=DRAWN, guidance_scale=guidance, width=size, height=size)
        training.draw(prompts.instance, training.settings.seed, drawing)
    finally:
        let_go(training.family.pipe, brought)
