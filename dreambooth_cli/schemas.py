"""The form of the files we keep: their schema numbers, which are declared only here, and a check of their values against a dataclass.

A file without a number has schema 1, which version 0.1 wrote. A number goes up only if an older dreambooth would misread the file;
merely adding a field does not count.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import ProjectError
from .settings import LARGEST_SEED
from .text import is_text, shortened

SCHEMA = "schema"  # the key, at the top of each file
SCHEMAS = {"project.toml": 1, "plan.json": 1, "model.json": 1, "dreambooth.json": 1, "report.json": 1, "bases.json": 1}
JSON_LINES = 1  # of what `--json` prints


def with_schema(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of that name holds, its schema number first."""
    return {SCHEMA: SCHEMAS[name], **{key: value for key, value in values.items() if key != SCHEMA}}


def check_schema(path: Path, values: Mapping[str, Any]) -> None:
    """Check a file's schema number. Raises ProjectError, which names the file, if it is newer than this version reads, ValueError if it is
    not a schema number."""
    known, found = SCHEMAS[path.name], values.get(SCHEMA, 1)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ValueError(f"its schema can't be {shortened(repr(found))}")
    if found > known:
        raise ProjectError(
            f"{path} was written by a newer dreambooth (schema {found}; this one reads up to {known})",
            "update dreambooth; with pipx: pipx upgrade dreambooth-cli",
        )


def check_values(expected: type[Any], values: Any) -> None:
    """Check the values of a JSON file against the fields of a dataclass. Raises ValueError, which names the first that does not fit."""
    if not isinstance(values, dict):
        raise ValueError(f"it holds no {expected.__name__.lower()}")
    hints = _hints(expected)  # type: ignore[arg-type] # mypy takes the class's hash for its instances'
    for item in fields(expected):
        if item.name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"{item.name} is missing")
        if item.name in values and is_dataclass(hints[item.name]):
            check_values(hints[item.name], values[item.name])
        elif item.name in values and not _fits(values[item.name], hints[item.name]):
            raise ValueError(f"{item.name} can't be {shortened(repr(values[item.name]))}")


_hints = cache(get_type_hints)


def _fits(value: Any, expected: Any) -> bool:
    """Whether a JSON value fits a type: a list for a tuple, any number for a float."""
    of, inner = get_origin(expected), get_args(expected)
    if isinstance(expected, type) and is_dataclass(expected):
        try:
            check_values(expected, value)
        except ValueError:
            return False
        return True
    if of is Literal:
        return isinstance(value, str) and value in inner
    if of in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if of is tuple:
        return isinstance(value, list) and all(_fits(each, inner[0]) for each in value)
    if of is dict:
        return isinstance(value, dict) and all(_fits(each, inner[1]) for each in value.values())
    if expected in (int, float):
        if not isinstance(value, int | expected) or isinstance(value, bool):
            return False
        return math.isfinite(value) if isinstance(value, float) else abs(value) <= LARGEST_SEED
    if expected is str:
        return isinstance(value, str) and is_text(value)
    return expected is Any or isinstance(value, expected)
