"""The machine's own memory: how much there is, how much of it is free, and what this process holds; a container's limit counts."""

import ctypes
import gc
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of mallopt(3)
MADV_PAGEOUT = 21  # of madvise(2), since Linux 5.4
CGROUPS, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# A group's files for its limit, for what it holds, and the line of memory.stat with what it would give back at once.
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def machine_memory() -> int:
    """Bytes of memory that this process could have if nothing else ran: the machine's, or its container's limit."""
    return min([psutil.virtual_memory().total, *(limit for limit, _ in _limits())])


def free_memory() -> int:
    """Bytes of the machine's memory that are free now for this process."""
    return min([psutil.virtual_memory().available, *(max(0, limit - held) for limit, held in _limits())])


def resident_memory() -> int:
    """Bytes of the machine's memory that this process holds."""
    return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Return unused memory to the system: glibc keeps freed blocks of up to 32 MB, which most of a network's tensors are."""
    gc.collect()
    _tell_glibc("malloc_trim", 0)


@contextmanager
def kept_when_freed() -> Iterator[None]:
    """Keep freed memory in this process for later use, while networks work on the CPU.

    Otherwise glibc maps every large tensor anew, and the system zeroes its pages at first touch: 6.9 s of the 30 s of processor time
    that a step of SD 1.5 takes, and it slows the rest down too (16.7 s a step, 10.1 s with this; two cores).
    """
    _tell_glibc("mallopt", M_MMAP_MAX, 0)
    _tell_glibc("mallopt", M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        _tell_glibc("mallopt", M_MMAP_MAX, 65_536)  # glibc's default; the others are the most that glibc raises them to by itself
        _tell_glibc("mallopt", M_MMAP_THRESHOLD, 32 << 20)
        _tell_glibc("mallopt", M_TRIM_THRESHOLD, 64 << 20)
        _tell_glibc("malloc_trim", 0)


def page_out(address: int, size: int) -> None:
    """Drop the pages that lie entirely in this range (bytes) from memory if a file backs them; others stay, or go to swap if there is any.

    They are read from the file again when needed. Linux only.
    """
    start, end = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE, (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > start:
        _tell_glibc("madvise", ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_PAGEOUT)


def _tell_glibc(function: str, *values: Any) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            getattr(ctypes.CDLL(None), function)(*values)


def _limits() -> list[tuple[int, int]]:
    """For each control group of this process, its limit and the bytes that it holds and could not give back at once."""
    found = []
    with suppress(OSError):
        for line in MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "memory" in controllers.split(","):
                root, names = (CGROUPS / "memory", V1) if controllers else (CGROUPS, V2)
                found += [limit for folder in _above(root, path) if (limit := _limit_of(folder, names))]
    return found


def _above(root: Path, path: str) -> Iterator[Path]:
    """The folders of a group and of the groups around it. Inside a container the path may be the host's, and only the root exists."""
    inside = PurePosixPath(path.lstrip("/"))
    for group in (inside, *inside.parents):
        yield root / group


def _limit_of(folder: Path, names: tuple[str, str, str]) -> tuple[int, int] | None:
    limit, usage, idle = names
    try:
        most = (folder / limit).read_text().strip()
        if not most.isdigit():  # "max": none
            return None
        held = int((folder / usage).read_text())
        stat = (folder / "memory.stat").read_text().split()
        return int(most), held - int(dict(zip(stat[::2], stat[1::2], strict=False)).get(idle, 0))
    except (OSError, ValueError):
        return None


def cores_allowed() -> int:
    """The cores that this process may use; two threads of one core count once."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or allowed, allowed)
