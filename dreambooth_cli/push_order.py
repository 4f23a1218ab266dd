"""What is refused of a push before any work."""

import re

from .bases.cache import REPOSITORY
from .errors import UsageError
from .licence import entry_of_card, text_of
from .model_card import Card
from .prompts import class_noun
from .source import Source, card_for, is_whole, model_folder

PERSON = re.compile(
    "person|man|woman|boy|girl|child|kid|baby|human|face|lady|gentleman|guy|people|men|women|children|teenager|adult|"
    "mother|father|mom|dad|sister|brother|son|daughter|wife|husband|friend|actor|actress|singer|model|bride|groom"
)


def order_push(source: Source, repository: str) -> tuple[Card, bool]:
    """The card of what is pushed, and whether it is a whole model. Raises UsageError, ModelUnavailable, ProjectError."""
    if not REPOSITORY.fullmatch(repository):
        raise UsageError(f"{repository!r} can't be a hub repository's name", "write it as owner/name")
    card = card_for(source)
    if card is None:
        raise UsageError(f"{source.path} has no dreambooth.json to say what it was made from", "push a model that dreambooth trained")
    if text_of(entry_of_card(card)) is None:
        raise UsageError(
            f"the licence of {card.base.name} is not known here, and a model made from it is not pushed without its text",
            "write it to a folder with dreambooth export, add the licence's text, and upload it yourself",
        )
    whole = card.method == "full" if source.step is not None else is_whole(model_folder(source.path))
    return card, whole


def shows_a_person(card: Card) -> bool:
    """Whether the subject is a person, by its class noun."""
    words = class_noun(card.class_prompt).lower().split()
    return bool(words) and PERSON.fullmatch(words[-1]) is not None
