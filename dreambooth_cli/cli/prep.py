"""`dreambooth prep`: turn a project's photos upright, crop and resize them."""

from pathlib import Path
from typing import Annotated

import typer

from ..config import merge, write_config
from ..events import PhotosPrepared
from ..project import choose_project
from ..settings import PrepSettings
from .console import can_ask
from .meant import check_meant
from .options import Flags, Json, ProjectName, Yes, with_flags
from .start import loading
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
            help="Bring the project up to date with this folder first: new photos are copied in, missing ones left out.",
        ),
    ] = None,
    yes: Yes = False,
    *,
    flags: Flags,
    json: Json = False,
) -> None:
    """Check a project's photos, turn them upright, crop and resize them. The originals are never changed.

    These flags are saved in project.toml. A contact sheet shows what will be trained on.

    Examples:
      dreambooth prep my-dog
      dreambooth prep my-dog --crop pad
      dreambooth prep my-dog --photos ./instance_images
    """
    check_meant(flags, insists=yes, asks=can_ask() and not json)
    found = choose_project(project)
    settings = merge(PrepSettings, found.settings()["prep"], flags[PrepSettings]).values
    with loading("Pillow"):
        from ..workflows.initialise import renew
        from ..workflows.plan import sides_of
    resolution, step = sides_of(found, settings)
    write_config(found.config, {"prep": flags[PrepSettings]})
    events = renew(found, settings, resolution=resolution, step=step, photos=photos)
    follow(events, open_view(PhotosPrepared, json=json), kept="what had been prepared is kept")
