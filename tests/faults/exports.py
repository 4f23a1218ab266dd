"""`export`: `kill -9` and a full disk before the changes that it makes to files; afterwards the export is whole or not there at all.

    python -m tests.faults --only exports
"""

from collections.abc import Iterator
from dataclasses import replace

from . import full_disk
from .kills import small_scenario, try_every, warm_up
from .row import Row
from .scenario import Exporting, Scenario

FORMATS = {"sd1": "single-file", "klein": "merged"}  # of a whole model, and of a LoRA with its base
EVERY = {"single-file": 1, "merged": 10}  # changes from one that is tried to the next: a folder takes many more of them


def exporting(scenario: Scenario, format: str) -> Exporting:
    """The export of what the scenario's first run made, done once, so that what it imports is here."""
    made = Exporting(scenario.folder, scenario.base, scenario.photos, model=scenario.folder / "warm" / "out", format=format)
    warm_up(made, "warm-export")
    return made


def rows_of(scenario: Scenario, format: str, *, every: int) -> Iterator[Row]:
    """A format's lines."""
    made = exporting(scenario, format)
    tried = [try_every(made, power_cut=False, every=every), *full_disk.rows_of(made, every=every)]
    yield from (replace(row, what=f"export: {format}, {row.what}") for row in tried)


def rows() -> Iterator[Row]:
    """The table's lines. The process must have the watch loaded."""
    for kind, format in FORMATS.items():
        with small_scenario(kind) as scenario:
            yield from rows_of(scenario, format, every=EVERY[format])
