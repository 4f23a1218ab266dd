"""The licences of bases: what they are called, where that is known."""

from .bases.base import Base
from .bases.catalog import CatalogEntry, find_entry
from .model_card import Card

UNKNOWN = "the base's licence is not known"


def entry_of(base: Base, card: Card | None) -> CatalogEntry | None:
    """The catalogue's entry of the base that a model was made of: the card knows it, else it is the base that is loaded."""
    names = (card.base.repository, card.base.name) if card else (base.repository, base.name)
    return next((entry for name in names if name and (entry := find_entry(name))), None)


def licence_of(base: Base, card: Card | None) -> str:
    """The name of a base's licence, or that it is not known."""
    entry = entry_of(base, card)
    return entry.licence if entry else UNKNOWN
