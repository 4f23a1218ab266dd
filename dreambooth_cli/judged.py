"""What a judge said of a run's steps, kept in its judged.json: how like the subject, how true to the prompt, how near to a photo; and
which step is best, by plain arithmetic on these."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from .disk import read_text, write_json
from .schemas import check_values
from .settings import TrainSettings
from .verdict import COPY

MOST = 8  # steps that are judged, and whose weights are kept until then
FALL = 0.1  # of a share: what is said to have fallen


@dataclass(frozen=True, kw_only=True)
class JudgedStep:
    """A step: `subject` is 0 for what the base draws of the class and 1 for the photos among themselves, `prompt` 0 for a picture of
    anything and 1 for what the base does (or the share of places that are right), `copied` the largest correlation of a picture's pixels
    with a photo's, whose name is in `nearest` where it is a copy to the eye."""

    step: int
    subject: float
    prompt: float
    copied: float
    nearest: str | None = None

    @property
    def score(self) -> float:
        """What decides: the subject in the place that was asked for."""
        return self.subject * self.prompt


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The steps that were judged, in their order, by whom, and which is best and why."""

    judge: str
    steps: tuple[JudgedStep, ...]
    best: int
    reason: str


def due_steps(settings: TrainSettings) -> list[int]:
    """The steps whose weights outlive newer checkpoints, until the end of the run: all that are saved by number where all are to be kept,
    at most MOST of them, evenly, where they are to be judged; the last always."""
    every, steps = settings.checkpoint_every or settings.steps, settings.steps
    if settings.keep == "all":
        apart = every
    elif settings.keep == "best" and settings.judge == "auto":
        apart = every * math.ceil(steps / every / MOST)
    else:
        apart = steps
    return sorted({*range(apart, steps, apart), steps})


def best_of(scores: Sequence[Sequence[float]]) -> int:
    """Which place of a row of steps is best, by the scores of the same pictures at each: the last, unless another is better by more
    than the pictures' own scatter (the standard error of their differences)."""
    last = len(scores) - 1
    best = max(range(len(scores)), key=lambda place: (mean(scores[place]), place))
    gains = [one - other for one, other in zip(scores[best], scores[last], strict=True)]
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return best if mean(gains) > error else last


def reason_for(steps: Sequence[JudgedStep], best: int) -> str:
    """Why a step is best, in words: what comes after it."""
    one, later = steps[best], steps[best + 1 :]
    if not later:
        return f"step {one.step}, the last: no earlier one is better by more than chance"
    copy = next((step for step in later if step.copied >= COPY > one.copied and step.nearest), None)
    last = later[-1]
    if copy is not None:
        return f"step {one.step}: after it pictures begin to copy {copy.nearest}"
    if one.prompt - last.prompt >= max(FALL, one.subject - last.subject):
        return f"step {one.step}: after it the prompt is followed less ({one.prompt:.0%}, at the end {last.prompt:.0%})"
    if one.subject - last.subject >= FALL:
        return f"step {one.step}: after it the subject is less like the photos ({one.subject:.0%}, at the end {last.subject:.0%})"
    return f"step {one.step}: after it likeness and prompt together are a little worse ({one.score:.2f}, at the end {last.score:.2f})"


def write_judged(path: Path, judged: Judged) -> None:
    """Keep what was said. Raises OSError."""
    write_json(path, asdict(judged))


def read_judged(path: Path) -> Judged | None:
    """What was said, or None where nothing was, or it can't be read."""
    try:
        values = json.loads(read_text(path))
        check_values(Judged, values)
        return Judged(**{**values, "steps": tuple(JudgedStep(**step) for step in values["steps"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
