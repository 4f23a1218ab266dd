"""`kill -9` and power cuts: before every single change that a run makes to files, and at random instants of every phase.

    python -m tests.faults.kills [--every K] [--instants N]

After each, the same command is run again: it must go on from what had been saved, end with the weights of an undisturbed run, to
the bit, and leave nothing half written.
"""

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from threading import Timer

from .power import Disk
from .row import Row
from .scenario import Scenario, events_in, leftovers, weights_of
from .watched import Change, can_watch, is_loaded, relaunch, run_followed, run_unwatched, run_watched

EXIT_CODES = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}


def count_changes(scenario: Scenario, home: Path) -> list[Change]:
    """All changes of an undisturbed run, in their order. Its result lies in `home`."""
    code, changes = run_watched(lambda: scenario.train(home), home, home.with_suffix(".out"), lambda _: True)
    if code != 0:
        raise RuntimeError(home.with_suffix(".out").read_text())
    return changes


def kill_before(scenario: Scenario, home: Path, number: int, *, power_cut: bool) -> Path:
    """Run until change `number` is about to be made, and kill. Returns what was printed until then."""
    output, disk, seen = home.with_suffix(".out"), Disk(home), 0
    output.unlink(missing_ok=True)

    def may_go(change: Change) -> bool:
        nonlocal seen
        if power_cut:
            disk.notice(change)
        seen += 1
        return seen <= number

    run_watched(lambda: scenario.train(home), home, output, may_go)
    if power_cut:
        disk.cut()
    disk.close()
    return output


def faults_after(scenario: Scenario, home: Path, printed: Path, wanted: dict[str, str]) -> tuple[list[str], list[str]]:
    """Run the command again after a kill. Returns what was lost and what came out unequal, in words."""
    saved = max((event["step"] for event in events_in(printed) if event["event"] == "checkpoint"), default=0)
    finished = any(event["event"] == "model" for event in events_in(printed))
    again = home.with_suffix(".again")
    again.unlink(missing_ok=True)
    code = run_unwatched(lambda: scenario.train(home), again)
    if code != 0:
        return [f"the next run ended with {code}: {again.read_text()[-600:]}"], []
    begun = [event["step"] for event in events_in(again) if event["event"] == "run"]
    lost = [f"step {saved} was saved, the next run began at {begun[0]}"] if begun and begun[0] < saved else []
    lost += ["the model was saved, the next run trained again"] if finished and begun else []
    lost += [f"left behind: {name}" for name in leftovers(home)]
    return lost, [] if weights_of(home) == wanted else ["other weights"]


def try_every(scenario: Scenario, *, power_cut: bool, every: int) -> Row:
    """Kill, or cut the power, before every `every`-th change."""
    reference = scenario.home("undisturbed")
    changes, wanted = count_changes(scenario, reference), {}
    wanted = weights_of(reference)
    lost, unequal, slowest, remarks = 0, 0, 0.0, []
    numbers = range(0, len(changes), every)
    for number in numbers:
        home = scenario.home("home")
        printed = kill_before(scenario, home, number, power_cut=power_cut)
        began = time.monotonic()
        missing, other = faults_after(scenario, home, printed, wanted)
        slowest = max(slowest, time.monotonic() - began)
        lost, unequal = lost + bool(missing), unequal + bool(other)
        where = f"before change {number} ({changes[number].operation} {changes[number].path.name})"
        remarks += [f"{where}: {'; '.join([*missing, *other])}"] if missing or other else []
    what = "power cut" if power_cut else "kill -9"
    return Row(
        f"{what} before change {'' if every == 1 else f'1, {1 + every}, ... '}of {len(changes)}",
        len(numbers),
        lost,
        unequal,
        slowest,
        remarks,
    )


