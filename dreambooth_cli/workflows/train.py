"""`train`: photos -> a fine-tuned model. Draw class images, encode once, fine-tune; the same command again continues."""

import errno
import json
import time
from contextlib import closing, nullcontext, suppress
from pathlib import Path

from ..bases.base import ask_for_base
from ..config import Asked
from ..disk import bytes_in, check_space, disk_errors
from ..engine.device import bound_memory, held_memory, memory_of, peak_memory_gb, why_slow
from ..engine.images.class_cache import hold_images
from ..engine.training.checkpoint import last_weights, latest_checkpoint, load_weights, prune, save_checkpoint
from ..engine.training.loop import Training
from ..engine.training.repeat import circumstances
from ..errors import DiskError, Interrupted, ProjectError, UsageError
from ..events import (
    CheckpointSaved,
    Events,
    Noted,
    PhaseStarted,
    RunEnded,
    RunOpened,
    StepDone,
    StepsSlowed,
    Warned,
    as_json,
)
from ..identity import is_same_base
from ..judged import due_steps
from ..machine import kept_when_freed
from ..project import Project, clear_up
from ..run import Run
from ..settings import TrainSettings
from .assemble import make_training
from .class_images import class_image_folder, class_images_of
from .deliver import check_output, check_place, deliver, save_model
from .effect import first_answer, loss_now, tell_verdict
from .freeze import IMAGES, as_recipe, find_run, freeze_plan, hold_against_start, shape_of, told_apart
from .judging import conclude
from .mending import mended, restore
from .pace import Pace
from .plan import check_class_folder
from .recipe import Recipe, gather
from .rehearsal import is_rehearsed, rehearse
from .report import generate_line, write_report
from .samples import Samples, announced_every, is_quarter


def train(
    project: Project, asked: Asked, *, output_dir: Path | None = None, restart: bool = False, replan: bool = False
) -> Events:
    """Fine-tune a base model on a project's photos; with the same settings again, continue the same run, or deliver it if it is finished.

    Raises DreamboothError of every kind; after an error inside a step, the run continues from its last checkpoint.
    """
    if asked.subject.class_prompt is None:
        raise UsageError("what is the subject? the class prompt is missing", 'say it: --class-prompt "a dog"')
    began = time.monotonic()
    check_class_folder(asked.train)
    output_dir = check_place(output_dir)
    ask_for_base(asked.subject.model)  # an impossible name is refused before the lock is taken
    clear_up()
    with project.lock() as unlocked:
        if unlocked:
            yield Warned(message=unlocked)
        made_of = yield from gather(project, asked)
        if made_of.base.repository is not None:  # a base in a folder was hashed when it was identified
            yield PhaseStarted(name="identifying the base model")
        shape = shape_of(made_of)
        run = None if restart else find_run(project, made_of, shape)
        if run is not None:
            run.clear_up()
        check_output(output_dir, run)
        if run is not None and run.is_finished:
            yield Noted(message=f"run {run.number} of {project.name} is finished already; --restart starts a new one")
            yield from logged(conclude(run, as_recipe(made_of, run)), run)
            yield from end(project, run, began)
            yield from deliver(run, output_dir, asked.train)
            return
        if run is None and not restart:
            yield from told_apart(project, made_of, shape)
        run, recipe = yield from freeze_plan(project, run, made_of, shape, replan=replan)
        bound_memory(recipe.plan)
        check_disk(run, recipe, output_dir)
        with kept_when_freed() if recipe.plan.device == "cpu" else nullcontext():
            yield from logged(mended(fine_tune, run, recipe), run)
            yield from logged(conclude(run, recipe, time.monotonic() - began), run)
        yield from end(project, run, began)
        yield from deliver(run, output_dir, asked.train)  # ModelSaved is the last event: scripts rely on that


def end(project: Project, run: Run, began: float) -> Events:
    """The end of a run: its page, if there is none yet, and RunEnded. Raises DiskError."""
    if not run.report.exists():
        write_report(project, run)
    record = run.record()
    yield RunEnded(
        number=run.number,
        seconds=time.monotonic() - began,
        bytes=bytes_in(run.path),
        verdict=record.verdict,
        of_class=record.of_class,
        sentences=record.sentences,
        report=run.report,
        command=generate_line(project, run),
    )


def check_disk(run: Run, recipe: Recipe, output_dir: Path | None) -> None:
    """Check that what the run will still write fits on the disks. Raises DiskError."""
    plan = recipe.plan
    images, _ = class_image_folder(recipe)
    wanted = [
        (run.path, plan.disk.get("checkpoints", 0) + plan.disk.get("model", 0) - bytes_in(run.path)),
        (images, plan.disk.get("class images", 0) - bytes_in(images)),
    ]
    if output_dir is not None:
        wanted.append((output_dir, plan.disk.get("model", 0)))
    check_space(wanted)


def logged(events: Events, run: Run) -> Events:
    """The same events, each also written as a line of the run's events.jsonl. Raises DiskError."""
    with disk_errors(run.events):
        if run.events.exists() and not run.events.is_file():
            raise OSError(errno.EINVAL, "it is not a file", str(run.events))
        log = run.events.open("a", encoding="utf-8")
    try:
        with closing(events):
            for event in events:
                with disk_errors(run.events):
                    log.write(json.dumps(as_json(event), ensure_ascii=False) + "\n")
                    log.flush()
                yield event
    finally:
        with suppress(OSError):  # closing tries again to write a line that could not be written
            log.close()


