"""Values that are probably a mistake: the user is asked about them, or, if nobody can answer, they are refused unless `--yes` is given."""

import typer

from ..config import Asked, Told
from ..errors import UsageError
from ..settings import TrainSettings, doubt_of

INSIST = "if you mean it, add --yes"


def check_meant(told: Told, *, insists: bool, asks: bool) -> None:
    """Ask about each unusual value. Raises UsageError for one that is not confirmed."""
    if insists:
        return
    for owner, values in told.items():
        for name, value in values.items():
            doubt = doubt_of(owner, name, value)
            if doubt and not (asks and typer.confirm(f"{doubt}. Use it anyway?", err=True)):
                raise UsageError(doubt, INSIST)


def from_file(asked: Asked) -> Told:
    """What project.toml says about training."""
    said = asked.sources.get("train", {}).items()
    return {TrainSettings: {name: getattr(asked.train, name) for name, where in said if where == "project.toml"}}
