"""Running the command line: in this process, or as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dreambooth_cli.cli.app import run

CHECKOUT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Done:
    """What a command gave: its exit code and its two streams."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]


Dreambooth = Callable[..., Done]


@pytest.fixture
def dreambooth(capsys: pytest.CaptureFixture[str]) -> Iterator[Dreambooth]:
    """Run a command line in this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def call(*words: str | Path) -> Done:
        capsys.readouterr()
        code = run([str(word) for word in words])
        streams = capsys.readouterr()
        return Done(code, streams.out, streams.err)

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


def environment() -> dict[str, str]:
    """This process's environment, for a child that finds the package."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT)}


def in_process(*words: str | Path, **variables: str) -> Done:
    """Run a command line as a process of its own."""
    command = [sys.executable, "-m", "dreambooth_cli", *map(str, words)]
    env = {**environment(), **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)
    return Done(done.returncode, done.stdout, done.stderr)
