"""Settings -> flags: a command gets one keyword parameter for each setting, with the field's own help and default."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import typer
from rich.markup import escape

from ..errors import DreamboothError
from ..project import list_projects
from ..settings import (
    GenerateSettings,
    PrepSettings,
    Settings,
    SubjectSettings,
    TrainSettings,
    annotation,
    choices_of,
    flag_of,
    parse_value,
    scalar_of,
)
from .lines import begin

# What was typed: stage -> setting -> value; a setting that was not typed is not in it.
Flags = Mapping[type[Settings], dict[str, Any]]

STAGES: dict[type[Settings], str] = {
    SubjectSettings: "Subject",
    PrepSettings: "Photos",
    TrainSettings: "Training",
    GenerateSettings: "Pictures",
}
METAVAR_WIDTH = 16  # more choices than fit in this are told in the help


def complete_project(incomplete: str) -> list[str]:
    """Project names for the shell's completion; none where the projects can't be listed."""
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
        help="A project's name; without one, the only project there is.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON alone on stdout, for scripts.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing.")]


def with_flags(
    *owners: type[Settings], only: tuple[str, ...] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of these stages, `--json` and `--debug`.

    The command takes what was typed as `flags`; `only` names the settings where not all of a stage are wanted.
    `--debug` is read by `main`, which alone prints errors.
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
            values.pop("debug")
            if values.get("json"):
                begin()
            command(**values, **({"flags": typed} if owners else {}))

        own = [item for item in inspect.signature(command).parameters.values() if item.name != "flags"]
        flags = [flag_parameter(owner, item) for owner, item in settings.values()]
        common = [inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)]
        parameters = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in own] + flags + common
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return call

    return decorate


def flag_parameter(owner: type[Settings], item: Field[Any]) -> inspect.Parameter:
    """One setting as a parameter that Typer reads: None where it was not typed."""
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
        help=help_of(item, expected),
        metavar=metavar,
        show_default=False,
        rich_help_panel=item.metadata["group"] or STAGES[owner],
    )
    return inspect.Parameter(
        item.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[type_ | None, option]
    )


def metavar_of(expected: Any) -> str:
    """What a flag takes, for its help: `float | auto` -> `<num|auto>`."""
    words: dict[type | None, str] = {int: "int", float: "num", str: "text", Path: "path"}
    taken = "|".join(filter(None, [words.get(scalar_of(expected)), *choices_of(expected)]))
    return f"<{taken}>" if len(taken) <= METAVAR_WIDTH else "<name>"


def help_of(item: Field[Any], expected: Any) -> str:
    """A setting's help with its default, escaped for rich: `[identifier]` must come through."""
    words = escape(item.metadata["help"])
    if metavar_of(expected) == "<name>":
        words += f" One of {', '.join(choices_of(expected))}."
    match item.default:
        case None | "":
            return words
        case bool():
            default = "yes" if item.default else "no"
        case _:
            default = str(item.default)
    return f"{words} [dim]{escape(f'[default: {default}]')}[/dim]"
