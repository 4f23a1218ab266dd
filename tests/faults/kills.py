"""`kill -9`, power cuts and signals: before every single change that a run makes to files, and at random instants of every phase.

    python -m tests.faults --only kills --only power-cuts --only signals

After each, the same command is run again: it must go on from what had been saved, end with the weights of an undisturbed run to the bit,
and leave nothing half written.
"""

import gc
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from threading import Timer

from .power import Disk
from .row import Row
from .scenario import Scenario, events_in, every_so_often, leftovers, phase_in, weights_of
from .watched import GO, KILL, Change, run_followed, run_unwatched, run_watched

SIGNALS = {
    "kill -9": ((signal.SIGKILL,), -9),
    "Ctrl-C": ((signal.SIGINT,), 130),
    "SIGTERM": ((signal.SIGTERM,), 143),
    "Ctrl-C twice": ((signal.SIGINT, signal.SIGINT), 130),
    "SIGHUP": ((signal.SIGHUP,), 129),
    "SIGHUP twice": ((signal.SIGHUP, signal.SIGHUP), 129),
}
INSTANTS = {"kill -9": 200, "Ctrl-C": 32, "SIGTERM": 32, "Ctrl-C twice": 32}
AFTER_THE_FIRST = 0.2  # s at most, until the second of two signals


def kill_before(scenario: Scenario, home: Path, number: int, *, power_cut: bool) -> Path:
    """Run until change `number` is about to be made, and kill. Returns what was printed until then."""
    output, disk, seen = home.with_suffix(".out"), Disk(home), 0
    output.unlink(missing_ok=True)

    def answer(change: Change) -> int:
        nonlocal seen
        if power_cut:
            disk.notice(change)
        seen += 1
        return GO if seen <= number else KILL

    run_watched(lambda: scenario.run(home), home, output, answer)
    if power_cut:
        disk.cut()
    disk.close()
    return output


def faults_after(scenario: Scenario, home: Path, printed: Path, wanted: dict[str, str]) -> tuple[list[str], list[str]]:
    """Run the command again after a kill. Returns, in words, what was lost and what came out unequal."""
    saved = max((event["step"] for event in events_in(printed) if event["event"] == "checkpoint"), default=0)
    finished = any(event["event"] == "model" for event in events_in(printed))
    again = home.with_suffix(".again")
    again.unlink(missing_ok=True)
    code = run_unwatched(lambda: scenario.run(home), again)
    if code != 0:
        return [f"the next run ended with {code}: {again.read_text()[-600:]}"], []
    begun = [event["step"] for event in events_in(again) if event["event"] == "run"]
    lost = [f"step {saved} was saved, the next run began at {begun[0]}"] if begun and begun[0] < saved else []
    lost += ["the model was saved, the next run trained again"] if finished and begun else []
    lost += [f"left behind: {name}" for name in leftovers(home)]
    return lost, [] if weights_of(home) == wanted else ["other weights"]


def try_every(scenario: Scenario, *, power_cut: bool, every: int) -> Row:
    """Kill, or cut the power, before every `every`-th change."""
    changes, wanted = scenario.undisturbed
    lost, unequal, slowest, remarks = 0, 0, 0.0, []
    numbers, which = every_so_often(len(changes), every)
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
    return Row(f"{what} before {which} of {len(changes)} changes", len(numbers), lost, unequal, slowest, remarks)


def send_in_phase(
    scenario: Scenario, home: Path, phase: str, delays: Iterable[tuple[float, signal.Signals]]
) -> tuple[Path, int]:
    """Run, and send signals some seconds after a phase has begun. Returns what was printed and the exit status."""
    output, timers = home.with_suffix(".out"), list[Timer]()
    output.unlink(missing_ok=True)

    def heard(child: int, line: str) -> None:
        if phase_in(line) == phase and not timers:
            timers.extend(Timer(delay, os.kill, (child, number)) for delay, number in delays)
            for timer in timers:
                timer.start()

    code = run_followed(lambda: scenario.run(home), output, heard)
    for timer in timers:
        timer.cancel()
    return output, code


def try_instants(scenario: Scenario, name: str, *, count: int) -> Row:
    """Signals at random instants, the same number in each phase; an instant is a share of the time that the phase takes undisturbed."""
    phases, (_, wanted) = scenario.phases, scenario.undisturbed
    (numbers, expected), random = SIGNALS[name], Random(f"instants {name}")
    lost, unequal, slowest, remarks = 0, 0, 0.0, []
    for turn in range(count):
        phase = list(phases)[turn % len(phases)]
        home = scenario.home("home")
        delay = random.random() * phases[phase]
        delays = [(delay + place * random.random() * AFTER_THE_FIRST, number) for place, number in enumerate(numbers)]
        printed, code = send_in_phase(scenario, home, phase, delays)
        began = time.monotonic()
        missing, other = faults_after(scenario, home, printed, wanted)
        if code not in (0, expected):
            missing.append(f"exit status {code}")
        slowest = max(slowest, time.monotonic() - began)
        lost, unequal = lost + bool(missing), unequal + bool(other)
        remarks += [f"{delay:.2f} s into {phase}: {'; '.join([*missing, *other])}"] if missing or other else []
    return Row(f"{name} at random instants, {len(phases)} phases in turn", count, lost, unequal, slowest, remarks)


def warm_up(scenario: Scenario, name: str) -> None:
    """Run in this very process, which imports everything that its children need. Signals then mean again what they meant before, so that
    they can end this process. Raises SystemExit if the run does not succeed."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    printed = scenario.folder / "warm.out"
    with printed.open("w") as output, redirect_stdout(output):
        code = scenario.run(scenario.home(name))
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if code != 0:  # a signal has stopped it, or it failed
        raise SystemExit(f"the first run ended with {code}: {printed.read_text()[-600:]}")


def prepare_scenario(folder: Path, kind: str) -> Scenario:
    """Make the small base of a kind and the photos."""
    import torch
    from PIL import Image

    from tests import conftest, small_flow, small_models

    torch.set_num_threads(1)
    photos = folder / "photos"
    photos.mkdir()
    for number in range(4):
        conftest.draw_photo(photos / f"{number}.png", (96, 80), seed=number)
    (photos / "0.txt").write_text("in the snow", encoding="utf-8")
    Image.new("L", (96, 80), 255).save(photos / "1.mask.png")
    build = small_flow.build if kind in small_flow.KINDS else small_models.build
    scenario = Scenario(folder, build(kind, folder / "base"), photos)
    warm_up(scenario, "warm")
    # or each child goes through all that was imported whenever its run gives memory back: more than half of its time
    gc.collect()
    gc.freeze()
    return scenario


@contextmanager
def small_scenario(kind: str = "sd1") -> Iterator[Scenario]:
    """The scenario in a folder that lasts until the block ends. The process must have the watch loaded."""
    with TemporaryDirectory(prefix="dreambooth-faults-") as folder:
        yield prepare_scenario(Path(folder).resolve(), kind)


def rows_of_changes(*, power_cut: bool, every: int = 1) -> Iterator[Row]:
    """The table's line of kills, or of power cuts, before each change."""
    with small_scenario() as scenario:
        yield try_every(scenario, power_cut=power_cut, every=every)


def rows_of_instants(counts: Mapping[str, int] = INSTANTS) -> Iterator[Row]:
    """The table's lines of signals at random instants, with so many tries for each signal."""
    with small_scenario() as scenario:
        for name, count in counts.items():
            yield try_instants(scenario, name, count=count)
