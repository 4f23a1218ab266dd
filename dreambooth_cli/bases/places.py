"""Where bases lie on this machine, by what they hold: a LoRA's card names its base, and no card names a place.

`bases.json` in the user's data directory. It is only ever a help: a damaged one is begun anew, one that can't be written
or that a newer version wrote is left.
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
    """Where a base of this identity has lain, the latest place first."""
    with suppress(ProjectError):
        yield from [Path(place) for known, place in _read() if known == identity]


def remember_place(identity: str, place: Path) -> None:
    """Keep where a base lies, before all that was kept; the oldest is forgotten."""
    entry = (identity, str(place))
    with suppress(OSError, ValueError, ProjectError):  # a name that is no text, say
        kept = [entry, *(each for each in _read() if each != entry)][:MOST]
        make_folder(home_folder())
        write_json(_file(), with_schema("bases.json", {"bases": [{"identity": known, "path": at} for known, at in kept]}))


def _file() -> Path:
    return home_folder() / "bases.json"


def _read() -> list[tuple[str, str]]:
    """What is kept, as far as it can be read. Raises ProjectError where it is of a newer schema."""
    try:
        if _file().stat().st_size > MOST_BYTES:
            return []
        told = json.loads(read_text(_file()))
        check_schema(_file(), told)
        entries = [(entry["identity"], entry["path"]) for entry in told["bases"]][:MOST]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return [entry for entry in entries if all(isinstance(part, str) and part and "\0" not in part for part in entry)]
