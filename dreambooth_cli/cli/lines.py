"""The lines of `--json`: one JSON object each on stdout. The first is `start`, which names the version and the schema of all lines.

A command whose result is one document (`models`, `projects`, `doctor`) prints only that, or only the line of its error.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..events import Started, as_json
from ..schemas import JSON_LINES

_owed: list[Started] = []


def expect(words: Sequence[str], *, json: bool) -> None:
    """Note at the beginning of a command line, given its words, whether a `start` line is owed."""
    _owed.clear()
    if json and not prints_document(words):
        _owed.append(Started(schema=JSON_LINES, version=__version__))


def prints_document(words: Sequence[str]) -> bool:
    """Whether a command line asks for one document instead of lines."""
    command, *rest = [word for word in words if not word.startswith("-")] or [""]
    return command in ("projects", "doctor") or (command == "models" and "pull" not in rest)


def begin() -> None:
    """Print the `start` line, if it is still owed."""
    if _owed:
        print(json.dumps(as_json(_owed.pop())), flush=True)


def print_line(values: Mapping[str, Any]) -> None:
    """Print one line and flush it, so that a reader can follow."""
    begin()
    print(json.dumps(values), flush=True)
