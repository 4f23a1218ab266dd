"""`dreambooth projects`: list them, show one's runs, find one on disk, remove one."""

import json as json_
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ..config import merge
from ..disk import bytes_in, disk_errors, file_of, reason_of
from ..errors import ProjectError, UsageError
from ..events import GridSaved, PageWritten
from ..inventory import RunFacts, pictures_of, runs_of, throw_away, waste_of, waste_of_cache
from ..inventory import class_images as class_shares
from ..libraries import warned
from ..paths import projects_folder
from ..project import Project, check_is_free, list_projects, open_project, remove_project, unreadable_projects
from ..prompts import check_placeholder
from ..settings import GenerateSettings
from ..text import shortened
from .app import CONTEXT
from .console import can_ask, messages, results, say, visible
from .help import Command, Group
from .options import Flags, Json, Yes, complete_project, with_flags
from .start import loading_torch
from .views import follow, format_bytes, open_view

Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_project, help="A project's name.")]

projects = typer.Typer(
    cls=Group,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings=CONTEXT,
    subcommand_metavar="[list | show NAME | compare NAME --runs 1,2 | clean [NAME] | path NAME | remove NAME]",
)


@projects.callback()
@with_flags()
def list_by_default(ctx: typer.Context, json: Json = False) -> None:
    """List the projects, show one's runs, find one on disk, remove one.

    Examples:
      dreambooth projects list
      dreambooth projects show my-dog
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
def show(name: Name, json: Json = False) -> None:
    """Show a project's runs: base, method, steps, size, verdict, and which steps' weights are kept."""
    project = open_project(name)
    found, damaged = runs_of(project)
    if json:
        print(json_.dumps({"project": project.name, "runs": [run.told() for run in found]}))
        return
    say(results(), format_project(describe(project)))
    if found:
        results().print(format_runs(found))
    for line in format_shares(project):
        say(results(), line)
    for line in damaged:
        say(messages(), f"warning: {line}", "yellow")


@projects.command(cls=Command)
@with_flags(GenerateSettings, only=("num_images", "seed", "steps"))
def compare(
    name: Name,
    runs: Annotated[str, typer.Option("--runs", metavar="<1,2,3>", show_default=False, help="Numbers of the runs, with commas between.")],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", metavar="<text>", show_default=False, help="What each run draws; may be repeated.")
    ] = None,
    *,
    flags: Flags,
    json: Json = False,
) -> None:
    """Draw the same prompts from the same seeds with several runs: one sheet, and one page that shows what differs."""
    project = open_project(name)
    chosen = [project.finished_run(number) for number in numbers_in(runs)]
    for text in prompt or []:
        check_placeholder(text)
    settings = merge(GenerateSettings, project.settings()["generate"], flags[GenerateSettings]).values
    with loading_torch():
        from ..workflows.compare import compare as draw
    seen = follow(warned(draw(project, chosen, prompt or [], settings)), open_view(*(() if json else (GridSaved, PageWritten)), json=False))
    if json:
        sheet, page = seen.get(GridSaved), seen.get(PageWritten)
        told = {"sheet": str(sheet.path) if sheet else None, "page": str(page.path) if page else None}
        print(json_.dumps({"project": project.name, "runs": [run.number for run in chosen], **told}))


def numbers_in(words: str) -> list[int]:
    """`1,2,3` as numbers. Raises UsageError."""
    parts = [part for part in re.split(r"[,\s]+", words) if part]
    if len(set(parts)) < 2 or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise UsageError(f"--runs {words} does not name two or more runs", "give their numbers: --runs 1,2,3")
    return list(dict.fromkeys(map(int, parts)))


@projects.command(cls=Command)
@with_flags()
def clean(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", autocompletion=complete_project, help="A project's name; by default, all projects.")
    ] = None,
    images: Annotated[bool, typer.Option("--images", help="Also remove the pictures that generate made.")] = False,
    class_images: Annotated[bool, typer.Option("--class-images", help="Also remove the class images of all projects.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Free disk space: list what can go (optimizer state of finished runs, damaged checkpoints) and its size, ask, then remove it."""
    chosen = [open_project(name)] if name is not None else list_projects()
    found = [waste for project in chosen for waste in waste_of(project, pictures=images)]
    found += waste_of_cache() if class_images else []
    if not json:
        for line in [*(f"{waste.what} ({format_bytes(waste.bytes)})" for waste in found), *format_stays(chosen, images, class_images)]:
            say(messages(), line)
    total = sum(waste.bytes for waste in found)
    for project in chosen if found else ():
        check_is_free(project)
    if found and not yes:
        if json or not can_ask():
            raise UsageError(f"removing {format_bytes(total)} needs your confirmation", "add --yes")
        if not typer.confirm(f"Remove these ({format_bytes(total)})?"):
            raise typer.Exit
    with disk_errors(projects_folder()):
        for waste in found:
            throw_away(waste)
    gone = [{"what": waste.what, "paths": [str(path) for path in waste.paths], "bytes": waste.bytes} for waste in found]
    if json:
        print(json_.dumps({"removed": gone, "bytes": total}))
    else:
        say(messages(), f"freed {format_bytes(total)}" if found else "there is nothing to clean up")


