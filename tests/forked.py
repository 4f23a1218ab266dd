"""Work in a process of its own that already has the libraries: a fork of the tests' process. Importing them again would take seconds."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")


def run_forked(work: Callable[[], int], output: Path) -> tuple[int, str]:
    """Do `work` in a fork that prints into `output`. Returns its exit status (-9 if it was killed) and what it printed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, of which none holds anything that the child needs
        child = os.fork()
    if child == 0:
        code = 98
        try:
            with output.open("w", encoding="utf-8") as printed:
                os.dup2(printed.fileno(), 1)
                os.dup2(printed.fileno(), 2)
                sys.stdout = sys.stderr = printed
                try:
                    code = work()
                except BaseException:
                    traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, output.read_text(encoding="utf-8")
