"""The most memory that this process has held."""

import re
import resource
from pathlib import Path

MOST_MEMORY = 10**9  # bytes that an answer may take
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_of_memory() -> int:
    """The most bytes that this process has held. Not ru_maxrss where the system tells it itself: a new process inherits that one
    from the process that started it."""
    found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def forget_peak() -> int:
    """Let the peak begin anew at what is held now, where the system can (Linux). Returns the peak from then on, in bytes."""
    if FORGET.exists():
        FORGET.write_text("5")
    return peak_of_memory()
