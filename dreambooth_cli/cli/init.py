"""`dreambooth init`: make a project, by an interview or from flags."""

from collections.abc import Callable
from typing import Annotated

import typer

from ..base import ask_for_base
from ..errors import UsageError
from ..events import Events, ProjectSaved
from ..gpu import find_gpu
from ..project import check_new_name
from ..settings import PrepSettings, SubjectSettings, TrainSettings
from .console import can_ask, loading, messages, say
from .options import Flags, Json, Yes, with_flags
from .views import follow, open_view

ASKED = ("photos", "class_prompt", "identifier", "model", "resolution", "crop", "method", "steps")


@with_flags(SubjectSettings, PrepSettings, TrainSettings, only=ASKED)
def init(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", show_default=False, help="The project's name; else the class noun.")
    ] = None,
    yes: Yes = False,
    *,
    flags: Flags,
    json: Json = False,
) -> None:
    """Make a project: asks for what the flags do not say. The photos are copied in; yours are never touched.

    With --yes, --json or without a terminal nothing is asked.
    """
    if name is not None:
        check_new_name(name)
    subject, prep, train = flags[SubjectSettings], flags[PrepSettings], flags[TrainSettings]
    if "photos" in subject:
        subject["photos"] = subject["photos"].expanduser().resolve()
    check(subject, prep, train)
    asks = can_ask() and not yes and not json
    if asks:
        interview = load_wizard()
        answers = interview(name, flags, find_gpu())
        name, subject, prep, train = answers.name, answers.subject, answers.prep, answers.train
    else:
        require(subject)
    with loading("Pillow"):
        initialise = load_initialise()
    follow(initialise(name, subject=subject, prep=prep, train=train), open_view(ProjectSaved, json=json))
