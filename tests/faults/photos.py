"""Bad photos given to the real commands: `python -m tests.faults.photos [COUNT]`.

Every photo goes through `init` and `prep`, in a process of its own that is watched: its memory, its time, every file that it opens
to write. Some go through the command line.
"""

import ctypes
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
import traceback
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .mutants import KINDS, make
from .peak import MOST_MEMORY, peak_of_memory
from .row import Row

FULL = 21_600
BATCH = 24  # photos in a folder
HANG = 10.0  # seconds of CPU for one answer: what a busy machine takes beside it does not count
PATIENCE = 300.0  # seconds of silence after which a process hangs, however busy the machine
COMMAND_LINE_EVERY = 20  # batches
CHECKOUT = Path(__file__).parent.parent.parent
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.symlink", "os.link", "os.truncate", "os.chmod"}


@dataclass
class Batch:
    """The result for a folder of mutants: answers by name, the longest wait, what went wrong, and the peak of memory in bytes."""

    photos: int
    answers: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)
    memory: int = 0


def rows(count: int = FULL) -> Iterator[Row]:
    """A row for each kind of bad photo; `count` photos in all."""
    each = max(1, count // len(KINDS))
    watched = Watched()
    try:
        for kind in KINDS:
            yield try_kind(watched, kind, each)
    finally:
        watched.close()


def try_kind(watched: "Watched", kind: str, count: int) -> Row:
    """All mutants of a kind, in batches."""
    row_failures, slowest, memory, lost, by_command = [], 0.0, 0, 0, 0
    for number, start in enumerate(range(0, count, BATCH)):
        size = min(BATCH, count - start)
        on_command_line = number % COMMAND_LINE_EVERY == 1
        batch = watched.ask(kind, start, size, on_command_line)
        by_command += size * on_command_line
        slowest, memory = max(slowest, batch.slowest), max(memory, batch.memory)
        lost += min(size, len(batch.failures))
        row_failures += batch.failures
    if memory > MOST_MEMORY:
        lost += 1
        row_failures.append(f"{memory / 1e6:.0f} MB of memory")
    remarks = [f"at most {memory / 1e6:.0f} MB", *([f"{by_command} by the command line"] if by_command else [])]
    return Row(f"photos: {kind}", count, lost=lost, slowest=slowest, remarks=remarks + row_failures)


class Watched:
    """A process that tries batches, and the patience that ends it. One that hung or died is replaced when it is asked again."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start the process, in a folder of its own."""
        context = multiprocessing.get_context("spawn")
        self.line, theirs = context.Pipe()
        self.folder = TemporaryDirectory(prefix="dreambooth-faults-")
        self.process = context.Process(target=work, args=(theirs, Path(self.folder.name)), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, kind: str, start: int, count: int, on_command_line: bool) -> Batch:
        """The result for a batch; if the process hangs or dies, that is a failure."""
        if not self.process.is_alive():
            self.close()
            self.start()
        name = f"{kind} {start} to {start + count - 1}"
        before = ""
        with suppress(OSError):  # a dead process is seen below
            self.line.send((kind, start, count, on_command_line))
        while True:
            if not self.line.poll(PATIENCE):
                self.close()
                return Batch(
                    count, failures=[f"{name}: no answer in {PATIENCE:.0f} s after {before!r}"], slowest=PATIENCE
                )
            try:
                said = self.line.recv()
            except (EOFError, OSError):
                self.close()
                return Batch(count, failures=[f"{name}: the process died after {before!r}"])
            if isinstance(said, Batch):
                return said
            before = said

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.join()
        self.folder.cleanup()


# ---- in the process


WRITTEN: list[str] = []  # what was written outside the home, while `ALLOWED` is set
ALLOWED: list[str] = []


def work(line: Connection, place: Path) -> None:
    """Answer requests, in a folder of its own, until the connection ends."""
    know_bounds()
    os.environ["DREAMBOOTH_HOME"] = str(place / "home")
    sys.dont_write_bytecode = True  # Python's own writing at the first import of a module
    sys.addaudithook(watch)
    with suppress(EOFError):
        while True:
            kind, start, count, on_command_line = line.recv()
            line.send("making")
            line.send(try_batch(line, place, kind, range(start, start + count), on_command_line))


def know_bounds() -> None:
    """Take no more rights than a user's and set a limit on memory, to protect the machine."""
    if os.geteuid() == 0:
        read_as_a_user()
    resource.setrlimit(resource.RLIMIT_DATA, (4 * 10**9, resource.RLIM_INFINITY))


def read_as_a_user() -> None:
    """Give up root's right to read and write what a file's mode forbids, for this process and those that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    rights = [1, 2]  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for right in rights:
        libc.prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP
    libc.capget(header, sets)
    for place in range(3):  # effective, permitted, inheritable
        sets[place] &= ~sum(1 << right for right in rights)
    libc.capset(header, sets)


def watch(event: str, args: tuple[Any, ...]) -> None:
    """Note what is written or changed outside the home."""
    if not ALLOWED:
        return
    paths: list[Any] = []
    if event == "open" and isinstance(args[2], int) and args[2] & WRITES:
        paths = [args[0]]
    elif event in CHANGES:
        folders = [f"/proc/self/fd/{arg}" for arg in args if isinstance(arg, int) and arg > 2 and event != "os.chmod"]
        at = os.path.realpath(folders[0]) if folders else ""
        paths = [os.path.join(at, os.fsdecode(arg)) for arg in args if isinstance(arg, str | bytes | os.PathLike)]
    for path in paths:
        if isinstance(path, int) or path == os.devnull:
            continue
        text = os.path.abspath(os.fsdecode(path))
        if not text.startswith(ALLOWED[0]):
            WRITTEN.append(f"{event} {text}")


def try_batch(line: Connection, place: Path, kind: str, numbers: range, on_command_line: bool) -> Batch:
    """A folder of mutants with a good photo among them, through `init` and `prep`."""
    source, home = place / "source", place / "home"
    source.mkdir()
    try:
        wanted = {number: fill(source, kind, number) for number in numbers}
        line.send("made")
        before = listing(source)
        batch = Batch(len(numbers))
        (by_command if on_command_line else in_process)(line, source, batch)
        if (after := listing(source)) != before:
            batch.failures.append(f"{kind}: the photo folder was changed: {sorted(set(after) ^ set(before))[:3]}")
        for number, (names, must) in wanted.items():
            batch.failures += [f"{kind} {number}: {said}" for said in judge(names, must, batch)]
        if batch.answers.get("good.png", ("",))[0] != "kept":
            batch.failures.append(f"{kind} {numbers}: the good photo was not used")
        left = [path.name for path in home.iterdir() if path.name not in ("projects", "cache")] if home.is_dir() else []
        batch.failures += [f"{kind}: left behind: {name}" for name in left]
        return batch
    finally:
        shutil.rmtree(home, ignore_errors=True)
        for path in [*place.glob("source-away-*")]:
            path.unlink()
        for path in source.iterdir():
            if os.path.isdir(path) and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(source)


def fill(source: Path, kind: str, number: int) -> tuple[list[str], bool]:
    """Make one mutant; its names and whether it must be used. The good photo comes with the first."""
    from dreambooth_cli.photos.files import printable

    good = source / "good.png"
    if not good.exists():
        import random

        from .mutants import picture

        picture(random.Random(f"good-{kind}-{number}"), size=(96, 96)).save(good)
    before = set(os.listdir(source))
    must = make(kind, number, source)
    return [printable(name) for name in set(os.listdir(source)) - before], must


def judge(names: list[str], must: bool, batch: Batch) -> Iterator[str]:
    """What is wrong with the answers about one mutant."""
    for name in names:
        if name not in batch.answers:
            yield f"no answer about {name!r}"
            continue
        status, reasons = batch.answers[name]
        if must and status not in ("kept", "warned"):
            yield f"{name!r} is whole, but {status}: {'; '.join(reasons)}"
        if status not in ("kept", "warned", "skipped", "refused") or (status != "kept" and not all(reasons)):
            yield f"{name!r}: {status} without a reason"
        if any("Traceback" in reason or len(reason) > 500 for reason in reasons):
            yield f"{name!r}: no words for a person: {reasons}"


def in_process(line: Connection, source: Path, batch: Batch) -> None:
    """`init` and `prep` as the commands call them, every event timed."""
    from dreambooth_cli.cli.app import in_words
    from dreambooth_cli.events import PhotoLooked, ProjectSaved
    from dreambooth_cli.project import Project
    from dreambooth_cli.settings import PrepSettings, SubjectSettings
    from dreambooth_cli.workflows.initialise import initialise
    from dreambooth_cli.workflows.prepare import prepare

    last = ""
    ALLOWED[:] = [os.environ["DREAMBOOTH_HOME"]]
    try:
        subject = SubjectSettings(photos=source, class_prompt="a dog", model="pocket")
        project = None
        events: Any = initialise(None, subject=subject, prep={}, train={})
        for step in (1, 2):
            moment = time.process_time()
            for event in events:
                batch.slowest = max(batch.slowest, time.process_time() - moment)
                line.send(last)
                if isinstance(event, PhotoLooked):
                    last = event.path
                    batch.answers[os.path.basename(event.path)] = (event.status, event.reasons)
                elif isinstance(event, ProjectSaved):
                    project = Project(event.path)
                moment = time.process_time()
            batch.slowest = max(batch.slowest, time.process_time() - moment)
            if step == 1:
                assert project is not None
                events = prepare(project, PrepSettings(), resolution=64, source=source)
    except Exception as error:
        words = in_words(error)
        told = words.message if words else "".join(traceback.format_exception(error)[-3:])
        batch.failures.append(f"after {last!r}: {type(error).__name__}: {told}")
    finally:
        ALLOWED.clear()
    if batch.slowest > HANG:
        batch.failures.append(f"{batch.slowest:.1f} s of CPU for an answer, after {last!r}")
    batch.failures += [f"written outside: {each}" for each in WRITTEN]
    WRITTEN.clear()
    batch.memory = peak_of_memory()


def by_command(line: Connection, source: Path, batch: Batch) -> None:
    """`init` with its JSON lines, then `init` and `prep` with words for a person."""
    shared = ("--photos", str(source), "--class-prompt", "a dog", "--model", "pocket", "--yes")
    before = cpu_of_children()
    made = command(line, "init", "dog", *shared, "--json")
    spent = cpu_of_children() - before
    for text in made.stdout.splitlines():
        event = json.loads(text)
        if event["event"] == "photo":
            batch.answers[os.path.basename(event["path"])] = (event["status"], tuple(event["reasons"]))
    again = command(line, "init", "same-dog", *shared)
    prepared = command(line, "prep", "dog", "--resolution", "64")
    for done in (made, again, prepared):
        if done.returncode != 0 or "Traceback" in done.stderr:
            batch.failures.append(f"exit code {done.returncode}: {done.stdout[-300:]}{done.stderr[-300:]}")
    obeyed = {letter for letter in again.stderr + prepared.stderr if unicodedata.category(letter) == "Cc"} - {"\n"}
    if obeyed | ({"\u202e"} & set(again.stderr)):
        batch.failures.append(f"control characters on the terminal: {sorted(obeyed)}")
    if spent > HANG * BATCH:
        batch.failures.append(f"{spent:.1f} s of CPU for a folder")
    batch.memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def cpu_of_children() -> float:
    """Seconds of CPU that the child processes took, up to now."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command(line: Connection, *words: str) -> "subprocess.CompletedProcess[str]":
    """A command line in a process of its own."""
    line.send(words[0])
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT), "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "dreambooth_cli", *words],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env=env,
        check=False,
    )
    line.send("done")
    return done


def listing(folder: Path) -> list[tuple[str, int, int, int]]:
    """What lies in a folder, as it was last changed."""
    found = [(path.name, path.lstat()) for path in folder.iterdir()]
    return sorted((name, state.st_mode, state.st_size, state.st_mtime_ns) for name, state in found)


def show(row: Row) -> None:
    """A line of the table, and what failed."""
    print(f"{row.what:52} {row.tried:6} {row.lost:5} {row.slowest:6.1f} s  {'; '.join(row.remarks[:2])}", flush=True)
    for failure in row.remarks[2:12] if row.lost else []:
        print(f"    {failure}", flush=True)


if __name__ == "__main__":
    print(f"{'what':52} {'tried':>6} {'lost':>5} {'slowest':>8}")
    found = []
    for one in rows(int(sys.argv[1]) if len(sys.argv) > 1 else FULL):
        show(one)
        found.append(one)
    print(f"{'all':52} {sum(row.tried for row in found):6} {sum(row.lost for row in found):5}")
    sys.exit(any(row.lost for row in found))
