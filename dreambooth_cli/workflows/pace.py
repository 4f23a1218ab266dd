"""Whether steps have suddenly become slow."""

from collections import deque
from statistics import median

RECENT = 20  # steps that say what is usual
LEAST = 10  # of them, before anything is said
LONGER = 3.0  # times as long as usual
IN_A_ROW = 3  # one or two steps may wait for anything
A_MOMENT = 0.5  # seconds; a step under it needs no remark


class Pace:
    """How long the steps of a run take. Slow ones do not become the usual."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.slow = 0
        self.is_told = False

    @property
    def usual(self) -> float:
        """The seconds that a step has taken of late, the median; 0 before there was one."""
        return median(self.recent) if self.recent else 0.0

    def is_lost(self, seconds: float) -> bool:
        """Take the time of one more step. Whether it is the last of several that were much slower than usual; True once."""
        if len(self.recent) >= LEAST and seconds >= max(A_MOMENT, LONGER * self.usual):
            self.slow += 1
        else:
            self.slow = 0
            self.recent.append(seconds)
        if self.is_told or self.slow < IN_A_ROW:
            return False
        self.is_told = True
        return True