def fine_tune(run: Run, recipe: Recipe) -> Events:
    """The run itself: load, draw class images, encode, train, save; at its first start, a rehearsal comes before."""
    settings, prompts = recipe.settings, recipe.prompts
    a_round = 0.0  # seconds that a round of samples takes
    if is_rehearsed(settings) and latest_checkpoint(run.checkpoints, run.id) is None:
        a_round = yield from rehearse(run, recipe)
    training = yield from make_training(recipe, samples=run.samples)
    before = yield from first_answer(training, recipe)
    yield from take_over(training, run, recipe)
    yield from restore(training, run)
    pictures = hold_images(class_images_of(recipe) if settings.with_prior else [])
    said = {"prompts": training.prompts} if settings.frames == "varied" else {}  # which places the base sees may differ between machines
    yield from hold_against_start(run, training.step, {**circumstances(training.device), IMAGES: pictures, **said})
    yield RunOpened(
        number=run.number,
        path=run.path,
        step=training.step,
        steps=settings.steps,
        instance_prompt=prompts.instance,
        class_prompt=prompts.class_,
        sample_every=announced_every(settings, recipe.plan),
        checkpoint_every=settings.checkpoint_every,
        memory_total=memory_of(training.device),
    )
    samples = Samples(training, run, recipe, seconds=a_round)
    yield from train_steps(training, run, samples)
    training.check_learned()
    training.finish()
    training.let_state_go()
    drawn = yield from samples.at_the_end()
    yield from tell_verdict(training, before, run, recipe, drawn)
    yield PhaseStarted(name="saving the model")
    save_model(training, run, recipe)


def take_over(training: Training, run: Run, recipe: Recipe) -> Events:
    """Start from the weights of the finished run that this one continues, if any. Raises ProjectError, DiskError."""
    former = recipe.asked.continues
    if former is None:
        return
    begun = Run(run.path.with_name(str(former.number)))
    if begun.id != former.id or not is_same_base(recipe.base, begun.record().base.identity):
        raise ProjectError(
            f"run {former.number} was trained on another base, or is another run by now", "see what is there: dreambooth projects show"
        )
    weights = last_weights(begun.checkpoints, former.steps, begun.id)
    if weights is None:
        raise DiskError(f"the weights of run {former.number} are damaged or gone", "begin without --continue")
    training.begin_with(load_weights(weights))
    yield Noted(message=f"it begins with the weights of run {former.number} after step {former.steps}, and with new optimizer state")


def save_state(training: Training, run: Run) -> Path:
    """Save a checkpoint of a run. Raises DiskError."""
    settings = training.settings
    path = save_checkpoint(run.checkpoints, training.state(), keep=None, run=run.id)
    with disk_errors(path):
        prune(run.checkpoints, settings.keep_checkpoints, saved=training.step, outlive=due_steps(settings))
    return path


def train_steps(training: Training, run: Run, samples: Samples) -> Events:
    """The loop with what is due every N steps; left early, it saves where it stands. Raises NotFinite."""
    settings, saved, measured, pace = training.settings, training.step, False, Pace()
    saved_at = time.monotonic()
    yield PhaseStarted(name="training", total=settings.steps, done=training.step, unit="steps")
    try:
        with closing(training.steps()) as steps:
            for step in steps:
                yield StepDone(
                    step=step.number,
                    steps=settings.steps,
                    loss=step.loss,
                    learning_rate=step.learning_rate,
                    seconds=step.seconds,
                    memory_gb=peak_memory_gb(training.device),
                )
                if pace.is_lost(step.seconds):
                    cause = why_slow(training.device)
                    yield StepsSlowed(step=step.number, seconds=step.seconds, usual=pace.usual, cause=cause)
                if not measured:
                    run.write_record(run.record().with_measured(step.number, held_memory(training.device)))
                    measured = True
                    if training.update.remark:
                        yield Warned(message=training.update.remark)
                if is_quarter(settings, step.number):
                    yield loss_now(training, samples.recipe)
                yield from samples.on_the_way(pace.usual)
                late = is_late(settings, time.monotonic() - saved_at)
                if late or is_checkpoint_due(settings, step.number) or step.number == settings.steps:
                    training.check_finite()
                    path = save_state(training, run)
                    saved, saved_at = step.number, time.monotonic()
                    yield CheckpointSaved(step=step.number, path=path)
    except (GeneratorExit, Interrupted):
        # between steps, where the state is whole, so nothing that was done is lost
        if training.step > saved and training.is_good():
            save_state(training, run)
        raise


def is_checkpoint_due(settings: TrainSettings, step: int) -> bool:
    """Whether a checkpoint is due after this step, by --checkpoint-every."""
    return settings.checkpoint_every > 0 and step % settings.checkpoint_every == 0


def is_late(settings: TrainSettings, seconds: float) -> bool:
    """Whether a checkpoint is due by --checkpoint-minutes, so many seconds after the last one."""
    return settings.checkpoint_every > 0 and 0 < settings.checkpoint_minutes * 60 <= seconds
