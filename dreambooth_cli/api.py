"""For Python: `train`, `generate` and `plan`, which yield the events of `--json` as objects.

    from dreambooth_cli import train

    for event in train(photos="instance_images", class_prompt="a dog", steps=1000):
        print(event)

A call checks its arguments and loads nothing slow; torch is loaded when the first event is taken. The events are in
`dreambooth_cli.events`, the kinds of errors in `dreambooth_cli.errors`: each error has a message, a hint and an exit code. The settings
are those in the README's tables, without the leading dashes and with underscores instead of dashes; GB is 1e9 bytes.

Nothing in your program is changed: no signal handler is installed, and no stream, warning filter or environment variable is touched.
To stop, close the generator. Ctrl-C raises Python's own KeyboardInterrupt; if it comes inside a step, the run continues from its last
checkpoint. The libraries show their own warnings. If there are several GPUs, torch's first is used: CUDA_VISIBLE_DEVICES chooses another.
The plan counts on PYTORCH_ALLOC_CONF=expandable_segments:True, which the commands set on Linux with an NVIDIA card: set it too.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Unpack

from .config import Asked, Told, merge
from .errors import UsageError
from .events import Events
from .gpu import find_gpu
from .hub_variables import check_variables
from .keywords import DrawingSettings, RunSettings
from .libraries import warned
from .memory.plan import Plan
from .order import Order, check_output, check_prompt, understand
from .paths import expanded
from .project import choose_project
from .settings import (
    GenerateSettings,
    PrepSettings,
    Settings,
    SubjectSettings,
    TrainSettings,
    annotation,
    check_name,
    scalar_of,
)
from .source import Source, check_source, find_source


def train(
    project: str | None = None,
    *,
    output_dir: str | Path | None = None,
    restart: bool = False,
    replan: bool = False,
    **settings: Unpack[RunSettings],
) -> Events:
    """Fine-tune a base model on 3 to 5 photos of one subject, by DreamBooth (Ruiz et al. 2022, arXiv 2208.12242).

    Takes a project by its name, or directly a folder of photos and a class prompt: `train(photos="my-photos", class_prompt="a dog")`
    makes the project and puts the model at `output_dir` (by default `./output`); with a project's name, the model stays in its
    `runs/N/model` unless `output_dir` is given. Whatever is left at `auto` is planned for the memory that is free. The same call again
    continues its run, or says that it is finished; `restart` starts a new run, `replan` continues under a plan for the memory that is
    free now.

    Yields the events of `dreambooth train --json`, among them PlanMade, RunOpened, a StepDone for every step (loss: the mean over its
    rows, no unit; learning_rate; seconds; memory_gb), CheckpointSaved, and at the end ModelSaved with the folder: a diffusers
    pipeline, or for a LoRA `pytorch_lora_weights.safetensors`, in float32 unless `save_dtype` says otherwise. Photos and class images
    become squares with sides of `resolution` pixels. If left early (`close()`, `contextlib.closing`), the state after the last step is
    saved, and the same call continues from there; on a CPU the weights come out the same as without the break.

    Raises UsageError, ProjectError or ModelUnavailable at once, and DreamboothError of every kind (those, PhotoError, DoesNotFit,
    DiskError, TrainingFailed) when the next event is taken.
    """
    order, asked = _understood(project, settings, output_dir)
    check_prompt(order, asked)
    check_output(order.output_dir, order.project, asked, restart=restart)
    return _train(order, asked, restart=restart, replan=replan)


def generate(
    project: str | None = None,
    prompt: str | Sequence[str] = "",
    *,
    model_path: str | Path | None = None,
    run: int | None = None,
    step: int | None = None,
    model: str | None = None,
    identifier: str | None = None,
    output_dir: str | Path | None = None,
    grid: bool | None = None,
    **settings: Unpack[DrawingSettings],
) -> Events:
    """Draw pictures of a prompt, or of each of several, in which `[identifier]` stands for the subject.

    Draws with a project's newest finished run, or with run number `run`, or with its weights after `step`, if they were kept; or with
    `model_path`: a model's folder, a LoRA file or folder, or a run's folder. `model` names the base of a LoRA, and `identifier` the
    subject's word, if the model has no dreambooth.json that does.

    Yields the events of `dreambooth generate --json`, among them an ImageSaved for every picture: a PNG of `width` x `height` pixels,
    8 bits for each of RGB, with its prompt, seed and settings in its text chunks. Pictures go to `output_dir`, by default the project's
    `images` or `./generated`; no file is overwritten. Picture i of each prompt is drawn from `seed` + i. `grid`: also put all of them on
    one sheet (None: if there are several).

    Raises UsageError or ProjectError at once, and ModelUnavailable, DoesNotFit or DiskError when the next event is taken.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts or not all(one.strip() for one in prompts):
        raise UsageError("the prompt is missing", 'say what to draw: prompt="a [identifier] dog on the moon"')
    if model_path is not None and project is not None:
        raise UsageError(f"there are two models: the project {project} and {model_path}", "leave one out")
    told = _checked(GenerateSettings, settings)
    where = expanded(model_path) if model_path is not None else choose_project(project)
    path, stored, folder = find_source(where, run, step)
    values = merge(GenerateSettings, stored, told).values
    place = expanded(output_dir) if output_dir is not None else folder
    source = Source(path, model, identifier, step)
    check_source(source, prompts, values, place)
    return _generate(source, prompts, values, output_dir=place, grid=grid)


def plan(project: str | None = None, **settings: Unpack[RunSettings]) -> Plan:
    """How `train` would do a run with these settings, what it needs and why; only computed, without torch, and nothing is written.

    In the plan, in bytes: `needed` is the GPU's memory at its highest peak, `free` what is free there (None: no GPU), `ram` and `disk` the
    machine's memory and disk. `fits` says whether it fits, and if not, `remedy` what would. The sources of the figures are in
    `memory/ledger.py`. Raises UsageError, ProjectError, and ModelUnavailable if nothing is known about the base until it is fetched.
    """
    from .workflows.plan import plan_run

    _, asked = _understood(project, settings)
    return plan_run(asked.subject.model, asked.prep, asked.train, gpu=find_gpu())


def _understood(
    project: str | None, settings: Mapping[str, Any], output_dir: str | Path | None = None
) -> tuple[Order, Asked]:
    stages = (SubjectSettings, PrepSettings, TrainSettings)
    known = {item.name: stage for stage in stages for item in fields(stage)}
    told: dict[type[Settings], dict[str, Any]] = {stage: {} for stage in stages}
    for name, value in settings.items():
        told[known.get(name, TrainSettings)][name] = value
    checked: Told = {stage: _checked(stage, values) for stage, values in told.items()}
    return understand(project, checked, Path(output_dir) if output_dir is not None else None)


def _checked(stage: type[Settings], told: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for a stage, with text turned into paths where a path is expected. Raises UsageError for an unknown setting."""
    found = {}
    for name, value in told.items():
        check_name(stage, name, "the call")
        takes_path = scalar_of(annotation(stage, name)) is Path
        found[name] = Path(value) if takes_path and isinstance(value, str | os.PathLike) else value
    return found


def _train(order: Order, asked: Asked, *, restart: bool, replan: bool) -> Events:
    check_variables()
    from .workflows.direct import carry_out

    yield from warned(carry_out(order, asked, restart=restart, replan=replan))


def _generate(
    source: Source, prompts: Sequence[str], settings: GenerateSettings, *, output_dir: Path, grid: bool | None
) -> Events:
    check_variables()
    from .workflows.generate import generate as draw

    yield from warned(draw(source, prompts, settings, output_dir=output_dir, grid=grid))
