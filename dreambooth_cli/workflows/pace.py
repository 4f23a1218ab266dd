"""Whether steps have suddenly become slow."""

from collections import deque
from statistics import median

RECENT = 20  # steps that show what is usual
LEAST = 10  # such steps are needed before anything is reported
LONGER = 3.0  # times as long as usual counts as slow
IN_A_ROW = 3  # slow steps; one or two may happen for any reason
A_MOMENT = 0.5  # seconds; a step shorter than this is never slow


class Pace:
    """How long the steps of a run take. Slow steps are left out of what is usual."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.slow = 0
        self.is_told = False

    @property
    def usual(self) -> float:
        """The median of the recent steps' times, in seconds; 0 before the first step."""
        return median(self.recent) if self.recent else 0.0

    def is_lost(self, seconds: float) -> bool:
        """Add the time of a step, in seconds. Returns True, once in a run, when several steps in a row were much slower than usual."""
        if len(self.recent) >= LEAST and seconds >= max(A_MOMENT, LONGER * self.usual):
            self.slow += 1
        else:
            self.slow = 0
            self.recent.append(seconds)
        if self.is_told or self.slow < IN_A_ROW:
            return False
        self.is_told = True
        return True
