"""Places: where a photo may have been taken, in words that follow a class prompt (`a photo of a dog` -> `... on the beach`)."""

from typing import Any

from .identifier import single_token
from .phrase import OF, PREPOSITIONS

PLACES = (
    "in a living room",
    "in a kitchen",
    "in a bedroom",
    "in an office",
    "in a garden",
    "in a meadow",
    "in the forest",
    "in the mountains",
    "in the desert",
    "in the snow",
    "in the ocean",
    "in the clouds",
    "in a city",
    "in a city at night",
    "on the beach",
    "on the grass",
    "on a street",
    "on a sofa",
    "on a bed",
    "on a carpet",
    "on a wooden table",
    "on a white table",
    "on the moon",
    "in front of a white wall",
    "in front of a brick wall",
)


def places_known(tokenizer: Any) -> tuple[str, ...]:
    """Those that a base can know: each of their words is one token of its vocabulary; none without its tokenizer."""
    if tokenizer is None:
        return ()
    return tuple(place for place in PLACES if all(single_token(tokenizer, word) is not None for word in place.split()))


def names_a_place(class_prompt: str) -> bool:
    """Whether a class prompt says where its subject is, or may: then nothing is added to it."""
    return any(word.casefold() in PREPOSITIONS - OF for word in class_prompt.split())
