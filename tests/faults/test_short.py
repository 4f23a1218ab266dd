"""A sample of the table of faults: kills, power cuts, signals, a full disk, a run that is longer than usual."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dreambooth_cli import stopping

from .scenario import Scenario
from .watched import can_watch

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_signals_can_end_the_table_after_a_run_in_its_own_process(tmp_path: Path) -> None:
    from . import kills

    class Ended(Scenario):
        """A run that does nothing but what every command does with signals."""

        code = 0

        def run(self, home: Path) -> int:
            stopping.install()
            return self.code

    before = signal.getsignal(signal.SIGTERM)
    kills.warm_up(Ended(tmp_path, tmp_path, tmp_path), "warm")
    assert signal.getsignal(signal.SIGTERM) == before
    Ended.code = 143
    with pytest.raises(SystemExit, match="ended with 143"):
        kills.warm_up(Ended(tmp_path, tmp_path, tmp_path), "warm")


@pytest.mark.slow
@pytest.mark.skipif(not can_watch(), reason="the watch needs Linux and a C compiler")
def test_nothing_is_lost() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.faults", "--short"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("| 0 | 0 |") == 13
