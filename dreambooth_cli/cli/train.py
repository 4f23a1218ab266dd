"""`dreambooth train`: from a project, or directly from a photo folder and a class prompt, to a fine-tuned model."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..bases.base import ask_for_base
from ..bases.catalog import find_entry
from ..config import Asked
from ..errors import Interrupted, UsageError
from ..events import Exported, ModelSaved, PlanMade, RunOpened
from ..export_order import ONE_FILE, check_layout, with_export
from ..formats import Format
from ..gpu import find_gpu
from ..libraries import warned
from ..memory.duration import predict, time_line
from ..memory.plan import Plan
from ..memory.search import check_fits
from ..order import Order, check_output, check_prompt, continue_from, understand
from ..project import check_is_free
from ..prompts import class_noun
from ..run import Run
from ..settings import RARE, PrepSettings, SubjectSettings, TrainSettings
from .console import can_ask, results, say
from .meant import check_meant, from_file
from .options import Flags, Json, ProjectName, Yes, with_flags
from .start import loading_torch
from .views import JsonLines, Seen, follow, format_plan, open_view


@with_flags(SubjectSettings, PrepSettings, TrainSettings)
def train(
    project: ProjectName = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", metavar="<path>", show_default=False, help="Also put the finished model here.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its memory, then stop.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart/--resume", show_default=False, help="Start a new run, or continue (the default).")
    ] = False,
    replan: Annotated[
        bool,
        typer.Option("--replan", help="Continue under a new plan if the run's own no longer fits in memory.", rich_help_panel=RARE),
    ] = False,
    verify_resume: Annotated[
        bool,
        typer.Option(
            "--verify-resume",
            help="Check, in a few steps, that a stopped run continues here exactly as if it had never stopped.",
            rich_help_panel=RARE,
        ),
    ] = False,
    continue_: Annotated[
        int | None,
        typer.Option(
            "--continue", metavar="<run>", show_default=False, help="Begin another run, from the weights of this finished one.",
            rich_help_panel=RARE,
        ),
    ] = None,
    export: Annotated[
        Format | None,
        typer.Option("--export", metavar="<name>", show_default=False, help="At the end, also export: see dreambooth export."),
    ] = None,
    yes: Yes = False,
    *,
    flags: Flags,
    json: Json = False,
) -> None:
    """Fine-tune a base model on a project's photos. Ctrl-C saves; the same command again continues.

    Examples:
      dreambooth train my-dog
      dreambooth train my-dog --steps 1500 --method lora
      dreambooth train --photos ./instance_images --class-prompt "a dog"
    """
    asks = can_ask() and not json and not yes
    check_meant(flags, insists=yes, asks=asks)
    order, asked = understand(project, flags, output_dir)
    check_meant(from_file(asked), insists=yes, asks=asks)
    if asks and is_in_doubt(order, asked):
        order, asked = with_answer(order, asked, flags, output_dir)
    check_prompt(order, asked)
    if continue_ is not None:
        asked = continue_from(order.project, asked, continue_)
    if dry_run:
        show_plan(asked, json=json)
        return
    check_output(order.output_dir, order.project, asked, restart=restart)
    if export is not None:
        order = with_export(order, asked, export)
    check_order(order, asked)
    with loading_torch():
        from ..workflows.direct import carry_out, try_resume
    events = try_resume(order, asked) if verify_resume else carry_out(order, asked, restart=restart, replan=replan)
    follow(warned(events), open_view(ModelSaved, Exported, json=json), kept=what_was_saved, again="run the same command again to continue")


def check_order(order: Order, asked: Asked) -> None:
    """Refuse early what can be seen without torch: a project in use, missing photos or class images, a plan that does not fit.
    Raises DreamboothError of several kinds."""
    from ..workflows.initialise import check_photos
    from ..workflows.plan import check_class_folder, known_facts, plan_of_known

    if order.export is not None and (facts := known_facts(ask_for_base(asked.subject.model))) is not None:
        check_layout(order.export, facts.family, is_file=order.export in ONE_FILE)
    if order.project is not None:
        check_is_free(order.project)
    check_class_folder(asked.train)
    if order.photos is not None:
        check_photos(order.photos)
    if order.project is None and (plan := plan_of_known(asked, gpu=find_gpu())) is not None:
        check_fits(plan, asked.train)


def is_in_doubt(order: Order, asked: Asked) -> bool:
    """Whether the class prompt is odd, or its subject is unclear."""
    try:
        check_prompt(order, asked)
    except UsageError:
        return True
    return bool(order.odd)


def with_answer(order: Order, asked: Asked, flags: Flags, output_dir: Path | None) -> tuple[Order, Asked]:
    """The same with the user's answer about the class prompt, which may lead to another project. Raises Interrupted."""
    answer = ask_prompt(asked)
    if order.photos is None:
        return order, asked.with_class_prompt(answer)
    order, asked = understand(None, {**flags, SubjectSettings: {**flags[SubjectSettings], "class_prompt": answer}}, output_dir)
    return replace(order, odd=""), asked


def ask_prompt(asked: Asked) -> str:
    """Ask the interview's question about an odd class prompt; questionary is imported only here. Raises Interrupted."""
    from .wizard import make_clear

    subject, with_prior = asked.subject, asked.train.with_prior
    try:
        return make_clear(subject.class_prompt or "", subject.identifier, with_class_images=with_prior)
    except (KeyboardInterrupt, EOFError) as stop:
        raise Interrupted("nothing was started") from stop


def show_plan(asked: Asked, *, json: bool) -> None:
    """Print how the run would be done; nothing is written. Raises DoesNotFit, ModelUnavailable."""
    from ..workflows.plan import plan_run

    plan = plan_run(asked.subject.model, asked.prep, asked.train, gpu=find_gpu())
    if json:
        JsonLines().show(PlanMade(plan=plan.to_json()))
    else:
        say(results(), format_plan(plan.to_json()))
        say(results(), "\n" + "\n".join(foreseen(asked, plan)))
    check_fits(plan, asked.train)


def foreseen(asked: Asked, plan: Plan) -> list[str]:
    """Lines about how long the run may take, and what its base can't do."""
    from ..workflows.plan import known_facts

    facts, entry = known_facts(ask_for_base(asked.subject.model)), find_entry(asked.subject.model)
    time = time_line(predict(plan, facts, asked.train, find_gpu())) if facts else ""
    unseen = entry.unseen_line(class_noun(asked.subject.class_prompt or "", asked.subject.identifier)) if entry else ""
    return [line for line in (time, unseen or (entry.limits if entry else "")) if line]


def what_was_saved(seen: Seen) -> str:
    """What is on disk after the run was stopped, in words."""
    from ..workflows.mending import saved_words

    opened = seen.get(RunOpened)
    return saved_words(Run(opened.path)) if opened else "training had not begun; what was made so far is kept"
