"""`dreambooth models`: the base models, which of them fit this GPU and how; `pull` fetches one."""

import json as json_
from typing import Annotated

import typer

from .. import gpu as gpus
from ..bases.catalog import CATALOG
from ..errors import UsageError
from ..events import BaseReady
from ..gpu import Gpu
from ..memory.survey import NO_GPU, details, ledger_lines, recommended, row_of, survey, to_json
from .console import results, say
from .options import Json, with_flags
from .start import loading
from .views import follow, format_models, format_pairs, open_view


def complete_model(incomplete: str) -> list[str]:
    """The catalogue's names, for shell completion."""
    return [name for name in ("pull", *(entry.name for entry in CATALOG)) if name.startswith(incomplete)]


@with_flags()
def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            show_default=False,
            autocompletion=complete_model,
            help="Show all about one base model; with pull before it, fetch it.",
        ),
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(
            "--gpu-memory", metavar="<GB>", show_default=False, help="Plan for a card sold with this much memory."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the base models, what training each would need on this GPU, and whether it fits.

    Examples:
      dreambooth models
      dreambooth models --gpu-memory 8
      dreambooth models pull sd15
    """
    match names or []:
        case []:
            show_all(find_or_sold(gpu_memory), json=json)
        case ["pull", name]:
            pull(name, json=json)
        case ["pull"]:
            raise UsageError("pull what?", f"name a base model: dreambooth models pull {CATALOG[0].name}")
        case [name]:
            show_one(name, find_or_sold(gpu_memory), json=json)
        case several:
            raise UsageError(f"models takes one name, not {len(several)}", "to fetch a base model: dreambooth models pull NAME")


def find_or_sold(gigabytes: float | None) -> Gpu | None:
    """The GPU of this machine, or an imagined one sold with this many GB. Raises UsageError."""
    if gigabytes is None:
        return gpus.find_gpu()
    if not 0 < gigabytes < 10_000:
        raise UsageError(
            f"--gpu-memory can't be {gigabytes:g}", "give the GB that the card is sold with: --gpu-memory 12"
        )
    return gpus.sold_as(gigabytes)


def show_all(gpu: Gpu | None, *, json: bool) -> None:
    """Print the table, or the one JSON document."""
    rows = survey(gpu)
    if json:
        print(json_.dumps(to_json(rows, gpu)))
        return
    console = results()
    say(console, f"GPU: {gpus.describe(gpu)}\n")
    console.print(format_models(rows))
    first = f"{NO_GPU}\nFor a first try: dreambooth demo." if gpu is None else f"For a first try: {recommended(rows).entry.name}."
    say(console, f"\n{first} More about one: dreambooth models NAME")


def show_one(name: str, gpu: Gpu | None, *, json: bool) -> None:
    """Print one base model in full. Raises ModelUnavailable."""
    row = row_of(name, gpu)
    if json:
        print(json_.dumps(to_json([row], gpu)))
        return
    console = results()
    say(console, format_pairs([("GPU", gpus.describe(gpu)), *details(row).items()]))
    if gpu is not None:
        say(console, "\nMemory of a run:\n" + format_pairs(ledger_lines(row.plan.ledger)))


def pull(name: str, *, json: bool) -> None:
    """Fetch a base model. Raises ModelUnavailable, DiskError."""
    with loading("the downloader"):
        from ..workflows.pull import pull as fetch
    follow(fetch(name), open_view(BaseReady, json=json), kept="run it again to continue the download")
