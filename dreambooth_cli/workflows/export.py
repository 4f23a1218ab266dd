"""`export`: a model -> the file or folder that another program reads, opened again and compared before it gets its name."""

import hashlib
import itertools
import os
from pathlib import Path

from ..bases.base import Base
from ..bases.places import remember_place
from ..disk import check_space, clear_leftovers, digests_of, disk_errors, settle, sha256_of, sync_all, temporary
from ..engine.exports import formats
from ..engine.exports.extraction import extract
from ..engine.exports.header import modelspec
from ..engine.exports.proof import Proof
from ..engine.exports.weights import Model, Weights
from ..engine.families.loading import DTYPES, find_device, load_family
from ..engine.saving import save_adapter, save_full
from ..engine.training.trained import add_trained, fill_trained
from ..errors import DreamboothError, ExportDiffers, UsageError
from ..events import Events, Exported, Noted, PhaseStarted, Warned, Yielding
from ..export_order import RANK, Export, beside, check_format, check_free, check_layout
from ..licence import entry_of, licence_of, notice_of, text_of
from ..machine import kept_when_freed
from ..model_card import Card, card_in_header, public_card
from ..model_readme import Shown, write_words
from ..project import clear_up
from ..run import Run
from ..source import Source, denoiser_family, is_whole, model_folder
from .generate import find_model, kept_projects, read_source
from .lora_base import obtain_base
from .shown import copy_samples, thumbnail_of, verdict_of


def export(source: Source, order: Export) -> Events:
    """Write a model in another program's format. Raises UsageError, ModelUnavailable, ProjectError, DiskError, ExportDiffers."""
    with kept_projects(source.path):
        check_format(order, source)
        card = read_source(source)
        if source.run is not None:
            remember_base(source.run)
            if source.step is None:
                source.run.check_model()
        folder = source.path if source.step is not None else model_folder(source.path)
        extracts = order.is_adapter and source.step is None and is_whole(folder)
        clear_up()
        base = yield from find_model(folder, card, None if extracts and denoiser_family(folder) is None else source.base)
        check_layout(order.format, base.facts.family, is_file=order.is_file)
        with disk_errors(order.place), kept_when_freed(), temporary(order.place.parent) as part:
            clear_leftovers(order.place.parent)
            if source.step is not None:
                yield PhaseStarted(name=f"loading step {source.step}")
                of_run, folder = base, save_step(Run(source.path), source.step, base, part / "step")
                base = (yield from find_model(folder, card, None)) if is_whole(folder) else of_run
            model = Model(base, None if is_whole(folder) else folder, order.strength or 1.0)
            if order.is_adapter and model.lora is None:
                model = yield from extracted(model, card, source, order, part)
            yield from write(model, card, order, part, source)


def remember_base(run: Run) -> None:
    """Remember where a run's base is, if it is a folder on this machine: the export names no path, but reading it back needs the base's
    configs."""
    base = run.record().base
    if base.repository is None and base.path is not None and os.path.isdir(base.path):
        remember_place(base.identity, Path(base.path))


def extracted(whole: Model, card: Card | None, source: Source, order: Export, part: Path) -> Yielding[Model]:
    """A whole model as its base plus a LoRA of what training has changed; a note says how much of the change the LoRA keeps. Raises
    UsageError, ModelUnavailable, DiskError."""
    base = yield from obtain_base(whole.base.path, card, source.base)
    rank = order.rank or RANK
    yield PhaseStarted(name=f"finding a LoRA of rank {rank}")
    part.mkdir(exist_ok=True)
    file = part / "extracted.safetensors"
    try:
        kept = extract(whole, Model(base), rank, file)
    except ValueError as error:
        raise UsageError(f"no LoRA can be made of {whole.base.path}: {error}", "name the base it was trained from: --model sd15") from error
    yield Noted(message=f"a LoRA of rank {rank} keeps {kept:.1%} of what training has changed; a higher --rank keeps more")
    return Model(base, file)


