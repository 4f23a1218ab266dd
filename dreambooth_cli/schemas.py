"""The schema numbers: which form of each kept file this version writes, and up to which it reads them. They are declared here alone.

A file without a number is of schema 1, which version 0.1 wrote. A number counts up only where an older dreambooth would
misread the file: a field that is merely added does not count.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import ProjectError
from .settings import shortened

SCHEMA = "schema"  # the key, at the top of each file
SCHEMAS = {"project.toml": 1, "plan.json": 1, "model.json": 1, "dreambooth.json": 1, "report.json": 1, "bases.json": 1}
JSON_LINES = 1  # of what `--json` prints


def with_schema(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of that name holds, its schema number first."""
    return {SCHEMA: SCHEMAS[name], **{key: value for key, value in values.items() if key != SCHEMA}}


def check_schema(path: Path, values: Mapping[str, Any]) -> None:
    """Hold a file's number against what this version reads. Raises ProjectError that names the file where it is newer,
    ValueError where it is no number of a schema."""
    known, found = SCHEMAS[path.name], values.get(SCHEMA, 1)
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ValueError(f"its schema can't be {shortened(repr(found))}")
    if found > known:
        raise ProjectError(
            f"{path} was written by a newer dreambooth (schema {found}; this one reads up to {known}): update it",
            "with pipx: pipx upgrade dreambooth-cli",
        )
