"""`dreambooth init`: make a project, by an interview or from flags."""

from dataclasses import fields
from typing import Annotated, Any

import typer

from ..bases.base import ask_for_base
from ..bases.catalog import find_entry
from ..errors import UsageError
from ..events import ProjectSaved
from ..gpu import find_gpu
from ..paths import real_path
from ..project import check_new_name
from ..prompts import class_noun, oddity_line
from ..settings import PrepSettings, SubjectSettings, TrainSettings
from .console import can_ask, messages, say
from .meant import check_meant
from .options import Flags, Json, Yes, with_flags
from .start import loading
from .views import follow, open_view

# the settings that have a question, and those of preparing photos
ASKED = tuple(
    item.name
    for owner in (SubjectSettings, PrepSettings, TrainSettings)
    for item in fields(owner)
    if owner is PrepSettings or item.metadata["ask"]
)


@with_flags(SubjectSettings, PrepSettings, TrainSettings, only=ASKED)
def init(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="The project's name; by default, the class noun.")
    ] = None,
    yes: Yes = False,
    example: Annotated[
        bool,
        typer.Option("--example", help="Use the built-in example, five drawn pictures of a dog; asks nothing."),
    ] = False,
    *,
    flags: Flags,
    json: Json = False,
) -> None:
    """Make a project; asks for what the flags leave open. Your photos are copied, never changed.

    With --yes, with --json or without a terminal, nothing is asked.

    Examples:
      dreambooth init
      dreambooth init --photos ./instance_images --class-prompt "a dog" --yes
      dreambooth init demo --example
    """
    if name is not None:
        check_new_name(name)
    subject, prep, train = flags[SubjectSettings], flags[PrepSettings], flags[TrainSettings]
    if example:
        subject |= choose_example(subject)
    if "photos" in subject:
        subject["photos"] = real_path(subject["photos"])
    check(subject, prep, train)
    check_meant(flags, insists=yes, asks=can_ask() and not json and not example)
    asks = can_ask() and not yes and not json and not example
    only: frozenset[str] | None = None
    if asks:
        answers = ask(name, flags)
        if answers is None:
            run_demo()
            return
        name, subject, prep, train, only = answers.name, answers.subject, answers.prep, answers.train, answers.only
    else:
        require(subject)
    with loading("Pillow"):
        from ..workflows.initialise import initialise
    warnings = () if asks else warnings_about(SubjectSettings(**subject))
    events = initialise(name, subject=SubjectSettings(**subject), prep=prep, train=train, only=only, warnings=warnings)
    made = follow(events, open_view(ProjectSaved, json=json), kept="nothing was made").get(ProjectSaved)
    if not json and made is not None:
        say(messages(), f"next: dreambooth prep {made.name}, and look at its contact sheet; then dreambooth train {made.name}")


def warnings_about(subject: SubjectSettings) -> list[str]:
    """What the interview would ask about again: an odd class prompt, and a subject that the base has never seen."""
    prompt, entry = subject.class_prompt or "", find_entry(subject.model)
    unseen = entry.unseen_line(class_noun(prompt, subject.identifier)) if entry is not None else ""
    return list(filter(None, [oddity_line(prompt, subject.identifier), unseen]))


def ask(name: str | None, flags: Flags) -> Any:
    """The answers of the interview, imported only here because questionary comes with it."""
    from .wizard import interview

    return interview(name, flags, find_gpu())


def run_demo() -> None:
    """Run the demo, which the user wants to see first."""
    from .demo import demo

    demo(json=False, debug=False)


def choose_example(subject: dict[str, Any]) -> dict[str, Any]:
    """The settings of the built-in example, together with what was typed. Raises UsageError, DiskError."""
    from ..workflows.example import CLASS_PROMPT, draw_example

    if "photos" in subject or "class_prompt" in subject:
        raise UsageError(
            "--example brings its own photos", "leave out --photos and --class-prompt, or leave out --example"
        )
    return {"model": "pocket", **subject, "photos": draw_example(), "class_prompt": CLASS_PROMPT}


def check(subject: dict[str, Any], prep: dict[str, Any], train: dict[str, Any]) -> None:
    """Check what was typed against the settings' bounds, before any question is asked. Raises UsageError, ModelUnavailable."""
    settings = SubjectSettings(**subject)
    PrepSettings(**prep)
    TrainSettings(**train)
    ask_for_base(settings.model)


def require(subject: dict[str, Any]) -> None:
    """Require flags for the two answers that have no default, where nothing is asked. Raises UsageError."""
    if "photos" not in subject:
        raise UsageError("where are the photos?", "name their folder: --photos ./instance_images")
    if "class_prompt" not in subject:
        raise UsageError("what is in the photos? the class prompt is missing", 'say it: --class-prompt "a dog"')
