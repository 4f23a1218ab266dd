"""`dreambooth export`: write a model in a format that another program reads, and check it before calling it done."""

from pathlib import Path
from typing import Annotated, get_args

from ..errors import UsageError
from ..events import Exported
from ..export_order import Export, Precision, check_format, order_export
from ..formats import Format
from ..libraries import warned
from ..paths import expanded
from ..project import choose_project
from ..settings import RARE
from ..source import Source, find_source
from .options import Json, ProjectName, flag, with_flags
from .start import loading_torch
from .views import follow, open_view


@with_flags()
def export(
    project: ProjectName = None,
    to: Annotated[
        Format | None,
        flag(
            "--to",
            takes="name",
            help="single-file: for ComfyUI, A1111, Forge, InvokeAI. kohya: a LoRA for these. lora: a LoRA for diffusers. "
            "merged: a LoRA baked into its base. diffusers: a folder.",
        ),
    ] = None,
    place: Annotated[Path | None, flag("--output", "-o", takes="path", help="The file or folder to write; nothing is overwritten.")] = None,
    model_path: Annotated[
        Path | None,
        flag("--model-path", takes="path", help="Export this instead of a project: a model's folder, a LoRA file or a run."),
    ] = None,
    run: Annotated[int | None, flag("--run", takes="int", help="Which run; by default, the latest finished one.")] = None,
    step: Annotated[int | None, flag("--step", takes="int", help="Use this step's weights, if they were kept.")] = None,
    dtype: Annotated[
        Precision | None, flag("--dtype", takes="name", help="Number format: fp32, bf16 or fp16; by default, as stored.")
    ] = None,
    strength: Annotated[float | None, flag("--strength", takes="num", help="How strongly to bake the LoRA in; by default, 1.")] = None,
    rank: Annotated[int | None, flag("--rank", takes="int", help="Rank of a LoRA extracted from a full model; by default, 64.")] = None,
    base: Annotated[
        str | None,
        flag(
            "--model",
            "--model-name",
            takes="text",
            help="Base of a LoRA or model that has no dreambooth.json, or whose base has moved.",
            panel=RARE,
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Write a model for another program, read it back and compare.

    A path that ends in .safetensors becomes one file, any other a folder; single-file and kohya are always one file.

    Examples:
      dreambooth export my-dog --to single-file -o my-dog --dtype fp16
      dreambooth export my-dog --to kohya -o my-dog-lora
      dreambooth export my-dog --to merged --strength 0.8 -o ./my-dog
    """
    if to is None:
        raise UsageError("which format? --to is missing", f"say one of: --to {', '.join(get_args(Format))}")
    if place is None:
        raise UsageError("where does it go? -o is missing", "name a file or folder: -o ./my-model")
    if model_path is not None and project is not None:
        raise UsageError(f"there are two models: the project {project} and {model_path}", "leave one out")
    order = order_export(Export(to, expanded(place), dtype, strength, rank))
    path, _, _ = find_source(expanded(model_path) if model_path is not None else choose_project(project), run, step)
    source = Source(path, base, None, step)
    check_format(order, source)
    with loading_torch():
        from ..workflows.export import export as write
    events = write(source, order)
    follow(warned(events), open_view(Exported, json=json), kept="nothing was exported")
