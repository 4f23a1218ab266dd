"""Settings -> flags: a command gets one keyword parameter for each setting, with the field's own help and default."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import typer

from ..errors import DreamboothError
from ..project import list_projects
from ..settings import (
    RARE,
    GenerateSettings,
    PrepSettings,
    Settings,
    SubjectSettings,
    TrainSettings,
    annotation,
    flag_of,
    parse_value,
    scalar_of,
)
from .help import metavar_of, show_all
from .lines import begin

# What was typed: stage -> setting -> value; settings that were not typed are absent.
Flags = Mapping[type[Settings], dict[str, Any]]

STAGES: dict[type[Settings], str] = {
    SubjectSettings: "Subject",
    PrepSettings: "Photos",
    TrainSettings: "Training",
    GenerateSettings: "Pictures",
}


def complete_project(incomplete: str) -> list[str]:
    """Project names for shell completion; none if the projects can't be listed."""
    try:
        return [project.name for project in list_projects() if project.name.startswith(incomplete)]
    except (OSError, DreamboothError):
        return []


ProjectName = Annotated[
    str | None,
    typer.Argument(
        metavar="PROJECT",
        show_default=False,
        autocompletion=complete_project,
        help="A project's name; needed only if there are several.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout, for scripts.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=RARE)]
HelpAll = Annotated[bool, typer.Option("--help-all", help="Show every flag and exit.", callback=show_all, is_eager=True)]
Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing, and accept unusual values.")]


def flag(*names: str, takes: str, help: str, panel: str | None = None) -> Any:
    """A flag without a default to show."""
    return typer.Option(*names, metavar=takes and f"<{takes}>", show_default=False, help=help, rich_help_panel=panel)


def with_flags(
    *owners: type[Settings], only: tuple[str, ...] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of these stages, plus `--debug` and `--help-all`.

    The command gets what was typed as `flags`; `only` limits the settings to these names.
    `--debug` is read by `main`, the only place that prints errors.
    """
    settings = {
        item.name: (owner, item) for owner in owners for item in fields(owner) if only is None or item.name in only
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def call(**values: Any) -> None:
            typed: dict[type[Settings], dict[str, Any]] = {owner: {} for owner in owners}
            for name, (owner, _) in settings.items():
                value = values.pop(name)
                if value is not None:
                    typed[owner][name] = parse_value(owner, name, value) if isinstance(value, str) else value
            del values["debug"], values["help_all"]
            if values.get("json"):
                begin()
            command(**values, **({"flags": typed} if owners else {}))

        own = [item for item in inspect.signature(command).parameters.values() if item.name != "flags"]
        flags = [flag_parameter(owner, item) for owner, item in settings.values()]
        common = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
            for name, kind in (("debug", Debug), ("help_all", HelpAll))
        ]
        parameters = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own] + flags + common
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.settings = settings  # type: ignore[attr-defined]
        return call

    return decorate


def flag_parameter(owner: type[Settings], item: Field[Any]) -> inspect.Parameter:
    """One setting as a parameter for Typer: None if it was not typed."""
    expected = annotation(owner, item.name)
    names = [flag_of(item.name), *(f"--{name}" for name in item.metadata["names"])]
    type_: Any = str
    metavar: str | None = metavar_of(expected)
    if scalar_of(expected) is bool:
        names, type_, metavar = [f"{names[0]}/{flag_of('no_' + item.name)}"], bool, ""
    elif get_origin(expected) is Literal:
        type_ = expected
    elif scalar_of(expected) is Path:
        type_ = Path
    option = typer.Option(
        *names,
        help=item.metadata["help"],
        metavar=metavar,
        show_default=False,
        rich_help_panel=item.metadata["group"] or STAGES[owner],
    )
    return inspect.Parameter(
        item.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[type_ | None, option]
    )
