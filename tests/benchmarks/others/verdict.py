"""How one program read one file. This does not use our own code: each program runs with the libraries that it needs."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

BEGIN = "VERDICT "
HALF_A_PLACE = 2.0**-11  # of a number in fp16, and of the smallest ones 2**-25: what rounding to it changes at most


@dataclass(frozen=True)
class Verdict:
    """How many tensors a file has, and which keys were missing or unexpected; for a LoRA, how many weights it changes, and the largest
    difference of one from ours, in units of what rounding to fp16 may change."""

    file: str
    tensors: int
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    weights: int = 0
    difference: float | None = None

    def tell(self) -> None:
        """Print it as a line for the parent process."""
        print(BEGIN + json.dumps(asdict(self)), flush=True)


class Calls:
    """The missing and unexpected keys of every outermost `load_state_dict` in a program, each after the class that was loaded."""

    def __init__(self) -> None:
        self.missing, self.unexpected, self.depth = list[str](), list[str](), 0
        theirs: Callable[..., Any] = nn.Module.load_state_dict

        def call(module: nn.Module, *args: Any, **named: Any) -> Any:
            self.depth += 1
            try:
                found = theirs(module, *args, **named)
            finally:
                self.depth -= 1
            if not self.depth:
                self.missing += [f"{type(module).__name__}: {key}" for key in found.missing_keys]
                self.unexpected += [f"{type(module).__name__}: {key}" for key in found.unexpected_keys]
            return found

        nn.Module.load_state_dict = call  # type: ignore[method-assign, assignment]


class Words(logging.Handler):
    """The lines of a program's log that begin like this."""

    def __init__(self, beginnings: Iterable[str]) -> None:
        super().__init__(logging.DEBUG)
        self.beginnings, self.heard = tuple(beginnings), list[str]()
        logging.getLogger().addHandler(self)
        logging.getLogger().setLevel(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        text = record.getMessage()
        self.heard += [text] if text.startswith(self.beginnings) else []


def of_rounding(found: Tensor, ours: Tensor) -> float:
    """The largest difference of a tensor from ours, which is stored in fp16, in units of what rounding to fp16 may change."""
    ours = ours.float()
    return float(((found.float() - ours).abs() / (HALF_A_PLACE * ours.abs() + 2.0**-25)).max())


def name_of(path: Path) -> str:
    """A file as the table calls it: its base and its own name."""
    return f"{path.parent.name} {path.name}"
