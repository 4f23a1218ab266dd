"""`dreambooth prep`: a project's photos turned, cropped and resized."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..base import ask_for_base
from ..config import merge, write_config
from ..errors import ModelUnavailable
from ..events import Events, PhotosPrepared, Warned
from ..project import Project
from ..settings import PrepSettings, SubjectSettings, expanded
from .console import loading
from .options import Flags, Json, ProjectName, choose_project, with_flags
from .views import follow, open_view


@with_flags(PrepSettings)
def prep(
    project: ProjectName = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            "--photos",
            "--instance-data-dir",
            metavar="<path>",
            show_default=False,
            help="Bring the project up to date with this folder first: new photos are copied in, gone ones are left out.",
        ),
    ] = None,
    *,
    flags: Flags,
    json: Json = False,
) -> None:
    """Look a project's photos over, turn, crop and resize them. What you give here is kept in project.toml.

    The originals are never touched. A contact sheet shows what is trained on.
    """
    found = choose_project(project)
    settings = merge(PrepSettings, found.settings()["prep"], flags[PrepSettings]).values
    with loading("Pillow"):
        workflow = load_prepare()
    resolution = resolution_of(found, settings)
    write_config(found.config, {"prep": flags[PrepSettings]})
    events = workflow(found, settings, resolution=resolution, photos=photos)
    follow(events, open_view(PhotosPrepared, json=json), kept="what was prepared before stays")


def resolution_of(project: Project, settings: PrepSettings) -> int:
    """The side of the training pictures. Raises ModelUnavailable where it follows from a base of which nothing is known yet."""
    from ..workflows.plan import choose_resolution, known_facts

    if settings.resolution != "auto":
        return settings.resolution
    request = ask_for_base(merge(SubjectSettings, project.settings()["subject"], {}).values.model)
    facts = known_facts(request)
    if facts is None:
        raise ModelUnavailable(
            f"nothing is known of {request.asked} before it is fetched",
            f"fetch it: dreambooth models pull {request.asked}; or say the size: --resolution 512",
        )
    return choose_resolution(settings, facts)


def load_prepare() -> Callable[..., Events]:
    """The workflow, with the folder brought in first."""
    from ..workflows.initialise import add_photos
    from ..workflows.prepare import prepare

    def workflow(project: Project, settings: Any, *, resolution: int, photos: Path | None) -> Events:
        with project.lock() as unlocked:
            if unlocked:
                yield Warned(message=unlocked)
            if photos is not None:
                yield from add_photos(project, expanded(photos))
            source = photos or project.settings()["subject"].get("photos")
            yield from prepare(project, settings, resolution=resolution, source=source)

    return workflow