def format_stays(chosen: Sequence[Project], images: bool, class_images: bool) -> list[str]:
    """A line for each kind of file that stays unless its flag is given."""
    pictures = [pictures_of(project) for project in chosen]
    shares = [("pictures", "--images", pictures, images), ("class images of all projects", "--class-images", class_shares(), class_images)]
    lines = []
    for what, flag, found, goes in shares:
        count, size = sum(share.count for share in found), sum(share.bytes for share in found)
        if count and not goes:
            lines.append(f"{what} stay: {count} ({format_bytes(size)}); {flag} removes them too")
    return lines


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
    """Print all projects, or the one JSON document, and why a project can't be read."""
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
    """A project as plain values; if its settings can't be read, without its class prompt."""
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
        "bytes": bytes_in(project.path),
    }


def format_project(facts: Mapping[str, Any]) -> str:
    """`dog  a dog, 2 runs (1 finished), 4.3 GB`."""
    count, finished = len(facts["runs"]), len(facts["finished"])
    runs = f"{count or 'no'} run{'' if count == 1 else 's'}" + (f" ({finished or 'none'} finished)" if finished < count else "")
    prompt = visible(shortened(facts["class_prompt"] or "?"))
    return f"{facts['name']}  {prompt}, {runs}, {format_bytes(facts['bytes'])}"


def format_runs(runs: Sequence[RunFacts]) -> Table:
    """A table of runs, within 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("run", "started", "base", "method"):
        table.add_column(title, no_wrap=title != "base", max_width=16 if title == "base" else None)
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("kept weights: --step")
    table.add_column("verdict")
    for run in runs:
        steps = str(run.steps) if run.finished else f"{run.reached} of {run.steps}"
        kept, verdict = ", ".join(map(str, run.kept)), run.verdict or ("" if run.finished else "not finished")
        date = run.date[:16].replace("T", " ")
        cells = (str(run.number), date, run.base, run.method, steps, format_bytes(run.bytes), kept, verdict)
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table


def format_shares(project: Project) -> list[str]:
    """Lines about a project's pictures and the class images that all projects share."""
    pictures, shared = pictures_of(project), class_shares()
    lines = [f"pictures: {pictures.count} in {pictures.path} ({format_bytes(pictures.bytes)})"] if pictures.count else []
    if count := sum(share.count for share in shared):
        size = format_bytes(sum(share.bytes for share in shared))
        lines.append(f"class images of all projects: {count} in {shared[0].path.parent} ({size})")
    return lines


def confirm_removal(project: Project, *, json: bool) -> None:
    """Ask for confirmation. Raises UsageError if nobody can be asked, typer.Exit if the answer is no."""
    if json or not can_ask():
        raise UsageError(f"removing {project.name} needs your confirmation", "add --yes")
    size = sum(file.lstat().st_size for file in project.path.rglob("*") if file.is_file())
    if not typer.confirm(f"Delete {project.path} with all its photos, runs and pictures ({format_bytes(size)})?"):
        raise typer.Exit
