"""A few tries of each harm that a hub can do; all of them: `python -m tests.faults.hostile_hub`."""

import pytest

from . import hostile_hub

pytestmark = pytest.mark.slow


def test_a_hostile_hub_gets_an_answer_in_words() -> None:
    rows = list(hostile_hub.rows(here=15, commands=0))
    assert [row.what for row in rows] == [f"a hostile hub: {kind}" for kind in hostile_hub.KINDS]
    assert [row for row in rows if row.lost] == []
