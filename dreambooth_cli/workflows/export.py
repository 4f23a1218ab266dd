"""`export`: a model -> the file or folder that another program reads, opened again and compared before it bears its name."""

import hashlib
import itertools
import os
from pathlib import Path

from ..bases.base import Base
from ..disk import check_space, clear_leftovers, digests_of, disk_errors, settle, sha256_of, temporary
from ..engine.exports import formats
from ..engine.exports.header import modelspec
from ..engine.exports.proof import Proof
from ..engine.exports.weights import Model, Weights
from ..engine.families.loading import DTYPES, find_device, load_family
from ..engine.saving import save_adapter, save_full
from ..engine.training.trained import add_trained, fill_trained
from ..errors import DreamboothError, ExportDiffers
from ..events import Events, Exported, PhaseStarted, Warned
from ..export_order import Export, check_format, check_free
from ..licence import licence_of
from ..machine import kept_when_freed
from ..model_card import Card
from ..run import Run
from ..source import Source, model_folder
from .generate import find_model, kept_projects, read_source


def export(source: Source, order: Export) -> Events:
    """Write a model in another program's format. Raises UsageError, ModelUnavailable, ProjectError, DiskError, ExportDiffers."""
    with kept_projects(source.path):
        check_format(order, source)
        card = read_source(source)
        if source.run is not None and source.step is None:
            source.run.check_model()
        folder = source.path if source.step is not None else model_folder(source.path)
        base = yield from find_model(folder, card, source.base)
        with disk_errors(order.place), kept_when_freed(), temporary(order.place.parent) as part:
            clear_leftovers(order.place.parent)
            if source.step is not None:
                yield PhaseStarted(name=f"loading step {source.step}")
                folder = save_step(Run(source.path), source.step, base, part / "step")
                base = base if not (folder / "model_index.json").is_file() else (yield from find_model(folder, card, None))
            yield from write(Model(base, None if folder == base.path else folder, order.strength or 1.0), card, order, part)


def save_step(run: Run, step: int, base: Base, folder: Path) -> Path:
    """Write the model that a run was after a step to a new folder, and return it. Raises DiskError, ModelUnavailable."""
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


def write(model: Model, card: Card | None, order: Export, part: Path) -> Events:
    """Write a model below a folder of its own, read it again, and give it its name. Raises ModelUnavailable, DiskError, ExportDiffers."""
    yield PhaseStarted(name="loading the model")
    weights = formats.weigh(model, order)
    for remark in weights.remarks:
        yield Warned(message=remark)
    check_space([(order.place.parent, formats.size_of(weights, order))])
    texts = modelspec(weights, card, title=order.place.stem, licence=licence_of(model.base, card), of_lora=order.is_adapter)
    yield PhaseStarted(name=f"writing {order.place.name}")
    part.mkdir(exist_ok=True)
    place = formats.write(weights, order, part, texts)
    yield PhaseStarted(name=f"reading {order.place.name} again")
    yield from deliver(order, place, prove(weights, model, order, place))


def prove(weights: Weights, model: Model, order: Export, place: Path) -> Proof:
    """What comes of the proof; a reader that refuses the file is one that differs."""
    try:
        return formats.check(weights, model, order, place)
    except (DreamboothError, MemoryError, OSError):
        raise
    except Exception as error:
        return Proof(1.0, f"{type(error).__name__}: {error}")


def deliver(order: Export, place: Path, proof: Proof) -> Events:
    """Give an export its name, or where it is not proved another one. Raises ExportDiffers, UsageError."""
    if proof.differs:
        failed = free_name(order.place)
        settle(place, failed)
        raise ExportDiffers(
            f"{order.place} is not what it should be: {proof.differs}",
            f"what was written lies at {failed}; please report this, with the base's name and the command",
        )
    digest = sha256_of(place) if place.is_file() else listed(place)
    check_free(order)  # somebody may have come in between
    settle(place, order.place)
    yield Exported(path=order.place, format=order.format, sha256=digest, largest_difference=proof.largest_difference)


def free_name(place: Path) -> Path:
    """A free name beside an export's own, for one that failed: `model.failed.safetensors`."""
    names = (place.with_name(f"{place.stem}.failed{number or ''}{place.suffix}") for number in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def listed(folder: Path) -> str:
    """The SHA-256 of a folder: of the list of its files as `sha256sum` prints it."""
    lines = [f"{entry['sha256']}  {name}\n" for name, entry in digests_of(folder).items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
