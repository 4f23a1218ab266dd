"""Where bases are on this machine, by their content: a LoRA's card names its base by a hash, since no card contains a path.

Kept in `bases.json` in the user's data directory. Nothing depends on it: a damaged file is replaced, and one that can't be written, or that
a newer version wrote, is left alone.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..disk import make_folder, read_text, write_json
from ..errors import ProjectError
from ..paths import home_folder
from ..schemas import check_schema, with_schema

MOST = 100
MOST_BYTES = 1_000_000


def known_places(identity: str) -> Iterator[Path]:
    """Where a base of this identity has been seen, the latest place first."""
    with suppress(ProjectError):
        yield from [Path(place) for known, place in _read() if known == identity]


def remember_place(identity: str, place: Path) -> None:
    """Note where a base is, as the latest entry; when there are too many, the oldest is forgotten."""
    entry = (identity, str(place))
    with suppress(OSError, ValueError, ProjectError):  # such as a name that is not valid text
        kept = [entry, *(each for each in _read() if each != entry)][:MOST]
        make_folder(home_folder())
        write_json(_file(), with_schema("bases.json", {"bases": [{"identity": known, "path": at} for known, at in kept]}))


def _file() -> Path:
    return home_folder() / "bases.json"


def _read() -> list[tuple[str, str]]:
    """The entries (identity, path), as far as they can be read. Raises ProjectError if a newer version wrote the file."""
    try:
        if _file().stat().st_size > MOST_BYTES:
            return []
        told = json.loads(read_text(_file()))
        check_schema(_file(), told)
        entries = [(entry["identity"], entry["path"]) for entry in told["bases"]][:MOST]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return [entry for entry in entries if all(isinstance(part, str) and part and "\0" not in part for part in entry)]