def phases_of(scenario: Scenario, home: Path) -> dict[str, float]:
    """The phases of an undisturbed run and how long each took, in s."""
    begun: list[tuple[str, float]] = []

    def heard(child: int, line: str) -> None:
        if phase := phase_in(line):
            begun.append((phase, time.monotonic()))

    run_followed(lambda: scenario.train(home), home.with_suffix(".out"), heard)
    begun.append(("end", time.monotonic()))
    return {name: later - since for (name, since), (_, later) in pairwise(begun)}


def phase_in(line: str) -> str | None:
    """The name of the phase that a printed line begins."""
    found = re.match(r'\{"event": "phase", "name": "([^"]*)"', line)
    return found[1] if found else None


def send_in_phase(scenario: Scenario, home: Path, phase: str, delay: float, number: signal.Signals) -> tuple[Path, int]:
    """Run, and send a signal some seconds after a phase has begun. Returns what was printed and the exit status."""
    output, timers = home.with_suffix(".out"), []
    output.unlink(missing_ok=True)

    def heard(child: int, line: str) -> None:
        if phase_in(line) == phase and not timers:
            timers.append(Timer(delay, os.kill, (child, number)))
            timers[0].start()

    code = run_followed(lambda: scenario.train(home), output, heard)
    for timer in timers:
        timer.cancel()
    return output, code


def try_instants(scenario: Scenario, *, count: int, number: signal.Signals) -> Row:
    """A signal at random instants, as many in each phase; an instant is a share of the time that the phase took undisturbed."""
    reference = scenario.home("undisturbed")
    phases = phases_of(scenario, reference)
    wanted, random = weights_of(reference), Random(f"instants {number}")
    lost, unequal, slowest, remarks = 0, 0, 0.0, []
    for turn in range(count):
        phase = list(phases)[turn % len(phases)]
        home = scenario.home("home")
        delay = random.random() * phases[phase]
        began = time.monotonic()
        printed, code = send_in_phase(scenario, home, phase, delay, number)
        took = time.monotonic() - began
        missing, other = faults_after(scenario, home, printed, wanted)
        if code not in (0, EXIT_CODES[number]):
            missing.append(f"exit status {code}")
        slowest = max(slowest, took if number != signal.SIGKILL else 0.0)
        lost, unequal = lost + bool(missing), unequal + bool(other)
        remarks += [f"{delay:.2f} s into {phase}: {'; '.join([*missing, *other])}"] if missing or other else []
    what = f"{number.name} at random instants, {len(phases)} phases in turn"
    return Row(what, count, lost, unequal, slowest, remarks)


def prepare_scenario(folder: Path) -> Scenario:
    """The small base and the photos. A first run in this very process imports all that its children need."""
    import torch

    from tests import conftest, small_models

    torch.set_num_threads(1)
    photos = folder / "photos"
    photos.mkdir()
    for number in range(4):
        conftest.draw_photo(photos / f"{number}.png", (96, 80), seed=number)
    scenario = Scenario(folder, small_models.build("sd1", folder / "base"), photos)
    with (folder / "warm.out").open("w") as output, redirect_stdout(output):
        scenario.train(scenario.home("warm"))
    return scenario


def rows(every: int = 1, instants: int = 200) -> Iterator[Row]:
    """The table's lines. The process must have the watch loaded."""
    with TemporaryDirectory() as folder:
        scenario = prepare_scenario(Path(folder).resolve())
        for power_cut in (False, True):
            yield try_every(scenario, power_cut=power_cut, every=every)
        for number in EXIT_CODES:
            yield try_instants(scenario, count=instants, number=number)


def main() -> int:
    """Print the lines. Returns 1 where something was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills")
    parser.add_argument("--every", type=int, default=1, help="try every K-th change alone")
    parser.add_argument("--instants", type=int, default=200, help="how many random instants for each signal")
    asked = parser.parse_args()
    if not can_watch():
        print("needs Linux and a C compiler")
        return 1
    if not is_loaded():
        return relaunch("tests.faults.kills", sys.argv[1:])
    found = []
    for row in rows(asked.every, asked.instants):
        print(row, flush=True)
        found.append(row)
    return 1 if any(row.lost or row.unequal for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
