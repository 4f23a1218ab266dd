"""`generate -i`: load the model once, then draw each prompt as it is typed."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from ..errors import DreamboothError, Interrupted, UsageError
from ..events import Event, Events, GridSaved, ImageSaved, Noted, Warned
from ..libraries import warned
from ..settings import GenerateSettings, parse_value
from ..source import Source
from .console import can_ask
from .views import Seen, follow, open_view

if TYPE_CHECKING:
    from ..workflows.generate import Easel

HELP = "type a prompt to draw it; :again draws the last one with the next seeds; :seed 7 (or auto) holds for all from now on; :quit ends"

END = ":quit"


def draw_by_hand(source: Source, first: list[str], settings: GenerateSettings, draw: Callable[..., Events], *, json: bool) -> None:
    """Load the model once, draw the first prompts, then each one that is typed, until the input ends. If something is wrong with one, say
    so and ask for the next. `draw` is `draw_one` with its folder. Raises DreamboothError if the model can't be loaded, Interrupted while
    a picture is being drawn."""
    from ..workflows.generate import open_easel

    made: list[Easel] = []
    follow(warned(open_easel(source, settings, made)), open_view(json=json))
    tell(Noted(message=HELP), json=json)
    last, further = "", settings
    for line in chain(first, asked_for() if can_ask() else typed()):
        try:
            if line in (END, ":q"):
                return
            if line.startswith(":seed"):
                settings = replace(settings, seed=parse_value(GenerateSettings, "seed", line.removeprefix(":seed").strip()))
                further = settings
                continue
            if line == ":help":
                tell(Noted(message=HELP), json=json)
                continue
            if line == ":again" and not last:
                raise UsageError("nothing has been drawn yet", "type a prompt first")
            if line.startswith(":") and line != ":again":
                raise UsageError(f"there is no command {line}", HELP)
            last, how = (last, further) if line == ":again" else (line, settings)
            seen = follow(warned(draw(made[0], last, how)), open_view(ImageSaved, GridSaved, json=json))
            further = with_next_seed(settings, seen)
        except Interrupted:
            raise
        except DreamboothError as error:
            words = "; ".join(filter(None, [error.message, error.hint])).replace("--seed", ":seed")  # what was typed here
            tell(Warned(message=words), json=json)


def tell(event: Event, *, json: bool) -> None:
    """Show one event."""
    with open_view(json=json) as view:
        view.show(event)


def with_next_seed(settings: GenerateSettings, seen: Seen) -> GenerateSettings:
    """The settings with the next unused seed if a seed was given, so that `:again` draws different pictures."""
    drawn = seen.get(ImageSaved)
    return settings if settings.seed == "auto" or drawn is None else replace(settings, seed=drawn.seed + 1)


def asked_for() -> Iterator[str]:
    """The lines a person types on a terminal, with a history, until Ctrl-D or Ctrl-C."""
    from prompt_toolkit import PromptSession

    session: PromptSession[str] = PromptSession()

    def read() -> str:
        try:
            return session.prompt("prompt> ").strip()
        except (EOFError, KeyboardInterrupt):
            return END

    return filter(None, iter(read, END))


def typed() -> Iterator[str]:
    """The lines of stdin, without empty ones."""
    return filter(None, map(str.strip, sys.stdin))
