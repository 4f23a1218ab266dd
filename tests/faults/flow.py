"""The flow families' runs: `kill -9`, power cuts and a full disk before the changes that they make to files.

    python -m tests.faults --only flow
"""

from collections.abc import Iterator
from dataclasses import replace

from tests.small_flow import KINDS

from . import full_disk
from .kills import small_scenario, try_every
from .row import Row
from .scenario import Scenario

EVERY = 5  # changes from one that is tried to the next; with a full disk twice as many


def rows_of(scenario: Scenario, kind: str, *, every: int) -> Iterator[Row]:
    """A family's lines."""
    tried = [*(try_every(scenario, power_cut=cut, every=every) for cut in (False, True)), *full_disk.rows_of(scenario, every=2 * every)]
    yield from (replace(row, what=f"flow families: {kind}, {row.what}") for row in tried)


def rows() -> Iterator[Row]:
    """The table's lines. The process must have the watch loaded."""
    for kind in KINDS:
        with small_scenario(kind) as scenario:
            yield from rows_of(scenario, kind, every=EVERY)
