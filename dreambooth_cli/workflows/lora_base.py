"""The base that a LoRA belongs to: the one the user names, or the one its card names, found where it has been on this machine."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..bases.base import Base, ask_for_base
from ..bases.catalog import BaseFacts, find_entry
from ..bases.places import known_places, remember_place
from ..engine.hub.bases import obtain
from ..errors import DreamboothError, ModelUnavailable, ProjectError, UsageError
from ..events import Warned, Yielding
from ..families.family import Family
from ..identity import is_same_base
from ..model_card import Card
from ..record import BaseRecord
from ..run import Run


def obtain_base(lora: Path, card: Card | None, named: str | None) -> Yielding[Base]:
    """The base of a LoRA, on disk. Raises UsageError if nothing names it, ModelUnavailable if it is not found or has changed."""
    if named is not None:
        return (yield from obtain_named(card, named))
    if card is None:
        raise UsageError(f"{lora} is a LoRA without a dreambooth.json: which base is it for?", "name it: --model sd15")
    if card.base.repository or find_entry(str(card.base.path)):
        return (yield from obtain_published(card.base))
    return (yield from obtain_local(card.base, [*places_told(lora, card), *known_places(card.base.identity)]))


def obtain_twin(card: Card | None, named: str | None) -> Yielding[Base]:
    """The distilled twin of a LoRA's base, which draws with the LoRA in a few steps: the one that the user names, directly or by a base
    in the catalogue, else the card's. Raises UsageError if none is known or it is not a twin."""
    entry = find_entry(named or str((card.base.repository or card.base.path) if card else ""))
    twin = (entry.twin if entry else named) or (card.twin if card and not named else None)
    if entry is not None:
        _check_has_twin(entry.facts.family)
    if twin is None:
        which = named or (card.base.name if card else "this LoRA's base")
        told = f"--fast draws with a base's distilled twin, but none is known for {which}"
        raise UsageError(told, "name it: --model ./its-folder, or leave --fast out")

    def check(facts: BaseFacts) -> None:
        _check_has_twin(facts.family)
        if not facts.distilled:
            raise UsageError(f"{twin} is not a distilled twin that can draw with a LoRA of its base", "name another, or leave --fast out")

    found = yield from obtain(ask_for_base(twin), check)
    check(found.facts)
    return found


def _check_has_twin(family: Family) -> None:
    if family.fast is None:
        raise UsageError(f"no distilled twin of {family.title} is known to draw with a LoRA of its base", "leave --fast out")


def obtain_named(card: Card | None, named: str) -> Yielding[Base]:
    """The base that the user names, with a warning if the card names another; if it is the card's, its place is remembered."""
    found = yield from obtain(ask_for_base(named))
    if card is not None and not is_same_base(found, card.base.identity):
        yield Warned(message=f"{found.name} is not the base that this LoRA was trained on, {in_words(card.base)}")
    elif card is not None and found.repository is None:
        remember_place(card.base.identity, found.path)  # under the identity in the card: 0.1 computed others
    return found


def obtain_published(record: BaseRecord) -> Yielding[Base]:
    """The base from the hub, at the revision that the LoRA was trained on, or the one that comes with this package."""
    request = ask_for_base(str(record.repository or record.path))
    if request.repository is not None:
        request = replace(request, revision=record.identity or request.revision)
    found = yield from obtain(request)
    if not is_same_base(found, record.identity):
        yield Warned(
            message=f"{found.name} is not the base that this LoRA was trained on: its files have changed since"
        )
    return found


def places_told(lora: Path, card: Card) -> Iterator[Path]:
    """Where the base is according to the card (0.1 wrote that) and, if the model is still in its run, according to the run's record."""
    bases = [card.base]
    with suppress(ProjectError):  # a damaged plan.json: the model is usable without it
        run = Run(lora)  # `lora` is a run if one of its steps is drawn with
        bases.append((run if run.has_begun else Run((lora if lora.is_dir() else lora.parent).parent)).record().base)
    for base in bases:
        if base.path is not None and base.identity == card.base.identity:
            yield Path(base.path)


def obtain_local(record: BaseRecord, places: list[Path]) -> Yielding[Base]:
    """The base on disk: the first of these places that still holds what the LoRA was trained on. Raises ModelUnavailable."""
    told = "this machine does not know where that is"
    for place in dict.fromkeys(places):
        # Path.is_file raises if a name is too long
        if not (os.path.isfile(place) or os.path.isfile(place / "model_index.json")):
            told = f"it is no longer at {place}"
            continue
        try:
            found = yield from obtain(ask_for_base(str(place)))
        except DreamboothError as error:
            told = f"what is at {place} can't be used: {error.message}"
            continue
        if is_same_base(found, record.identity):
            return found
        told = f"what is at {place} has changed since"
    raise ModelUnavailable(
        f"this LoRA was trained on {in_words(record)}: {told}", "name the base: --model ./its-folder"
    )


def in_words(record: BaseRecord) -> str:
    """A base by its folder's name and the beginning of its hash."""
    return f'"{Path(record.name).name}" ({record.identity[:19]})'
