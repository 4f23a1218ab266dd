"""The end of a run: the finished model with its card, and its place in the user's own folder."""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .. import __version__
from ..bases.base import Base
from ..bases.places import remember_place
from ..disk import (
    ADVICE,
    clear_leftovers,
    copy_file,
    disk_errors,
    holds_something,
    is_intact,
    make_folder,
    remove,
    settle,
    temporary,
)
from ..engine.families.loading import DTYPES
from ..engine.saving import forget_places, library_versions, save_adapter, save_full
from ..engine.training.loop import Training
from ..errors import DiskError, UsageError
from ..events import Events, ModelSaved, Noted, Warned
from ..model_card import card_of_run, public_base, public_settings, read_card, write_card
from ..model_readme import Shown, write_words
from ..project import ANOTHER_PLACE, check_model_place
from ..run import CARD, PART_OF_0_1, Run
from ..settings import TrainSettings
from .recipe import Recipe

AGAIN = "fix that, then run this again"


def save_model(training: Training, run: Run, recipe: Recipe) -> None:
    """Write the finished model, its card, its base's licence and the list of its files to a temporary folder, then rename it to
    `runs/N/model`. Raises DiskError."""
    plan, base = training.plan, recipe.base
    with disk_errors(run.model), temporary(run.path) as part:
        write_model(training, base, part)
        record = run.record()
        known = public_base(record.base)
        if plan.method == "lora" and known.path is None and base.repository is None:
            remember_place(base.identity, base.path)
        versions = {"dreambooth": __version__, **library_versions()}
        card = card_of_run(record, versions=versions, photos=tuple(photo.public() for photo in recipe.photos))
        write_words(base, card, part, Shown(), of_lora=plan.method == "lora")
        run.write_manifest(part)
        settle(part, run.model)


def write_model(training: Training, base: Base, folder: Path, *, at_most: int | None = None) -> None:
    """Write what was trained into a new folder: a whole model, or a LoRA. `at_most`: for a rehearsal, the bytes to write of each file.
    Raises DiskError."""
    plan, pipe, dtype = training.plan, training.family.pipe, DTYPES[training.settings.save_dtype]
    folder.mkdir()
    if plan.method == "full":
        save_full(pipe, base, folder, dtype=dtype, at_most=at_most)
    else:
        save_adapter(training.family, folder, train_text_encoder=plan.train_text_encoder, dtype=dtype)


def check_place(output_dir: Path | None) -> Path | None:
    """The output folder's real path. Raises UsageError, before any work, if it can't be written later."""
    return None if output_dir is None else check_model_place(output_dir)


def check_output(output_dir: Path | None, run: Run | None) -> None:
    """Refuse an output folder that holds anything other than this run's model, whole or in part. Raises UsageError."""
    if output_dir is None or not output_dir.exists():
        return
    clear_leftovers(output_dir)
    if run is not None and run.has_part_of_0_1_at(output_dir):
        with disk_errors(output_dir):
            remove(output_dir / PART_OF_0_1)
    if not holds_something(output_dir):
        return
    if run is None or not (holds_model_of(output_dir, run) or run.has_part_at(output_dir)):
        raise UsageError(f"{output_dir} exists and is not this run's model", ANOTHER_PLACE)


def holds_model_of(folder: Path, run: Run) -> bool:
    """Whether a folder holds this very run's model, judging by the run's id on its card."""
    card = read_card(folder)
    return card is not None and card.run == run.id


def deliver(run: Run, output_dir: Path | None, settings: TrainSettings) -> Events:
    """Copy those files of the finished model to the output folder that are not there yet; files that were changed there stay.

    Copies, not links: whatever is done to them must not affect the run's own. Raises DiskError if copying fails, with the model still in
    the run, or if the run's model is not as it was saved.
    """
    run.check_model()
    card = read_card(run.model)
    if card is not None and card.settings["train"]["save_dtype"] != settings.save_dtype:
        yield Noted(message=f"the model was saved in {card.settings['train']['save_dtype']}; to save it in another format, add --restart")
    if output_dir is None:
        yield ModelSaved(path=run.model, step=settings.steps)
        return
    try:
        if not run.manifest.exists():
            make_public(run.model)
        files = run.model_files()
        placed = place_model(run.model, files, output_dir)
        kept = {name: entry for name, entry in files.items() if name not in placed}
        changed = [name for name, entry in kept.items() if not is_intact(output_dir / name, entry)]
    except (OSError, ValueError) as error:
        what = f"the model can't be put at {output_dir}: {getattr(error, 'strerror', None) or error}"
        raise DiskError(what, f"{ADVICE.get(getattr(error, 'errno', None) or 0, AGAIN)}; the model is at {run.model}") from error
    if changed and run.manifest.exists():  # a model of 0.1 has no list, and is changed by `make_public`
        yield Warned(
            message=f"changed in {output_dir} since the model was put there, and left as they are: {', '.join(changed)}; "
            "to get the originals back, remove them there and run this again"
        )
    yield ModelSaved(path=output_dir, step=settings.steps)


def make_public(model: Path) -> None:
    """Take this machine's paths out of a model that 0.1 made, before it is delivered. Raises OSError, ValueError."""
    card = read_card(model)
    if card is not None and card.base.path and (known := public_base(card.base)) != card.base:
        if card.method == "lora":
            remember_place(card.base.identity, Path(card.base.path))
        settings, plan = public_settings(card.settings, known.name), card.plan | {"name": known.name}
        write_card(replace(card, base=known, settings=settings, plan=plan), model)
    forget_places(model)


def place_model(model: Path, files: Iterable[str], output_dir: Path) -> set[str]:
    """Copy those files of a model to a folder that it lacks, and return their names. Raises OSError."""
    make_folder(output_dir.parent)
    clear_leftovers(output_dir.parent)
    if not output_dir.exists():
        with temporary(output_dir.parent) as part:
            copy_files(model, files, part)
            settle(part, output_dir)
        return set(files)
    # an existing folder is filled, not replaced: it may be a mount or somebody's working folder
    clear_leftovers(output_dir)
    lacking = {name for name in files if is_lacking(output_dir / name, model / name)}
    if not lacking:
        return lacking
    with temporary(output_dir) as part:
        copy_files(model, lacking, part)
        # the card comes last: a folder without it is not a whole model
        for name in sorted(lacking, key=lambda name: (name == CARD, name)):
            make_folder((output_dir / name).parent)
            settle(part / name, output_dir / name)
    return lacking


def copy_files(model: Path, names: Iterable[str], part: Path) -> None:
    """Copy some of a model's files into a new folder."""
    part.mkdir()
    for name in names:
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        copy_file(model / name, part / name)


def is_lacking(delivered: Path, own: Path) -> bool:
    """Whether a file must still be delivered: it is not there, or it is a hard link to the run's own, as 0.1 made them."""
    return not os.path.lexists(delivered) or (not delivered.is_symlink() and delivered.samefile(own))
