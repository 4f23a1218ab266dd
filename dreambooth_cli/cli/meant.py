"""Values that can hardly be meant: asked about where somebody can answer, else refused with the word that insists."""

import typer

from ..config import Asked, Told
from ..errors import UsageError
from ..settings import TrainSettings, doubt_of

INSIST = "if it is meant, add --yes"


def check_meant(told: Told, *, insists: bool, asks: bool) -> None:
    """Hold what was told against what is usual. Raises UsageError where a value is out of all proportion, and nobody stands by it."""
    if insists:
        return
    for owner, values in told.items():
        for name, value in values.items():
            doubt = doubt_of(owner, name, value)
            if doubt and not (asks and typer.confirm(f"{doubt}. Go on with it all the same?", err=True)):
                raise UsageError(doubt, INSIST)


def from_file(asked: Asked) -> Told:
    """What project.toml says of training."""
    said = asked.sources.get("train", {}).items()
    return {TrainSettings: {name: getattr(asked.train, name) for name, where in said if where == "project.toml"}}
