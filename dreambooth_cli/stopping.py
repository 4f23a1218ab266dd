"""Stopping is a flag, not an exception: SIGINT, SIGTERM and SIGHUP set it, and the work stops the next time its state is whole.

The command line sets the handlers before the heavy imports; loops look at the flag between events, and long single calls
(one sampled picture, a download) look at it from their library's own step callback through `check`.
A second SIGINT or SIGTERM ends the process at once. SIGHUP comes more than once for one lost connection, from the kernel and
from the shell: it never hurries anything.
"""

import signal
from types import FrameType

from .errors import HangUp, Interrupted, Terminated

HANG_UP = getattr(signal, "SIGHUP", None)  # Windows has none
_received: list[int] = []


def install() -> None:
    """Make SIGINT, SIGTERM and SIGHUP set the flag; signals that the parent ignores (`nohup`, a background job) stay ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, HANG_UP):
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _receive)


def _receive(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if number != HANG_UP and is_at_once():
        # not Interrupted: that one is raised only where the state is whole
        raise KeyboardInterrupt


def requested() -> bool:
    """Whether a signal has come."""
    return bool(_received)


def is_at_once() -> bool:
    """Whether a second signal has come, from somebody in a hurry. A library may have turned its KeyboardInterrupt into another error."""
    return sum(number != HANG_UP for number in _received) > 1


def error() -> Interrupted:
    """The error that stands for the signal that came first."""
    first = _received[0] if _received else signal.SIGINT
    if first == signal.SIGTERM:
        return Terminated("by SIGTERM")
    if first == HANG_UP:
        return HangUp("by SIGHUP")
    return Interrupted("by Ctrl-C")


def check() -> None:
    """Raise Interrupted, Terminated or HangUp if a signal has come."""
    if _received:
        raise error()


def reset() -> None:
    """Forget the signals (a new command in the same process)."""
    _received.clear()
