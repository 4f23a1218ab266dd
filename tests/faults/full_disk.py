"""A disk that fills up in the middle of a run, at every change that the run makes to files; then there is room again.

It uses a small tmpfs, so it needs the right to mount one. A disk that is too small from the start is refused beforehand
(`tests/test_disk.py`); here something else takes the room during the run.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from .kills import faults_after, small_scenario
from .row import Row
from .scenario import Scenario, events_in, every_so_often
from .watched import GO, Change, run_watched

SIZE = "200m"


class MayNotMount(Exception):
    """This user may not mount a file system."""


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs of its own. Raises MayNotMount."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        raise MayNotMount(mounted.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(disk: Path) -> Path:
    """Take all the room that is left. Returns the file that has it."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        free = os.statvfs(disk)
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_bsize)
    return ballast


def fill_before(scenario: Scenario, home: Path, output: Path, number: int) -> int:
    """Run, with the disk full from before change `number` on; then make room. Returns the exit status."""
    output.unlink(missing_ok=True)
    seen, taken = 0, []

    def answer(change: Change) -> int:
        nonlocal seen
        if seen == number:
            taken.append(fill(home.parent))
        seen += 1
        return GO

    code, _ = run_watched(lambda: scenario.run(home), home, output, answer)
    for ballast in taken:
        ballast.unlink()
    return code


def try_every(scenario: Scenario, disk: Path, *, every: int) -> Row:
    """Fill the disk before every `every`-th change."""
    on_disk = replace(scenario, folder=disk)
    changes, wanted = on_disk.undisturbed
    numbers, which = every_so_often(len(changes), every)
    lost, unequal, slowest, remarks = 0, 0, 0.0, []
    for number in numbers:
        home, output = on_disk.home("home"), scenario.folder / "home.out"
        began = time.monotonic()
        code = fill_before(on_disk, home, output, number)
        slowest = max(slowest, time.monotonic() - began)
        missing, other = faults_after(on_disk, home, output, wanted)
        told = [event for event in events_in(output) if event["event"] == "error"]
        if code not in (0, 6) or (code == 6 and "make room" not in told[-1]["hint"]):
            missing.append(f"exit status {code}: {output.read_text()[-300:]}")
        lost, unequal = lost + bool(missing), unequal + bool(other)
        where = f"before change {number} ({changes[number].operation} {changes[number].path.name})"
        remarks += [f"{where}: {'; '.join([*missing, *other])}"] if missing or other else []
    return Row(f"disk full from {which} of {len(changes)} changes on", len(numbers), lost, unequal, slowest, remarks)


def rows_of(scenario: Scenario, *, every: int) -> Iterator[Row]:
    """The table's line."""
    try:
        with small_disk(scenario.folder / "disk") as disk:
            yield try_every(scenario, disk, every=every)
    except MayNotMount as error:
        yield Row("disk full", 0, remarks=[f"not tried: {error}"])


def rows() -> Iterator[Row]:
    """The same at every third change. The process must have the watch loaded."""
    with small_scenario() as scenario:
        yield from rows_of(scenario, every=3)
