"""`dreambooth.json`, the card beside a finished model: what it knows, where it comes from, how it was made."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from .bases.cache import REPOSITORY
from .bases.catalog import find_entry
from .bases.metadata import read_header, read_json
from .disk import write_json
from .errors import ModelUnavailable, ProjectError
from .record import BaseRecord, Record
from .run import CARD
from .schemas import check_schema, check_values, with_schema
from .settings import LARGEST_SIDE, SECTIONS, annotation

MOST_BYTES = 1_000_000
IN_HEADER = "dreambooth"  # the key of a card in a file's header


@dataclass(frozen=True, kw_only=True)
class Card:
    """What `generate` needs to know of a fine-tuned model, and the record of how it was made.

    `run` is the run's own id. `photos`: of each its caption, whether it has a mask, its size in training, and not its name.
    `twin`: the repository of the base's distilled twin, which draws with the LoRA in a few steps.
    A card leaves the machine, so a base on disk is named by its folder's last name, and its path is None; 0.1 wrote the path.
    """

    identifier: str
    class_prompt: str
    instance_prompt: str
    method: str
    resolution: int
    steps: int
    base: BaseRecord
    run: str
    settings: dict[str, Any]
    plan: dict[str, Any]
    versions: dict[str, str]
    photos: tuple[dict[str, Any], ...] = ()
    twin: str | None = None


def public_base(base: BaseRecord) -> BaseRecord:
    """A base as a card may name it: one on disk by its last name, without the place."""
    if base.repository is not None or base.path is None or find_entry(base.name):
        return base
    return replace(base, name=Path(base.path).name or "base", path=None)


def public_settings(asked: Mapping[str, Mapping[str, Any]], base: str) -> dict[str, dict[str, Any]]:
    """The settings of a run as a card may name them: without paths, and with the base's public name."""
    told = {stage: dict(values) for stage, values in asked.items()}
    for stage, owner in SECTIONS.items():
        for item in fields(owner):
            hint = annotation(owner, item.name)
            if stage in told and item.name in told[stage] and Path in (hint, *get_args(hint)):
                told[stage][item.name] = None
    told["subject"]["model"] = base
    return told


def card_of_run(
    record: Record, *, versions: Mapping[str, str] = MappingProxyType({}), photos: tuple[dict[str, Any], ...] = ()
) -> Card:
    """The card of a run's model: as it lies beside the finished one, or would beside that of a step."""
    base = public_base(record.base)
    entry = find_entry(base.repository or str(base.path))
    return Card(
        identifier=record.prompts.identifier,
        class_prompt=record.prompts.class_,
        instance_prompt=record.prompts.instance,
        method=record.plan.method,
        resolution=record.plan.resolution,
        steps=record.asked["train"]["steps"],
        base=base,
        run=record.id,
        settings=public_settings(record.asked, base.name),
        plan=record.plan.to_json() | {"name": base.name},
        versions=dict(versions),
        photos=photos,
        twin=entry.twin if entry else None,
    )


def write_card(card: Card, folder: Path) -> None:
    """Write the card into a model's folder."""
    write_json(folder / CARD, with_schema(CARD, asdict(card)))


def read_card(folder: Path) -> Card | None:
    """The card of a model's folder, or None where it has none. Raises ProjectError where it is damaged."""
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, more than any true one")
        return _read(path, read_json(path))
    except (ModelUnavailable, ValueError) as error:
        raise ProjectError(f"the card {path} can't be read: {error}", "train again, or restore that file") from error


def card_in_header(card: Card) -> dict[str, str]:
    """A card as the header of an exported file holds it."""
    return {IN_HEADER: json.dumps(with_schema(CARD, asdict(card)))}


def read_card_of_file(file: Path) -> Card | None:
    """The card in the header of an exported file, or None where there is none, or none that can be read: files come from anywhere."""
    try:
        text = read_header(file).get("__metadata__", {}).get(IN_HEADER)
        values = json.loads(text) if isinstance(text, str) and len(text) <= MOST_BYTES else None
        return _read(file / CARD, values) if isinstance(values, dict) else None
    except (ModelUnavailable, ProjectError, ValueError, RecursionError):
        return None


def public_card(card: Card) -> Card:
    """A card as it may leave: one of 0.1 names the place of its base."""
    base = public_base(card.base)
    return replace(card, base=base, settings=public_settings(card.settings, base.name), plan=card.plan | {"name": base.name})


def _read(path: Path, values: dict[str, Any]) -> Card:
    """A card of what its JSON holds. Raises ValueError, ProjectError where it is of a newer version."""
    check_schema(path, values)
    check_values(Card, values)
    base = BaseRecord(**{item.name: values["base"][item.name] for item in fields(BaseRecord)})
    told = {item.name: values[item.name] for item in fields(Card) if item.name in values}
    card = Card(**told | {"base": base, "photos": tuple(values.get("photos", ()))})
    if not 32 <= card.resolution <= LARGEST_SIDE or card.resolution % 8:
        raise ValueError(f"resolution can't be {card.resolution}")
    train = card.settings.get("train")
    if not isinstance(train, dict) or not isinstance(train.get("save_dtype"), str):
        raise ValueError("its settings are not those of a run")
    if base.repository and not REPOSITORY.fullmatch(base.repository):
        raise ValueError("its base's repository is no owner/name")
    if "/" in base.identity or not (base.path or base.repository or base.identity):
        raise ValueError("its base can't be found by it")
    return card
