"""One line of the table of faults."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """A kind of fault, how often it was tried, and what came of it.

    `lost`: something saved was gone or unreadable, the answer was a traceback, a hang or too much memory, or a file was written
    where none belongs; `unequal`: the next run of the same command ended elsewhere than an undisturbed one; `slowest`: the
    longest answer, in s; `remarks` name each failure, and what a reader must know.
    """

    what: str
    tried: int
    lost: int = 0
    unequal: int = 0
    slowest: float = 0.0
    remarks: list[str] = field(default_factory=list)
