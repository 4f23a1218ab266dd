"""`train --verify-resume`: does a stopped run continue identically, to the bit, on this machine? Four steps, then the last two again."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

from ..config import Asked
from ..disk import temporary
from ..engine.device import as_torch_has_it
from ..engine.families.loading import forget_failed_attempt
from ..engine.training.checkpoint import load_checkpoint, save_checkpoint
from ..engine.training.loop import Training
from ..engine.training.repeat import NoFixedForm, copied, deterministic, largest_difference, nearly_deterministic
from ..errors import TrainingFailed
from ..events import Events, Noted, PhaseStarted, StepDone, Warned, Yielding
from ..gpu import find_gpu
from ..memory.search import check_fits
from ..project import Project
from .assemble import make_training
from .recipe import Recipe, choose_prompts, gather, plan_for, with_plan

BEFORE, AFTER = 2, 2  # steps before and after the checkpoint


def verify_resume(project: Project, asked: Asked) -> Events:
    """Train a few steps, then the last of them again from a checkpoint, and compare. No run is made.

    Raises TrainingFailed if the two differ and no kernel is known to be the reason.
    """
    asked = asked.with_train(replace(asked.train, steps=max(asked.train.steps, BEFORE + AFTER)))
    without: set[str] = set()
    with project.lock() as unlocked, temporary(project.path) as scratch:
        if unlocked:
            yield Warned(message=unlocked)
        try:
            with deterministic():  # must begin before CUDA starts
                made_of = yield from gather(project, asked)
                plan = plan_for(made_of, as_torch_has_it(find_gpu()))
                check_fits(plan, asked.train)
                recipe = with_plan(made_of, plan, (yield from choose_prompts(made_of)))
                largest, name = yield from stop_and_go_on(recipe, scratch)
        except NoFixedForm as error:
            without.add(str(error))
            forget_failed_attempt()
            yield Noted(message=f"{error} has no form that gives the same bits each time: trying again, allowing that one")
            with nearly_deterministic() as names:
                largest, name = yield from stop_and_go_on(recipe, scratch)
            without |= names
    yield from tell(largest, name, sorted(without))


def stop_and_go_on(recipe: Recipe, scratch: Path) -> Yielding[tuple[float, str]]:
    """Take some steps, save a checkpoint, take some more; then take those again from the checkpoint. Returns the largest difference and
    the name of the tensor it is in."""
    training = yield from make_training(recipe)
    yield from take_steps(training, BEFORE)
    saved = save_checkpoint(scratch, training.state(), keep=1)
    yield from take_steps(training, AFTER)
    expected = copied(training.state())
    del training
    forget_failed_attempt()
    again = yield from make_training(recipe)
    again.load(load_checkpoint(saved))
    yield from take_steps(again, AFTER)
    return largest_difference(again.state(), expected)


def take_steps(training: Training, count: int) -> Events:
    """Take `count` more steps of a training."""
    total = training.settings.steps
    until = training.step + count  # a step's number counts from the run's first
    yield PhaseStarted(name=f"steps {training.step + 1} to {until}", total=until, done=training.step, unit="steps")
    steps = training.steps()
    for step in islice(steps, count):
        yield StepDone(
            step=step.number, steps=total, loss=step.loss, learning_rate=step.learning_rate, seconds=step.seconds
        )
    steps.close()


def tell(largest: float, name: str, without: list[str]) -> Events:
    """Say the result. Raises TrainingFailed if there is a difference that no kernel explains."""
    if not name:
        yield Noted(
            message=f"verified: {BEFORE} + {AFTER} steps with a stop between them give the same as {BEFORE + AFTER} steps, to the bit"
        )
        return
    apart = f"after a stop, {name} differs by up to {largest:.2g}"
    if not without:
        raise TrainingFailed(f"{apart}, and every kernel gives the same bits each time", "please report this as a bug")
    yield Warned(
        message=f"{apart}: these kernels have no form that gives the same bits each time: {', '.join(without)}"
    )
