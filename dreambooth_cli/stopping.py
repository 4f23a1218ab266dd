"""Stopping is a flag, not an exception: SIGINT and SIGTERM set it, and the work leaves at its next whole state.

The command line sets the handlers before the heavy imports; loops look at the flag between events, and long single calls
(one sampled picture, a download) look at it from their library's own step callback through `check`.
A second signal ends the process at once.
"""

import signal
from types import FrameType

from .errors import Interrupted, Terminated

_received: list[int] = []


def install() -> None:
    """Let SIGINT and SIGTERM set the flag."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _receive)


def _receive(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if is_at_once():
        # not Interrupted: that one is raised only where the state is whole
        raise KeyboardInterrupt


def requested() -> bool:
    """Whether a signal has come."""
    return bool(_received)


def is_at_once() -> bool:
    """Whether a second signal has come. A library may have made another error of its KeyboardInterrupt."""
    return len(_received) > 1


def error() -> Interrupted:
    """The error that stands for the signal that came."""
    if _received and _received[0] == signal.SIGTERM:
        return Terminated("by SIGTERM")
    return Interrupted("by Ctrl-C")


def check() -> None:
    """Raise Interrupted or Terminated if a signal has come."""
    if _received:
        raise error()


def reset() -> None:
    """Forget the signals (a new command in the same process)."""
    _received.clear()
