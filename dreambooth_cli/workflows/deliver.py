"""The end of a run: the finished model with its card, and its place in the user's own folder."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from .. import __version__
from ..base import Base
from ..card import Card, public_base, public_settings, read_card, write_card
from ..disk import check_folder, disk_errors, make_folder, settle
from ..engine.loading import DTYPES
from ..engine.saving import forget_places, library_versions, save_adapter, save_full
from ..engine.training import Training
from ..errors import DiskError, UsageError
from ..events import Events, ModelSaved, Noted
from ..known_bases import remember_place
from ..project import Run
from ..settings import TrainSettings
from .freeze import Asked, Prompts

ANOTHER = "name another folder: --output-dir ./my-model"


def save_model(training: Training, run: Run, asked: Asked, base: Base, prompts: Prompts) -> None:
    """Write the finished model and its card beside, then rename it to `runs/N/model`. Raises DiskError."""
    part, plan, dtype = run.path / ".model.part", training.plan, DTYPES[asked.train.save_dtype]
    with disk_errors(run.model):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        if plan.method == "full":
            save_full(training.family.pipe, base, part, dtype=dtype)
        else:
            save_adapter(training.family.pipe, base, part, train_text_encoder=plan.train_text_encoder, dtype=dtype)
        record = run.record()
        known = public_base(record["base"])
        if plan.method == "lora" and known["path"] is None and base.repository is None:
            remember_place(base.identity, base.path)
        card = Card(
            identifier=prompts.identifier,
            class_prompt=prompts.class_,
            instance_prompt=prompts.instance,
            method=plan.method,
            resolution=plan.resolution,
            steps=asked.train.steps,
            base=known,
            run=record["id"],
            settings=public_settings(record["asked"], known["name"]),
            plan=record["plan"] | {"name": known["name"]},
            versions={"dreambooth": __version__, **library_versions()},
        )
        write_card(card, part)
        settle(part, run.model)


def check_place(output_dir: Path | None) -> Path | None:
    """The output folder's real path, if it can be written when the time comes. Raises UsageError, before any work."""
    return None if output_dir is None else check_folder(output_dir, ANOTHER)


def check_output(output_dir: Path | None, run: Run | None) -> None:
    """Refuse an output folder that holds anything but this run's model. Raises UsageError."""
    if output_dir is None or not output_dir.exists() or not any(output_dir.iterdir()):
        return
    if run is None or not holds_model_of(output_dir, run):
        raise UsageError(f"{output_dir} exists and is not this run's model", ANOTHER)


def holds_model_of(folder: Path, run: Run) -> bool:
    """Whether a folder holds this very run's model, by the run's id on its card."""
    card = read_card(folder)
    return card is not None and card.run == run.record().get("id")


def deliver(run: Run, output_dir: Path | None, settings: TrainSettings) -> Events:
    """Put the finished model at the output folder: hard links, or copies across file systems; beside first, then moved.

    Raises DiskError; the model then still lies in the run.
    """
    card = read_card(run.model)
    if card is not None and card.settings["train"]["save_dtype"] != settings.save_dtype:
        yield Noted(message=f"it was saved in {card.settings['train']['save_dtype']}; --restart saves it anew")
    if output_dir is None:
        yield ModelSaved(path=run.model, step=settings.steps)
        return
    if not holds_model_of(output_dir, run):
        try:
            make_public(run.model)
            place_model(run.model, output_dir)
        except (OSError, ValueError) as error:
            raise DiskError(
                f"the model can't be put at {output_dir}: {getattr(error, 'strerror', None) or error}",
                f"it lies at {run.model}",
            ) from error
    yield ModelSaved(path=output_dir, step=settings.steps)


def make_public(model: Path) -> None:
    """Take the places on this machine out of a model that 0.1 made, before it leaves. Raises OSError, ValueError."""
    card = read_card(model)
    if card is not None and card.base["path"] and (known := public_base(card.base)) != card.base:
        if card.method == "lora":
            remember_place(card.base["identity"], Path(card.base["path"]))
        settings, plan = public_settings(card.settings, known["name"]), card.plan | {"name": known["name"]}
        write_card(replace(card, base=known, settings=settings, plan=plan), model)
    forget_places(model)


def place_model(model: Path, output_dir: Path) -> None:
    """Link a model's folder to a place that is not there or empty."""
    if output_dir.exists():
        # an empty folder is filled, not replaced: it may be a mount or somebody's working folder
        part = output_dir / ".part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(model, part, copy_function=link_or_copy)
        # the card comes last: a folder without it is not a whole model
        for child in sorted(part.iterdir(), key=lambda child: child.name == "dreambooth.json"):
            settle(child, output_dir / child.name)
        part.rmdir()
        return
    part = output_dir.with_name(f".{output_dir.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    make_folder(part.parent)
    shutil.copytree(model, part, copy_function=link_or_copy)
    settle(part, output_dir)


def link_or_copy(source: str, target: str) -> None:
    """A hard link, or a copy where the file system can't."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
