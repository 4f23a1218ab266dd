"""`dreambooth train`: a project, or at once a folder of photos and a class prompt, to a fine-tuned model."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from ..base import ask_for_base
from ..card import read_card
from ..catalog import advice_of
from ..config import Asked, Resolved, merge
from ..disk import clear_leftovers, holds_something
from ..errors import Interrupted, UsageError
from ..events import Events, ModelSaved, PlanMade, ProjectSaved, RunOpened, Warned
from ..libraries import warn_of_untried
from ..project import ANOTHER_PLACE, Project, Run, check_model_place, find_project, unreadable_projects
from ..prompts import check_class_prompt, class_noun
from ..settings import PrepSettings, SubjectSettings, TrainSettings, expanded, real_path
from .console import can_ask, loading_torch, results, say
from .options import Flags, Json, ProjectName, choose_project, with_flags
from .views import JsonLines, follow, format_plan, open_view

DIRECT_OUTPUT = Path("output")


@dataclass
class Call:
    """What one call of `train` means. `project` is None where the photos have no project yet; `passed_over` says then which ones
    can't be read. `run` is known once it begins."""

    project: Project | None
    photos: Path | None
    subject: Resolved[SubjectSettings]
    prep: Resolved[PrepSettings]
    train: Resolved[TrainSettings]
    output_dir: Path | None
    restart: bool
    replan: bool
    passed_over: list[str]
    run: Run | None = field(default=None)


@with_flags(SubjectSettings, PrepSettings, TrainSettings)
def train(
    project: ProjectName = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            metavar="<path>",
            show_default=False,
            help="Put the finished model here as well. Without a PROJECT: ./output.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, what takes the memory, and stop.")
    ] = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart/--resume",
            show_default=False,
            help="Begin another run, or go on with the one these settings mean (the default).",
        ),
    ] = False,
    replan: Annotated[
        bool, typer.Option("--replan", help="Go on under a new plan, where the run's own no longer fits the memory.")
    ] = False,
    verify_resume: Annotated[
        bool,
        typer.Option(
            "--verify-resume", help="Try in a few steps whether a stopped run goes on exactly here, and stop."
        ),
    ] = False,
    *,
    flags: Flags,
    json: Json = False,
) -> None:
    """Fine-tune a base model on a project's photos. Ctrl-C saves; the same command again goes on.

    Or at once, without init: train --photos DIR --class-prompt "a dog".

    Flags hold for this call. What shapes the weights names the run: change
    that, and it is another run.
    """
    call = understand(project, flags, output_dir, restart=restart, replan=replan, asks=can_ask() and not json)
    if dry_run:
        show_plan(call, json=json)
        return
    check_output(call.output_dir, call.project)
    with loading_torch():
        workflow = load_training(verify_resume=verify_resume)
    try:
        follow(workflow(call), open_view(ModelSaved, json=json))
    except Interrupted as stop:
        raise type(stop)(f"{stop.message}; {what_was_saved(call)}", "run the same command again to go on") from stop


def understand(
    name: str | None, flags: Flags, output_dir: Path | None, *, restart: bool, replan: bool, asks: bool = False
) -> Call:
    """What was typed, held against the project it means. Raises UsageError, ProjectError, ModelUnavailable."""
    typed = dict(flags[SubjectSettings])
    photos = typed.get("photos")
    if photos is not None:
        photos = typed["photos"] = real_path(photos)
    if name is not None and photos is not None:
        raise UsageError(
            f"project {name} has photos of its own", f"bring others in: dreambooth prep {name} --photos {photos}"
        )
    if name is None and photos is None and "class_prompt" in typed:
        raise UsageError("where are the photos?", "name their folder: --photos ./instance_images, or name a project")
    if photos is not None and "class_prompt" not in typed:
        raise UsageError("what is in the photos? the class prompt is missing", 'say it: --class-prompt "a dog"')
    passed_over: list[str] = []
    if photos is None:
        found: Project | None = choose_project(name)
    else:
        subject = SubjectSettings(**typed)  # before it is looked for: a wrong value is told first
        wanted = subject.class_prompt or ""
        found = find_project(photos, class_noun(wanted, subject.identifier), class_prompt=wanted)
        passed_over = unreadable_projects() if found is None else []
        output_dir = output_dir or DIRECT_OUTPUT
    stored = found.settings() if found else {"subject": {}, "prep": {}, "train": {}}
    subject_settings = merge(SubjectSettings, stored["subject"], typed)
    advised = advice_of(subject_settings.values.model, "train")
    settings = merge(TrainSettings, stored["train"], flags[TrainSettings], advised=advised)
    clear = clear_prompt(found, subject_settings.values, settings.values, asks=asks)
    if clear != subject_settings.values.class_prompt:
        subject_settings = merge(SubjectSettings, stored["subject"], typed | {"class_prompt": clear})
    call = Call(
        found,
        photos,
        subject_settings,
        merge(PrepSettings, stored["prep"], flags[PrepSettings]),
        settings,
        expanded(output_dir) if output_dir else None,
        restart,
        replan,
        passed_over,
    )
    ask_for_base(call.subject.values.model)
    return call