def save_step(run: Run, step: int, base: Base, folder: Path) -> Path:
    """Write the model with a run's weights after a step to a new folder, and return the folder. Raises DiskError, ModelUnavailable."""
    record = run.record()
    settings, plan = record.train_settings(), record.plan
    family = load_family(base, dtype=DTYPES["fp32"], device=find_device("cpu"))
    fill_trained(add_trained(family, plan, settings), run.checkpoint(step), run.id)
    dtype = DTYPES[settings.save_dtype]
    folder.parent.mkdir()
    folder.mkdir()
    if plan.method == "full":
        save_full(family.pipe, base, folder, dtype=dtype)
    else:
        save_adapter(family, folder, train_text_encoder=plan.train_text_encoder, dtype=dtype)
    return folder


def write(model: Model, card: Card | None, order: Export, part: Path, source: Source) -> Events:
    """Write a model below a folder of its own, with what its run has to show, read it again, and give it its name. Raises
    ModelUnavailable, DiskError, ExportDiffers."""
    yield PhaseStarted(name="loading the model")
    weights = formats.weigh(model, order)
    for remark in weights.remarks:
        yield Warned(message=remark)
    check_space([(order.place.parent, formats.size_of(weights, order))])
    card = None if card is None else public_card(card)
    texts = modelspec(weights, card, title=order.place.stem, licence=licence_of(model.base, card), of_lora=order.is_adapter)
    yield PhaseStarted(name=f"writing {order.place.name}")
    new = part / "export"  # a folder of its own, since the export may have any name
    new.mkdir(parents=True)
    place = formats.write(weights, order, new, {**texts, **words_of(model.base, card, order), **thumbnail_of(source)})
    if place.is_dir():
        shown = Shown(copy_samples(source, place), verdict_of(source))
        write_words(model.base, card, place, shown, of_lora=order.is_adapter)
    sync_all(place)  # what is on the disk can leave memory while it is read
    yield PhaseStarted(name=f"reading {order.place.name} back")
    yield from deliver(order, place, prove(weights, order, place))


def words_of(base: Base, card: Card | None, order: Export) -> dict[str, str]:
    """What a file's header holds for people and for `--model-path`: the card, the notice, and for a whole model the licence."""
    told = {"notice": notice_of(base, card), **(card_in_header(card) if card else {})}
    text = None if order.is_adapter else text_of(entry_of(base, card))
    return told | ({"license_text": text} if text else {})


def prove(weights: Weights, order: Export, place: Path) -> Proof:
    """The result of the proof; a reader that refuses the file counts as a difference."""
    try:
        return formats.check(weights, order, place)
    except (DreamboothError, MemoryError, OSError):
        raise
    except Exception as error:
        return Proof(1.0, f"{type(error).__name__}: {error}")


def deliver(order: Export, place: Path, proof: Proof) -> Events:
    """Give an export its name, or another one if the proof failed. Raises ExportDiffers, UsageError."""
    if proof.differs:
        failed = free_name(order.place)
        settle(place, failed)
        raise ExportDiffers(
            f"{order.place} does not read back as it should: {proof.differs}",
            f"what was written is at {failed}; please report this, with the base's name and the command",
        )
    digest = sha256_of(place) if place.is_file() else listed(place)
    check_free(order)  # the name may have been taken meanwhile
    for path in beside(place) if order.is_file else ():
        if path.is_file():  # first, so that what a file needs beside it is there before the file itself
            settle(path, order.place.with_name(path.name))
    settle(place, order.place)
    yield Exported(path=order.place, format=order.format, sha256=digest, largest_difference=proof.largest_difference)


def free_name(place: Path) -> Path:
    """A free name beside an export's own, for one that failed the proof: `model.failed.safetensors`."""
    names = (place.with_name(f"{place.stem}.failed{number or ''}{place.suffix}") for number in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def listed(folder: Path) -> str:
    """The SHA-256 of a folder: that of the list of its files as `sha256sum` prints it."""
    lines = [f"{entry['sha256']}  {name}\n" for name, entry in digests_of(folder).items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
