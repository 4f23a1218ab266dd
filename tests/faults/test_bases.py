"""A few damaged bases of every kind; all of them: `python -m tests.faults.bases`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreambooth_cli.engine.families import parts

from . import bases

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="fifos, links and devices of POSIX")]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Where the mutants are made."""
    with bases.prepared() as folder:
        yield folder


@pytest.mark.parametrize("kind", bases.KINDS)
def test_every_damaged_base_is_refused_or_works(kind: str, place: Path) -> None:
    row = bases.try_all(kind, 12, place / kind)
    assert (row.what, row.tried, row.lost) == (f"bases: {kind}", 12, 0), row.remarks


FAULTS: dict[str, Any] = {
    "weights that are made up": ("check_fit", lambda *_: None),
    "a refusal without words": ("read_header", lambda file: file["a bug"]),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_lost_is_seen(what: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows themselves can fail."""
    name, broken = FAULTS[what]
    monkeypatch.setattr(parts, name, broken)
    assert bases.try_all("weights", 12, place / what).lost
