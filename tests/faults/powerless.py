"""Work done without the rights of root: where the suite runs as root, in a child that has given up its capabilities."""

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

from .watched import run_unwatched

CAPBSET_DROP, VERSION_3 = 24, 0x20080522  # of linux/prctl.h and linux/capability.h


def can_give_up() -> bool:
    """Whether file permissions can be made to hold: on Linux also for root, elsewhere for anybody but root."""
    return os.name == "posix" and (sys.platform == "linux" or os.geteuid() != 0)


def give_up_rights() -> None:
    """Leave this process, and those that it starts, without any capability, so that a file's mode stops root like anybody else."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        if libc.prctl(CAPBSET_DROP, capability, 0, 0, 0):
            break
    header, none = (ctypes.c_uint32 * 2)(VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def run_powerless(work: Callable[[], int], output: Path) -> int:
    """Do `work` in a child without rights, with what it prints in `output`. Returns its exit status."""

    def powerless() -> int:
        give_up_rights()
        return work()

    return run_unwatched(powerless, output)