def clear_prompt(project: Project | None, subject: SubjectSettings, settings: TrainSettings, *, asks: bool) -> str:
    """The class prompt; where it is not certain what its subject is, what is answered. Raises UsageError where nobody is asked.

    A run that has begun under it goes on with the prompts that it has.
    """
    wanted = subject.class_prompt or ""
    try:
        check_class_prompt(wanted, subject.identifier, with_class_images=settings.with_prior)
    except UsageError:
        if project is not None and project.has_run_of(wanted):
            return wanted
        if not asks:
            raise
        try:
            return load_question()(wanted, subject.identifier, with_class_images=settings.with_prior)
        except (KeyboardInterrupt, EOFError) as stop:
            raise Interrupted("nothing was begun") from stop
    return wanted


def load_question() -> Callable[..., str]:
    """The interview's question about a class prompt in doubt; questionary comes with it."""
    from .wizard import make_clear

    return make_clear


def check_output(folder: Path | None, project: Project | None) -> None:
    """Refuse, before any work, a folder that can't be a model of ours, whole or in part. Raises UsageError."""
    if folder is None:
        return
    runs = project.runs() if project is not None else []
    if folder.is_dir() or not folder.exists():
        check_model_place(folder)
        clear_leftovers(folder)
        if not folder.exists() or not holds_something(folder) or read_card(folder) is not None:
            return
    if not folder.is_dir() or not any(run.has_part_at(folder) for run in runs):
        raise UsageError(f"{folder} exists and is not this run's model", ANOTHER_PLACE)


def show_plan(call: Call, *, json: bool) -> None:
    """Print how the run would be done; nothing is written. Raises DoesNotFit, ModelUnavailable."""
    from ..gpu import find_gpu
    from ..memory import check_fits
    from ..workflows.plan import plan_run

    plan = plan_run(call.subject.values.model, call.prep.values, call.train.values, gpu=find_gpu())
    if json:
        JsonLines().show(PlanMade(plan=plan.to_json()))
    else:
        say(results(), format_plan(plan.to_json()))
    check_fits(plan, call.train.values)


def what_was_saved(call: Call) -> str:
    """In words, after the run was stopped."""
    from ..workflows.mending import saved_words

    return saved_words(call.run) if call.run else "training had not begun; what is made so far is kept"


def load_training(*, verify_resume: bool) -> Callable[[Call], Events]:
    """The workflow; in the direct form the project is made first, or brought up to date with its folder."""
    from ..workflows.initialise import add_photos, initialise
    from ..workflows.train import train as fine_tune
    from ..workflows.verify import verify_resume as verify

    def workflow(call: Call) -> Events:
        yield from warn_of_untried()
        project = call.project
        for line in call.passed_over:
            yield Warned(message=line)
        if project is None:
            for event in initialise(None, subject=call.subject.values, prep={}, train={}):
                if isinstance(event, ProjectSaved):
                    project = Project(event.path)
                yield event
        elif call.photos is not None:
            with project.lock():
                yield from add_photos(project, call.photos)
        assert project is not None
        if verify_resume:
            yield from verify(project, Asked(call.subject, call.prep, call.train))
            return
        run = fine_tune(
            project,
            Asked(call.subject, call.prep, call.train),
            output_dir=call.output_dir,
            restart=call.restart,
            replan=call.replan,
        )
        with closing(run):
            for event in run:
                if isinstance(event, RunOpened):
                    call.run = Run(event.path)
                yield event

    return workflow
