"""Terminals that go away in the middle of a run, streams that can't be written, signals that the parent ignores.

    python -m tests.faults --only terminals

A run saves when its terminal hangs up (exit code 129); under `nohup`, or with a stream that is full or closed, it goes on to its end. After
each, the same command run again must end with the weights of an undisturbed run.
"""

import os
import pty
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import IO

from .kills import faults_after, small_scenario, try_instants
from .row import Row
from .scenario import Scenario, weights_of
from .watched import run_unwatched

HANG_UPS = {"SIGHUP": 8, "SIGHUP twice": 8}
TIMES = 6  # of each of the others


@dataclass(frozen=True)
class Trouble:
    """What happens to a run: signals that its parent ignores, streams, a signal or the end of its terminal at some instant; and the
    exit codes that it may end with."""

    what: str
    ends: tuple[int, ...] = (0,)
    ignored: tuple[int, ...] = ()
    sent: int | None = None
    terminal: bool = False
    streams: tuple[tuple[int, str], ...] = ()
    closed: tuple[int, ...] = ()


TROUBLES = (
    Trouble("the terminal is gone", ends=(0, 129), terminal=True),
    Trouble("the terminal is gone, under nohup", ignored=(signal.SIGHUP,), terminal=True),
    Trouble("SIGHUP under nohup", ignored=(signal.SIGHUP,), sent=signal.SIGHUP),
    Trouble("SIGINT that the parent ignores", ignored=(signal.SIGINT,), sent=signal.SIGINT),
    Trouble("stderr is full", streams=((2, "/dev/full"),)),
    Trouble("stdout is full", ends=(6,), streams=((1, "/dev/full"),)),
    Trouble("stdin, stdout and stderr are closed", closed=(0, 1, 2)),
)


def prepared(work: Callable[[], int], trouble: Trouble) -> Callable[[], int]:
    """The work of a process that starts under these conditions."""

    def begin() -> int:
        from dreambooth_cli.cli.console import harden_streams

        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN if number in trouble.ignored else signal.SIG_DFL)
        if signal.SIGINT not in trouble.ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        for descriptor, path in trouble.streams:
            os.dup2(os.open(path, os.O_WRONLY), descriptor)
        for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
            if descriptor in trouble.closed:
                os.close(descriptor)
            # as Python makes them at its start: what the parent had may have been a file
            setattr(sys, name, None if descriptor in trouble.closed else open(descriptor, mode, closefd=False))  # noqa: SIM115
        harden_streams()
        return work()

    return begin


def run_troubled(work: Callable[[], int], trouble: Trouble, output: Path, delay: float) -> int:
    """Do `work` in a child; after `delay` s the signal comes, or the terminal goes. Returns the exit status."""
    begin = prepared(work, trouble)
    if not trouble.terminal and trouble.sent is None:
        return run_unwatched(begin, output)
    child, master = pty.fork()
    if child == 0:
        code = 98
        try:
            code = begin()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    until = time.monotonic() + delay
    with output.open("wb") as kept:
        while (left := until - time.monotonic()) > 0 and _copy(master, kept, left):
            pass
        if trouble.sent is not None:
            os.kill(child, trouble.sent)
            while _copy(master, kept, None):
                pass
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _copy(master: int, kept: IO[bytes], seconds: float | None) -> bool:
    """Read what comes from the terminal within some seconds; False if the process has ended."""
    if not select.select([master], [], [], seconds)[0]:
        return True
    try:
        data = os.read(master, 1 << 16)
    except OSError:
        return False
    kept.write(data)
    return bool(data)


def try_trouble(scenario: Scenario, trouble: Trouble, *, count: int) -> Row:
    """One trouble at random instants, alternating between a run that prints JSON and one that prints lines or bars."""
    whole, (_, wanted), random = sum(scenario.phases.values()), scenario.undisturbed, Random(trouble.what)
    lost, unequal, slowest, remarks = 0, 0, 0.0, []
    for turn in range(count):
        home, output = scenario.home("home"), scenario.folder / "home.out"
        output.unlink(missing_ok=True)
        troubled, delay = replace(scenario, as_json=turn % 2 == 0), random.random() * whole
        began = time.monotonic()
        code = run_troubled(partial(troubled.run, home), trouble, output, delay)
        slowest = max(slowest, time.monotonic() - began)
        text = output.read_text(errors="replace") if output.exists() else ""
        missing = [] if code in trouble.ends else [f"exit status {code}: {text[-600:]}"]
        if "Traceback" in text or "this is a bug" in text:
            missing.append(text[-600:])
        if code in (0, 6) and weights_of(home) != wanted:
            missing.append("it went on to another end")
        more, other = faults_after(scenario, home, output, wanted)
        missing += more
        lost, unequal = lost + bool(missing), unequal + bool(other)
        remarks += [f"{trouble.what}, {delay:.2f} s: {'; '.join([*missing, *other])}"] if missing or other else []
    return Row(f"terminals: {trouble.what}", count, lost, unequal, slowest, remarks)


def rows() -> Iterator[Row]:
    """The table's lines."""
    with small_scenario() as scenario:
        for name, count in HANG_UPS.items():
            row = try_instants(scenario, name, count=count)
            yield replace(row, what=f"terminals: {row.what}")
        for trouble in TROUBLES:
            yield try_trouble(scenario, trouble, count=TIMES)
