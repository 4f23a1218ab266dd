"""A run of the command line in a child process that stops before each change it makes to files, until it may go on or is killed.

The libraries are imported once, by this process; every child is a fork of it. `watch.c` does the stopping: `relaunch` compiles
it and starts this process again with it loaded. Linux only.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import NoReturn

GO, KILL = 0, -1  # answers to a change; any other is the errno that it fails with
SOURCE = Path(__file__).with_name("watch.c")
LOADED = "FAULTS_WATCH"


@dataclass(frozen=True)
class Change:
    """A change to files, about to be made: open (that makes or empties a file), write, truncate, fsync, lock, unlink, mkdir,
    rename, link or symlink."""

    operation: str
    path: Path
    to: Path | None


def can_watch() -> bool:
    """Whether this machine has what is needed: Linux and a C compiler."""
    return sys.platform == "linux" and shutil.which("cc") is not None


def relaunch(module: str, arguments: list[str]) -> NoReturn:
    """Run a module in place of this process, with the watch loaded."""
    library = Path(mkdtemp()) / "watch.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    environment = os.environ | {"LD_PRELOAD": str(library), LOADED: str(library.parent), "OMP_NUM_THREADS": "1"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # compiled modules are no changes of the program's, and come only once
    os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)


@contextmanager
def until_ended() -> Iterator[None]:
    """Inside a `with` block, SIGTERM ends this process in order; afterwards the watch's library is removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        if is_loaded():
            shutil.rmtree(os.environ[LOADED])


def is_loaded() -> bool:
    """Whether this process has the watch loaded."""
    return LOADED in os.environ


def run_watched(
    work: Callable[[], int], root: Path, output: Path, answer: Callable[[Change], int]
) -> tuple[int, list[Change]]:
    """Do `work` in a child; `answer` is asked before each change under `root`: GO, KILL, or the errno that the change fails with.

    What the child prints goes to `output`. Returns its exit status (-9 where it was killed) and the changes it asked for.
    """
    asks, asked = os.pipe()
    answered, answers = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(asks)
        os.close(answers)
        _be_child(work, output, asked, answered, root)
    os.close(asked)
    os.close(answered)
    changes = []
    try:
        with os.fdopen(asks, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                operation, path, to = line[:-1].split("\x1f")
                changes.append(Change(operation, Path(path), Path(to) if to else None))
                word = answer(changes[-1])
                if word == KILL:
                    os.kill(child, signal.SIGKILL)
                    break
                os.write(answers, bytes([word]))
    finally:
        os.close(answers)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), changes


def run_unwatched(work: Callable[[], int], output: Path) -> int:
    """Do `work` in a child, with what it prints in `output`. Returns its exit status."""
    child = os.fork()
    if child == 0:
        _be_child(work, output)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_followed(work: Callable[[], int], output: Path, heard: Callable[[int, str], None]) -> int:
    """Do `work` in a child; `heard` is called with its process number for every line that it prints, which goes to `output` too.

    Returns its exit status.
    """
    lines, printed = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(lines)
        os.dup2(printed, 1)
        _be_child(work, None)
    os.close(printed)
    with os.fdopen(lines, encoding="utf-8", errors="replace") as read, output.open("a", encoding="utf-8") as kept:
        for line in read:
            kept.write(line)
            heard(child, line)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _be_child(
    work: Callable[[], int], output: Path | None, asked: int = -1, answered: int = -1, root: Path | None = None
) -> None:
    """The forked process: never returns."""
    code = 98
    try:
        if output is not None:
            written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(written, 1)
            os.dup2(written, 2)
        if root is not None:
            ctypes.CDLL(None).watch_begin(asked, answered, os.fsencode(root))
        code = work()
        sys.stdout.flush()
    finally:
        os._exit(code)
