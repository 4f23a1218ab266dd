"""A few damaged LoRA files of every kind; all of them: `python -m tests.faults.loras`."""

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from dreambooth_cli.engine.families import lora_file

from . import loras

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="fifos, links and devices of POSIX")]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Where the mutants are made."""
    with loras.prepared() as folder:
        yield folder


@pytest.mark.parametrize("kind", loras.KINDS)
def test_every_damaged_lora_is_refused_or_read_right(kind: str, place: Path) -> None:
    row = loras.try_all(kind, 15, place / kind)
    assert (row.what, row.tried, row.lost) == (f"loras: {kind}", 15, 0), row.remarks


def test_a_mutant_can_be_made_again(place: Path) -> None:
    one, two = (loras.make("bytes", 3, place / name).path.read_bytes() for name in ("one", "two"))
    assert one == two


FAULTS: dict[str, tuple[str, str, Any]] = {
    "a scale that is dropped": ("metadata", "scale_of", lambda *_: 1.0),
    "a refusal without words": ("bytes", "refused", lambda *_: nullcontext()),
    "layers that are left out in silence": ("tensors", "_load", None),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_lost_is_seen(what: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows themselves can fail."""
    kind, name, broken = FAULTS[what]
    true = getattr(lora_file, name)
    monkeypatch.setattr(lora_file, name, broken or (lambda *given: true(*given)[:0]))
    assert loras.try_all(kind, 40, place / what).lost
