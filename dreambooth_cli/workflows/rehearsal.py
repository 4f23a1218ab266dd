"""A rehearsal: every later phase once at true size, before the first class image, so that what would fail in an hour fails in the first
minute.

All of it is thrown away and the base is loaded anew, so that a run gives the same result, to the bit, with and without a rehearsal.
"""

import time
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from ..disk import disk_errors, temporary
from ..engine.device import held_memory
from ..engine.families.loading import forget_failed_attempt
from ..engine.images.class_cache import missing_batches
from ..engine.training.checkpoint import load_checkpoint, save_checkpoint
from ..engine.training.loop import Training
from ..events import PhaseStarted, Rehearsed, Yielding
from ..run import Run
from ..settings import TrainSettings
from .assemble import make_training
from .class_images import class_image_folder, class_images_of
from .deliver import write_model
from .recipe import Recipe
from .samples import ROUNDS, sample_prompts, takes_too_much
from .samples import drawn as drawn_samples

T = TypeVar("T")

REHEARSAL = "rehearsal: "  # before the name of a phase
FROM = 50  # steps: a shorter run is not worth a rehearsal
STEPS = 2  # the first sets everything up, the second shows the full memory and the time
DRAWN = 2  # denoising steps of a picture
WRITTEN = 2**26  # bytes written of each file; room for the rest is only reserved, which is quick and proves as much


def is_rehearsed(settings: TrainSettings) -> bool:
    """Whether a run of these settings is rehearsed."""
    return settings.rehearsal and settings.steps >= FROM


def rehearse(run: Run, recipe: Recipe) -> Yielding[float]:
    """Draw a batch of class images if some are missing, encode the largest photo, take two steps, write a checkpoint and read it back,
    draw a sample if the plan has room for samples during the run, write the finished model. Returns the seconds that a round of samples
    will take, 0 without samples. Raises whatever the phases raise."""
    plan, settings, began = recipe.plan, recipe.settings, time.monotonic()
    drawn, lacking = few_class_images(recipe)
    small = replace(recipe, photos=(max(recipe.photos, key=lambda photo: photo.pixels),), own_class_images=tuple(drawn))
    if settings.with_prior:
        few = max(1, len(drawn) or plan.class_image_batch)
        few_and_quick = replace(settings, class_images=few, class_image_steps=DRAWN)
        small = replace(small, asked=recipe.asked.with_train(few_and_quick))
    spent: dict[str, float] = {}
    with disk_errors(run.path), temporary(run.path) as scratch:
        scratch.mkdir()
        training = yield from named(make_training(small, cache=scratch / "class-images"), spent)
        steps = yield from named(step_and_save(training, scratch), spent)
        round_seconds = 0.0
        if plan.samples_on_the_way:
            yield PhaseStarted(name=f"{REHEARSAL}sample")
            round_seconds = time_samples(training, recipe)
        yield PhaseStarted(name=f"{REHEARSAL}saving the model")
        held = held_memory(training.device)
        training.finish()
        training.let_state_go()
        write_model(training, recipe.base, scratch / "model", at_most=WRITTEN)
    del training
    forget_failed_attempt()
    run.write_record(run.record().with_rehearsed(held))
    batches = -(-lacking // plan.class_image_batch)
    images = spent.get("class images", 0.0) / DRAWN * settings.class_image_steps * batches if lacking else 0.0
    # rounds of samples: the base's own, and those of the run
    rounds = 2 if takes_too_much(round_seconds, steps * settings.steps) else 1 + ROUNDS
    expected = images + steps * settings.steps + rounds * round_seconds
    yield Rehearsed(seconds=time.monotonic() - began, expected=expected, step_seconds=steps, memory=held)
    return round_seconds


def time_samples(training: Training, recipe: Recipe) -> float:
    """Draw a sample with few denoising steps, to see that it works. Returns how long a whole round of samples will take, in seconds."""
    prompt, spent = recipe.prompts.instance, []
    for steps in (DRAWN, DRAWN, 2 * DRAWN):  # the first sets up
        began = time.monotonic()
        list(drawn_samples(training, recipe, [prompt], steps=steps))
        spent.append(time.monotonic() - began)
    (_, short, long), steps = spent, recipe.settings.sample_steps
    # the second estimate is too high, since it counts one-time work at every step; the first is too high if the machine was busy for a
    # moment
    each = min(short + max(0.0, long - short) / DRAWN * (steps - DRAWN), long / (2 * DRAWN) * steps)
    return each * len(sample_prompts(recipe.prompts, recipe.settings.sample_prompt))


def few_class_images(recipe: Recipe) -> tuple[list[Path], int]:
    """One existing class image if none has to be drawn, else none; and how many have to be drawn."""
    settings = recipe.settings
    if not settings.with_prior:
        return [], 0
    folder, _ = class_image_folder(recipe)
    wanted = max(0, settings.class_images - len(recipe.own_class_images))
    lacking = sum(map(len, missing_batches(folder, wanted, recipe.plan.class_image_batch)))
    return ([] if lacking else class_images_of(recipe)[:1]), lacking


def named(events: Yielding[T], spent: dict[str, float]) -> Yielding[T]:
    """Only the beginnings of phases, under the rehearsal's name; the seconds of each phase are added to `spent`."""
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
    """Take two steps, then write a checkpoint and read it back. Returns the seconds of the second step."""
    yield PhaseStarted(name="training")
    with closing(training.steps()) as steps:
        *_, last = islice(steps, STEPS)
    training.check_finite()
    yield PhaseStarted(name="checkpoint")
    held = training.state()
    read = load_checkpoint(save_checkpoint(scratch / "checkpoints", held, keep=1, at_most=WRITTEN))
    training.load(replace(read, weights={**held.weights, **read.weights}, ema={**held.ema, **read.ema}))
    return last.seconds
