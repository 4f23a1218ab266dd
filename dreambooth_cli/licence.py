"""The licences of bases: their names and texts, and the notice that the weights of a model were changed. A derived model carries both, as
the OpenRAIL licences and Apache's require."""

from pathlib import Path

from .bases.base import Base
from .bases.catalog import CatalogEntry, find_entry
from .model_card import Card

UNKNOWN = "the base's licence is not known"
TEXTS = Path(__file__).parent / "licences"
# of the catalogue's bases, each from its publisher's repository
FILES = {
    "sd14": "openrail-m.txt",
    "sd15": "openrail-m.txt",
    "sd21": "openrail++-m-2.txt",
    "sdxl": "openrail++-m-xl.txt",
}
LIKENESS = (
    "No content filter runs when this model draws pictures: whoever draws them is responsible for them. "
    "A person may be drawn only with their consent."
)


def entry_of(base: Base, card: Card | None) -> CatalogEntry | None:
    """The catalogue's entry for the base that a model was made from: the one its card names, or without a card the base that is loaded."""
    return entry_of_card(card) if card else _entry(base.repository, base.name)


def entry_of_card(card: Card) -> CatalogEntry | None:
    """The catalogue's entry for the base that a card names."""
    return _entry(card.base.repository, card.base.name)


def _entry(*names: str | None) -> CatalogEntry | None:
    return next((entry for name in names if name and (entry := find_entry(name))), None)


def licence_of(base: Base, card: Card | None) -> str:
    """The name of a base's licence, or that it is not known."""
    entry = entry_of(base, card)
    return entry.licence if entry else UNKNOWN


def text_of(entry: CatalogEntry | None) -> str | None:
    """The text of a base's licence, or None where it is not known."""
    name = None if entry is None else FILES.get(entry.name, "apache-2.0.txt" if entry.licence == "Apache-2.0" else None)
    return None if name is None else (TEXTS / name).read_text(encoding="utf-8")


def notice_of(base: Base, card: Card | None) -> str:
    """The text of NOTICE: which base a model was made from, that its weights were changed, and under which licence it is."""
    entry = entry_of(base, card)
    named = entry.title if entry else (card.base.name if card else base.name)
    where = f" (https://huggingface.co/{entry.repository})" if entry and entry.repository else ""
    changed = f"This model was made from {named}{where}. Its weights were changed: fine-tuned on photos of one subject (DreamBooth)."
    if entry is None or text_of(entry) is None:
        return f"{changed}\nThe licence of {named} is not known here: find it before you pass this model on. {LIKENESS}\n"
    applies = ", and its restrictions on use apply" if "RAIL" in entry.licence else ", applies"
    return f"{changed}\nThe licence of {named}, {entry.licence}{applies} to this model too. {LIKENESS}\n"
