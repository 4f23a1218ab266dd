"""Mutants of LoRAs and bases, each given to the program in this process or in a process of its own, and what went wrong."""

import contextlib
import re
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from .documents import HANG
from .peak import MOST_MEMORY, forget_peak, peak_of_memory
from .row import Row

READ, REFUSED, ANY = "read", "refused", "any"  # what must become of a mutant


class Made(Protocol):
    """A mutant that was made; `must` says what has to become of it."""

    @property
    def must(self) -> str:
        """READ, REFUSED or ANY."""


M = TypeVar("M", bound=Made)


def try_all(what: str, make: Callable[[int, Path], M], read: Callable[[M], None], count: int, place: Path) -> Row:
    """Mutants 0 to `count` of a kind, each read in this process."""
    slowest, most, failures, worked = 0.0, 0, [], 0
    place.mkdir()
    for number in range(count):
        folder = place / str(number)
        mutant = make(number, folder)
        held, moment = forget_peak(), time.process_time()
        try:
            with no_hang():
                read(mutant)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            failures.append(f"{number}: {type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:500]}")
        took, grown = time.process_time() - moment, peak_of_memory() - held
        slowest, most, worked = max(slowest, took), max(most, grown), worked + (mutant.must == READ)
        if took > HANG or grown > MOST_MEMORY:
            failures.append(f"{number}: {took:.1f} s, {grown / 1e6:.0f} MB")
        failures += sprung(folder, f"{number}")
        shutil.rmtree(folder, ignore_errors=True)
    remarks = [*failures, f"at most {most / 1e6:.0f} MB for one; {worked} had to work"]
    return Row(what, count, len(failures), slowest=slowest, remarks=remarks)


def try_processes(
    what: str,
    kinds: Sequence[str],
    make: Callable[[str, int, Path], M],
    run: Callable[[M, int, Path], None],
    count: int,
    place: Path,
) -> Row:
    """Mutants 0 to `count` of every kind, each given to a process."""
    failures, slowest, taken = [], 0.0, 0
    place.mkdir()
    for kind in kinds:
        for number in range(count):
            folder = place / re.sub(r"\W+", "-", f"{kind}-{number}")
            mutant, moment = make(kind, number, folder), time.monotonic()
            try:
                run(mutant, number, folder / "out")
            except (AssertionError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
                failures.append(f"{kind} {number}: {str(error)[-1500:]}")
            failures += sprung(folder, f"{kind} {number}")
            slowest, taken = max(slowest, time.monotonic() - moment), taken + 1
            shutil.rmtree(folder, ignore_errors=True)
    return Row(what, taken, len(failures), slowest=slowest, remarks=failures)


def sprung(folder: Path, which: str) -> list[str]:
    """What to say if the trap in a pickle has left its mark."""
    return [f"{which}: a pickle was opened"] if (folder / "sprung").exists() else []


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """An alarm for anything that would wait for ever, such as a fifo."""

    def stop(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(int(6 * HANG))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
