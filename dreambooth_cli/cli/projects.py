"""`dreambooth projects`: list them, find one on disk, remove one."""

import json as json_
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ..disk import file_of, reason_of
from ..errors import ProjectError, UsageError
from ..paths import projects_folder
from ..project import Project, list_projects, open_project, remove_project, unreadable_projects
from ..text import shortened
from .app import CONTEXT
from .console import can_ask, messages, results, say, visible
from .help import Command, Group
from .options import Json, Yes, complete_project, with_flags
from .views import format_bytes

Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_project, help="A project's name.")]

projects = typer.Typer(
    cls=Group,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings=CONTEXT,
    subcommand_metavar="[list | path NAME | remove NAME]",
)


@projects.callback()
@with_flags()
def list_by_default(ctx: typer.Context, json: Json = False) -> None:
    """List the projects, find one on disk, remove one.

    Examples:
      dreambooth projects list
      dreambooth projects path my-dog
      dreambooth projects remove my-dog
    """
    if ctx.invoked_subcommand is None:
        show_projects(json=json)


@projects.command("list", cls=Command)
@with_flags()
def list_(json: Json = False) -> None:
    """List the projects."""
    show_projects(json=json)


@projects.command(cls=Command)
@with_flags()
def path(name: Name, json: Json = False) -> None:
    """Print where a project is on disk."""
    project = open_project(name)
    print(json_.dumps(describe(project)) if json else project.path)


@projects.command(cls=Command)
@with_flags()
def remove(name: Name, yes: Yes = False, json: Json = False) -> None:
    """Delete a project with its photos, runs and pictures, after asking."""
    project = open_project(name)
    if not yes:
        confirm_removal(project, json=json)
    described = describe(project)
    if remark := remove_project(project):
        say(messages(), f"warning: {remark}", "yellow")
    if json:
        print(json_.dumps({**described, "removed": True}))
    else:
        say(messages(), f"removed {name}")


def show_projects(*, json: bool) -> None:
    """Print all projects, or the one JSON document; of those that can't be read why."""
    found, skipped = [], unreadable_projects()
    for project in list_projects():
        try:
            found.append(describe(project))
        except OSError as error:
            skipped.append(f"project {project.name} can't be read: {file_of(error)}: {reason_of(error)}")
    if json:
        print(json_.dumps({"folder": str(projects_folder()), "projects": found, "skipped": skipped}))
        return
    for facts in found:
        say(results(), format_project(facts))
    for line in skipped:
        say(messages(), f"warning: {line}")
    if not found and not skipped:
        say(messages(), "there is no project yet; make one: dreambooth init")


def describe(project: Project) -> dict[str, Any]:
    """A project as plain values; one whose settings can't be read still has its name and place."""
    try:
        subject = project.settings()["subject"]
    except ProjectError:
        subject = {}
    runs = project.runs()
    return {
        "name": project.name,
        "path": str(project.path),
        "class_prompt": subject.get("class_prompt"),
        "runs": [run.number for run in runs],
        "finished": [run.number for run in runs if run.is_finished],
    }


def format_project(facts: Mapping[str, Any]) -> str:
    """`dog  a dog, 2 runs (1 finished)`."""
    runs = f"{len(facts['runs'])} run{'' if len(facts['runs']) == 1 else 's'}"
    prompt = visible(shortened(facts["class_prompt"] or "?"))
    return f"{facts['name']}  {prompt}, {runs} ({len(facts['finished'])} finished)"


def confirm_removal(project: Project, *, json: bool) -> None:
    """Ask. Raises UsageError where nobody can be asked, typer.Exit where the answer is no."""
    if json or not can_ask():
        raise UsageError(f"removing {project.name} needs a yes", "give it: --yes")
    size = sum(file.lstat().st_size for file in project.path.rglob("*") if file.is_file())
    if not typer.confirm(f"Delete {project.path} with all its photos, runs and pictures ({format_bytes(size)})?"):
        raise typer.Exit
