"""One question on the terminal: errors speak of the answer, not of flags, and Esc goes back to the question before."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import questionary  # noqa: TID253 - imported only to ask
from prompt_toolkit.buffer import Buffer  # noqa: TID253
from prompt_toolkit.filters import shift_selection_mode, to_filter  # noqa: TID253
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent, merge_key_bindings  # noqa: TID253
from prompt_toolkit.keys import Keys  # noqa: TID253
from questionary import Choice, Question  # noqa: TID253
from questionary.prompts.common import InquirerControl  # noqa: TID253

from ..errors import DreamboothError
from .console import messages, say

BACK = "<"  # at the end of an answer: the same as Esc, for terminals that keep Esc to themselves
MARK = "?"


class Back(Exception):
    """The user wants to go back to the question before."""


@dataclass(frozen=True)
class Doubt:
    """What is odd about an answer. `offer`: what may be meant instead ("" if unknown); `firm`: it can't be accepted as it is."""

    words: str
    offer: str = ""
    firm: bool = False


def ask_line(
    question: str, judge: Callable[[str], Doubt | None], default: str = "", doubted: Doubt | None = None, **looks: Any
) -> str:
    """Ask for a line of text until it can be accepted. An odd one is queried once, with what may be meant filled in; typed again, it is
    accepted. What is filled in gives way to the first key, unless it is a refused answer, which is there to be corrected. `judge` returns
    its doubt, and raises DreamboothError for an answer that can't be accepted; `doubted` is its doubt about the default; `looks` go to
    prompt_toolkit. Raises Back."""
    gives_way = True
    if doubted is not None:
        default = show_doubt(doubted) or default
    while True:
        asked = questionary.text(question, default=default, qmark=MARK, **looks)
        text = str(_answered(_selected(asked) if gives_way else asked)).strip()
        if text.endswith(BACK):
            raise Back
        try:
            doubt = judge(text)
        except DreamboothError as error:
            say_why(of_the_answer(error))
            default, gives_way = text, False
            continue
        if doubt is None or (doubt == doubted and not doubt.firm):
            return text
        doubted, default, gives_way = doubt, show_doubt(doubt) or text, True


def show_doubt(doubt: Doubt) -> str:
    """Say what is odd and what the keys do now. Returns what may be meant instead, to be filled in."""
    say_why(doubt.words)
    say_why(way_on(doubt))
    return doubt.offer


def way_on(doubt: Doubt) -> str:
    """What the keys do now."""
    if not doubt.offer:
        return "Please put it another way." if doubt.firm else "Enter keeps it; or type another."
    return f'Enter takes "{doubt.offer}"' + ("; or put it another way." if doubt.firm else "; to keep yours, type it again.")


def choose(question: str, choices: Sequence[tuple[Any, str]], default: Any = None) -> Any:
    """Ask for one of several choices, each a value and its words. Raises Back."""
    listed = [Choice(words, value) for value, words in choices]
    asked = questionary.select(question, choices=listed, default=default, qmark=MARK, instruction=" ")
    for window in asked.application.layout.find_all_windows():
        if isinstance(window.content, InquirerControl):
            window.wrap_lines = to_filter(True)  # so that long choices are not cut off in a narrow window
    return _answered(asked, back=BACK)


def _selected(question: Question) -> Question:
    """A line of text that begins with all of it selected: what is typed replaces it, and other keys do to it what they do in any line."""
    keys = KeyBindings()

    def paste(event: KeyPressEvent) -> None:  # which alone would leave the selection standing
        event.current_buffer.cut_selection()
        event.current_buffer.insert_text(event.data)

    def leave_it(event: KeyPressEvent) -> None:
        event.current_buffer.exit_selection()
        event.key_processor.feed(event.key_sequence[0], first=True)

    keys.add(Keys.BracketedPaste, filter=shift_selection_mode)(paste)
    for key in ("enter", "c-a", "c-e", "c-b", "c-f", "c-u", "c-w", "c-k"):  # prompt_toolkit does the same for the arrow keys alone
        keys.add(key, filter=shift_selection_mode)(leave_it)
    _bind(question, keys)
    app = question.application
    app.pre_run_callables.append(lambda: _select_all(app.current_buffer))
    return question


def _select_all(buffer: Buffer) -> None:
    if buffer.text:
        buffer.cursor_position = 0
        buffer.start_selection()
        buffer.cursor_position = len(buffer.text)
        assert buffer.selection_state is not None
        buffer.selection_state.enter_shift_mode()  # as if Shift were held: prompt_toolkit then lets what is typed replace it


def _answered(question: Question, back: str = "") -> Any:
    """The answer to one question. Raises Back, KeyboardInterrupt, EOFError."""
    keys = KeyBindings()

    def go_back(event: KeyPressEvent) -> None:
        event.app.exit(exception=Back(), style="class:aborting")

    def leave(event: KeyPressEvent) -> None:
        event.app.exit(exception=EOFError(), style="class:aborting")

    for key in filter(None, ("escape", back)):
        keys.add(key, eager=True)(go_back)
    if back:  # a line of text knows Ctrl-D itself
        keys.add("c-d", eager=True)(leave)
    _bind(question, keys)
    return question.unsafe_ask()


def _bind(question: Question, keys: KeyBindings) -> None:
    app = question.application
    app.key_bindings = merge_key_bindings([app.key_bindings, keys] if app.key_bindings else [keys])


def say_why(words: str) -> None:
    """Say something about an answer, below it."""
    say(messages(), f"  {words}", "yellow")


def of_the_answer(error: DreamboothError) -> str:
    """An error in words about the answer instead of a flag: `--steps 0 is too small` -> `0 is too small`."""
    return "; ".join(_without_flags(words) for words in (error.message, error.hint) if words)


def _without_flags(words: str) -> str:
    words = re.sub(r"(?:; or|, or)[^;]*?--(?:class-images|json|yes|restart|allow-distilled)\b[^;]*", "", words)
    words = re.sub(r"--[a-z][a-z-]* can't", "it can't", words)
    words = re.sub(r" (?:of|to|with) --[a-z][a-z-]*(?![a-z -])", "", words)
    words = re.sub(r"--[a-z][a-z-]*[ =]?", "", words).strip(" :")
    return words
