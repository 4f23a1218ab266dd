"""A sample of the table of faults: kills, power cuts, signals, a full disk, a run that is longer than usual."""

import subprocess
import sys
from pathlib import Path

import pytest

from .watched import can_watch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not can_watch(), reason="the watch needs Linux and a C compiler")
def test_nothing_is_lost() -> None:
    done = subprocess.run([sys.executable, "-m", "tests.faults", "--short"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("| 0 | 0 |") == 13
