"""A few bad photos of every kind, on their way through `init` and `prep`; all of them: `python -m tests.faults.photos`."""

import os
from pathlib import Path

import pytest

from . import photos
from .mutants import KINDS, make

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="fifos, links and limits of POSIX")]
SHORT = 3 * len(KINDS)


def test_no_photo_is_lost() -> None:
    rows = list(photos.rows(SHORT))
    assert [row.what for row in rows] == [f"photos: {kind}" for kind in KINDS]
    assert {row.tried for row in rows} == {3}
    assert [row for row in rows if row.lost] == []


def test_the_command_line_answers_too() -> None:
    watched = photos.Watched()
    try:
        batch = watched.ask("names with control characters", 0, 16, True)
    finally:
        watched.close()
    assert batch.failures == []
    assert len(batch.answers) == 17


def test_a_mutant_can_be_made_again(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make("bit flips", 7, tmp_path / name)
        contents.append([(path.name, path.read_bytes()) for path in (tmp_path / name).iterdir()])
    assert contents[0] == contents[1]


def test_what_is_lost_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows themselves can fail: no answer, a wrong one, a process that dies."""
    batch = photos.Batch(
        1, answers={"a.jpg": ("refused", ("",)), "b.jpg": ("kept", ()), "d.jpg": ("refused", ("cut",))}
    )
    assert list(photos.judge(["a.jpg"], False, batch)) == ["'a.jpg': refused without a reason"]
    assert list(photos.judge(["c.jpg"], False, batch)) == ["no answer about 'c.jpg'"]
    assert list(photos.judge(["d.jpg"], True, batch)) == ["'d.jpg' is whole, but refused: cut"]
    assert list(photos.judge(["b.jpg"], True, batch)) == []
    monkeypatch.setattr(photos, "work", os._exit)
    row = photos.try_kind(photos.Watched(), "bit flips", 1)
    assert (row.tried, row.lost) == (1, 1)
    assert "the process died" in row.remarks[-1]
