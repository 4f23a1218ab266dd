"""A long run: memory, open files and the event log do not grow beyond what is stated here."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from .kills import small_scenario
from .row import Row
from .scenario import EVERY, Scenario, events_in
from .watched import run_followed

STEPS = 20_000
SAMPLES = 200  # looks at the process, spread over the run
MEMORY = (
    20 * 2**20
)  # bytes that the second half of the run may hold more than the first after its warm-up, by the line through both
EVENT = 220  # bytes of the event log for a step
FILES = 4  # open files more than at the first look


def look_at(steps: int, scenario: Scenario, home: Path, output: Path) -> tuple[int, list[tuple[int, int]], int]:
    """Run, and look at the process SAMPLES times. Returns its exit status, (resident bytes, open files) each time, and the bytes
    of the event log."""
    looks: list[tuple[int, int]] = []
    every = max(1, steps // SAMPLES)

    def heard(child: int, line: str) -> None:
        if line.startswith('{"event": "step", ') and (len(looks) + 1) * every <= int(
            line.split('"step": ')[1].split(",")[0]
        ):
            process = psutil.Process(child)
            looks.append((process.memory_info().rss, process.num_fds()))

    code = run_followed(lambda: scenario.run(home), output, heard)
    (log,) = home.rglob("events.jsonl")
    return code, looks, log.stat().st_size


def growth_of(values: list[int]) -> float:
    """How much values grow from the first to the last, by the straight line that fits them best; the first fifth is warm-up."""
    settled = values[len(values) // 5 :]
    slope, _ = statistics.linear_regression(range(len(settled)), settled)
    return slope * len(settled)


def row_of(small: Scenario, *, steps: int) -> Row:
    """The table's line."""
    changed = {"--steps": steps, "--checkpoint-every": steps // EVERY, "--sample-every": 0}
    scenario = replace(small, settings={**small.settings, **changed})
    output, began = scenario.folder / "long.out", time.monotonic()
    code, looks, log = look_at(steps, scenario, scenario.home("long"), output)
    memory, files = growth_of([look[0] for look in looks]), looks[-1][1] - looks[0][1]
    faults = [f"exit status {code}: {output.read_text()[-300:]}"] if code else []
    faults += [f"memory grew by {memory / 2**20:.1f} MB"] if memory > MEMORY else []
    faults += [f"{files} more open files"] if files > FILES else []
    faults += [f"{log / steps:.0f} bytes of the event log a step"] if log > EVENT * steps + 20_000 else []
    told = (
        f"{len([event for event in events_in(output) if event['event'] == 'step']):,} steps in {time.monotonic() - began:.0f} s: "
        f"memory {memory / 2**20:+.1f} MB, open files {files:+d}, event log {log / steps:.0f} bytes a step"
    )
    return Row("a long run", 1, lost=len(faults), remarks=[told, *faults])


def rows() -> Iterator[Row]:
    """The same of a run that is long indeed."""
    with small_scenario() as scenario:
        yield row_of(scenario, steps=STEPS)
