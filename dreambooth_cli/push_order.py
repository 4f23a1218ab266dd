"""What is refused of a push before any work."""

from .bases.cache import REPOSITORY
from .errors import UsageError
from .licence import entry_of_card, text_of
from .model_card import Card
from .oddity import in_english, singular
from .phrase import word_set
from .prompts import class_noun
from .source import Source, card_for, is_whole, model_folder

# Asking about a chess king is better than not asking about a king.
PEOPLE = word_set(
    "person human individual someone somebody face portrait selfie self me myself man woman gentleman lady guy gal lad lass bloke "
    "dude male female adult child kid baby toddler infant newborn boy girl teen teenager youth family couple parent mother mom mum "
    "mommy mummy mama father dad daddy papa grandparent grandmother grandma granny nana grandfather grandpa sister brother sibling "
    "twin son daughter grandchild grandson granddaughter aunt auntie uncle niece nephew cousin wife husband spouse partner girlfriend "
    "boyfriend fiancé fiancée fiance fiancee bride groom friend colleague neighbour neighbor actor actress singer musician dancer "
    "artist painter writer model athlete player footballer celebrity influencer politician president king queen prince princess "
    "doctor nurse teacher student soldier officer policeman policewoman firefighter chef cook worker farmer"
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
    """Whether the subject is a person, or several, by the last word of its class noun, in any language that the table of nouns knows."""
    words = class_noun(in_english(card.class_prompt) or card.class_prompt).lower().split()
    return bool(words) and not PEOPLE.isdisjoint((words[-1], singular(words[-1])))
