"""How a run continues: from its newest whole checkpoint, and under another plan if memory ran out or numbers were not finite."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from ..disk import disk_errors
from ..engine.device import as_torch_has_it
from ..engine.families.loading import forget_failed_attempt
from ..engine.refusal import out_of_memory_words
from ..engine.training.checkpoint import (
    ForeignCheckpoint,
    checkpoints,
    last_weights,
    latest_checkpoint,
    load_checkpoint,
    put_aside,
    put_damaged_aside,
)
from ..engine.training.loop import NotFinite, Training
from ..errors import DoesNotFit, TrainingFailed
from ..events import Events, PhaseStarted, Warned
from ..gpu import find_gpu
from ..memory.plan import Plan
from ..memory.search import calm_down, step_down
from ..run import Run
from .class_images import CLASS_IMAGES
from .freeze import MEMORY, NOT_FINITE, keep_change
from .recipe import Recipe
from .rehearsal import REHEARSAL

SMALLER = "the same command with --restart and --method lora or a smaller --resolution"


def mended(attempt: Callable[[Run, Recipe], Events], run: Run, recipe: Recipe) -> Events:
    """Attempt a run until an attempt succeeds, each new one under a changed plan, which is recorded.

    Raises DoesNotFit or TrainingFailed if no further plan is left.
    """
    phase = ""
    while True:
        try:
            with closing(attempt(run, recipe)) as events:
                for event in events:
                    phase = event.name.removeprefix(REHEARSAL) if isinstance(event, PhaseStarted) else phase
                    yield event
            return
        except NotFinite as error:
            further, told = after_not_finite(run, recipe, error)
        except (RuntimeError, MemoryError) as error:
            words = out_of_memory_words(error)
            if words is None:
                raise
            further, told = after_memory_ran_out(run, recipe, words, drawing=phase == CLASS_IMAGES)
        forget_failed_attempt()  # only here: until the `except` ends, the traceback holds on to memory
        yield Warned(message=f"{told}; {saved_words(run)}")
        recipe = replace(recipe, plan=further)


def after_memory_ran_out(run: Run, recipe: Recipe, words: str, *, drawing: bool) -> tuple[Plan, str]:
    """The plan with one more means of saving memory, which is recorded, and what changes, in words. Raises DoesNotFit if there is none
    with which the run's state can still be loaded."""
    plan, gpu = recipe.plan, as_torch_has_it(find_gpu())
    further = step_down(plan, recipe.base.facts, recipe.settings, gpu=gpu, drawing_class_images=drawing)
    if further is None:
        raise DoesNotFit(words, f"close other programs that use it, or start a new run: {SMALLER}; {saved_words(run)}")
    keep_change(run, further, MEMORY, words)
    taken = "class images drawn in parts" if drawing else next(one for one in further.means if one not in plan.means)
    return further, f"{words}; continuing with {taken}"


def after_not_finite(run: Run, recipe: Recipe, error: NotFinite) -> tuple[Plan, str]:
    """A calmer plan, which is recorded, and what changes, in words. Raises TrainingFailed if the run has had one already."""
    if any(change.kind == NOT_FINITE for change in run.record().changes):
        raise TrainingFailed(
            f"{error.message}, for the second time",
            f"start a new run with --restart and a lower --learning-rate; {saved_words(run)}",
        ) from error
    further = calm_down(recipe.plan, recipe.base.facts, recipe.settings, gpu=as_torch_has_it(find_gpu()))
    keep_change(run, further, NOT_FINITE, error.message)
    rate = f"half the learning rate, {further.learning_rate:g}"
    taken = f"{further.precision} instead of fp16" if further.precision != recipe.plan.precision else rate
    return further, f"{error.message}; continuing with {taken}"


def restore(training: Training, run: Run) -> Events:
    """Continue from this run's newest whole checkpoint, if there is one. Raises DiskError."""
    for kept in put_damaged_aside(run.checkpoints, run.id):
        yield Warned(message=f"a checkpoint is damaged and was skipped; it is kept as {kept}")
    last = training.settings.steps
    while (path := last_weights(run.checkpoints, last, run.id) or latest_checkpoint(run.checkpoints, run.id)) is not None:
        try:
            training.load(load_checkpoint(path))
            return
        except ForeignCheckpoint as error:
            with disk_errors(path):
                kept = put_aside(path)
            yield Warned(message=f"{path.name} does not belong to this run and was skipped: {error}; it is kept as {kept}")


def saved_words(run: Run) -> str:
    """What is saved of a run, in words."""
    found = checkpoints(run.checkpoints)
    if not found:
        return "no checkpoint has been saved yet"
    return f"the last good checkpoint is {found[-1]}"
