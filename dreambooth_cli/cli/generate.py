"""`dreambooth generate`: pictures of a prompt, drawn with a project's model or any other."""

from pathlib import Path
from typing import Annotated

import typer

from ..config import merge
from ..errors import UsageError
from ..events import GridSaved, ImageSaved
from ..libraries import warned
from ..order import Source, find_source
from ..paths import expanded
from ..project import Project, choose_project
from ..settings import RARE, GenerateSettings
from .console import can_ask
from .meant import check_meant
from .options import Flags, Json, ProjectName, Yes, with_flags
from .start import loading_torch
from .views import follow, open_view


@with_flags(GenerateSettings)
def generate(
    project: ProjectName = None,
    words: Annotated[
        str | None, typer.Argument(metavar="PROMPT", show_default=False, help=r'What to draw: "a \[identifier] dog on the moon".')
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="<text>", show_default=False, help="The prompt as a flag.")] = None,
    model_path: Annotated[
        Path | None,
        typer.Option(
            "--model-path",
            metavar="<path>",
            show_default=False,
            help="Draw with this, not a project: a model's folder, a LoRA file, a run.",
        ),
    ] = None,
    run: Annotated[
        int | None,
        typer.Option("--run", metavar="<int>", show_default=False, help="Number of the run; without it, the latest finished one."),
    ] = None,
    identifier: Annotated[
        str | None,
        typer.Option(
            "--identifier",
            metavar="<text>",
            show_default=False,
            help="The subject's rare word, where the model has no dreambooth.json.",
            rich_help_panel=RARE,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--model-name",
            metavar="<text>",
            show_default=False,
            help="Base of a LoRA that has no dreambooth.json, or whose base has moved.",
            rich_help_panel=RARE,
        ),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            metavar="<path>",
            show_default=False,
            help="Where the pictures go; without it, the project's images/, or ./generated.",
        ),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also put all pictures on one sheet.")] = False,
    yes: Yes = False,
    *,
    flags: Flags,
    json: Json = False,
) -> None:
    r"""Draw pictures with a fine-tuned model. \[identifier] in the prompt stands for your subject.

    Keep the class noun after it: "a \[identifier] dog". No file is ever overwritten.

    Examples:
      dreambooth generate my-dog "a [identifier] dog on the moon"
      dreambooth generate my-dog "a [identifier] dog, watercolour" --num-images 4
      dreambooth generate --model-path ./output "a [identifier] dog in a bucket"
    """
    check_meant(flags, insists=yes, asks=can_ask() and not json)
    where, text = understand(project, words, prompt, model_path)
    path, stored, folder = find_source(where, run)
    settings = merge(GenerateSettings, stored, flags[GenerateSettings]).values
    with loading_torch():
        from ..workflows.generate import generate as draw
    events = draw(
        Source(path, base, identifier), text, settings, output_dir=expanded(output_dir or folder), grid=grid
    )
    follow(warned(events), open_view(ImageSaved, GridSaved, json=json), kept="the pictures named above are whole")


def understand(
    project: str | None, words: str | None, prompt: str | None, model_path: Path | None
) -> tuple[Project | Path, str]:
    """Whose model draws, and what: with a model's path a single argument is the prompt. Raises UsageError, ProjectError."""
    name = project
    if words is None and prompt is None and name is not None and (model_path is not None or " " in name):
        # a lone argument that can't be a project: no project's name holds a space
        name, words = None, name
    if words is not None and prompt is not None:
        raise UsageError("there are two prompts", "give one: as an argument or with --prompt")
    if model_path is not None and name is not None:
        raise UsageError(f"there are two models: the project {name} and {model_path}", "leave one out")
    text = prompt if prompt is not None else words
    if text is None or not text.strip():
        raise UsageError("the prompt is missing", 'say what to draw: --prompt "a [identifier] dog on the moon"')
    return (expanded(model_path) if model_path is not None else choose_project(name)), text
