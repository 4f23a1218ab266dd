"""`dreambooth generate`: draw pictures of a prompt with a project's model or any other."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..config import merge
from ..errors import UsageError
from ..events import GridSaved, ImageSaved
from ..libraries import warned
from ..paths import expanded
from ..project import Project, choose_project
from ..prompts import class_noun
from ..settings import AUTO, RARE, GenerateSettings
from ..source import Source, check_source, find_source, read_prompts
from .console import can_ask
from .interactive import draw_by_hand
from .meant import check_meant
from .options import Flags, Json, ProjectName, Yes, flag, with_flags
from .start import loading_torch
from .views import follow, open_view


@with_flags(GenerateSettings)
def generate(
    project: ProjectName = None,
    words: Annotated[
        str | None, typer.Argument(metavar="PROMPT", show_default=False, help=r'What to draw: "a \[identifier] dog on the moon".')
    ] = None,
    prompt: Annotated[list[str] | None, flag("--prompt", takes="text", help="The prompt as a flag; may be repeated.")] = None,
    prompts: Annotated[Path | None, flag("--prompts", takes="file", help="A text file with more prompts, one per line.")] = None,
    model_path: Annotated[
        Path | None,
        flag("--model-path", takes="path", help="Draw with this instead of a project: a model's folder, a LoRA file or a run."),
    ] = None,
    run: Annotated[int | None, flag("--run", takes="int", help="Which run; by default, the latest finished one.")] = None,
    step: Annotated[int | None, flag("--step", takes="int", help="Use this step's weights, if they were kept.")] = None,
    identifier: Annotated[
        str | None,
        flag("--identifier", takes="text", help="The subject's rare word, where the model has no dreambooth.json.", panel=RARE),
    ] = None,
    base: Annotated[
        str | None,
        flag("--model", "--model-name", takes="text", help="Base of a LoRA without dreambooth.json, or whose base has moved.", panel=RARE),
    ] = None,
    output_dir: Annotated[
        Path | None, flag("--output-dir", takes="path", help="Where the pictures go; by default, the project's images/, or ./generated.")
    ] = None,
    grid: Annotated[
        bool | None, flag("--grid/--no-grid", takes="", help="Also put all pictures on one sheet; by default, if several.")
    ] = None,
    interactive: Annotated[
        bool, typer.Option("-i", "--interactive", help="Load once, then draw each line typed or read from stdin; :seed 7, :again, :quit.")
    ] = False,
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
    where, asked = understand(project, words, prompt or [], model_path)
    texts = [*asked, *(read_prompts(expanded(prompts)) if prompts is not None else [])]
    if not interactive or texts:
        check_prompts(texts, where)
    path, stored, folder = find_source(where, run, step)
    settings = merge(GenerateSettings, stored, flags[GenerateSettings]).values
    source, place = Source(path, base, identifier, step), expanded(output_dir or folder)
    check_source(source, texts, settings, place)
    with loading_torch():
        from ..workflows.generate import draw_one
        from ..workflows.generate import generate as draw
    if interactive:
        draw_by_hand(source, texts, settings, partial(draw_one, output_dir=place, grid=grid), json=json)
        return
    events = draw(source, texts, settings, output_dir=place, grid=grid)
    results = (ImageSaved, GridSaved) if grid else (ImageSaved,)  # a sheet that nobody asked for is a message, not a result
    follow(warned(events), open_view(*results, json=json), kept="the pictures named above are complete")


def understand(
    project: str | None, words: str | None, prompts: Sequence[str], model_path: Path | None
) -> tuple[Project | Path, list[str]]:
    """The project or path whose model draws, and the prompts. With --model-path, a single argument is the prompt. Raises UsageError,
    ProjectError."""
    name = project
    if words is None and name is not None and (" " in name or (model_path is not None and not prompts)):
        # a lone argument that can't be a project: project names have no spaces
        name, words = None, name
    if model_path is not None and name is not None:
        raise UsageError(f"there are two models: the project {name} and {model_path}", "leave one out")
    if words is not None and prompts:
        raise UsageError("there are two prompts", "repeat --prompt for each, or give a single one as an argument")
    texts = [words] if words is not None else list(prompts)
    return (expanded(model_path) if model_path is not None else choose_project(name)), texts


def check_prompts(texts: Sequence[str], where: Project | Path) -> None:
    """Raises UsageError if there is no prompt, or an empty one; it shows one for the project's own subject."""
    if not texts or not all(text.strip() for text in texts):
        subject = where.settings().get("subject", {}) if isinstance(where, Project) else {}
        noun = class_noun(subject.get("class_prompt", ""), subject.get("identifier", AUTO)) or "dog"
        raise UsageError("the prompt is missing", f'say what to draw: --prompt "a [identifier] {noun} on the moon"')
