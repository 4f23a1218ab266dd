"""What a judge said about a run's steps, kept in its judged.json: how like the subject, how true to the prompt, how close to a photo; and
which step is best, by simple arithmetic on these."""

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
FALL = 0.1  # a share that falls by this much is mentioned as the reason
# Standard errors of the pictures' differences that an earlier step must be better by: with more, runs that are far too long keep their last
# step (tests/benchmarks/best_step.md).
SURE = 1.0


@dataclass(frozen=True, kw_only=True)
class JudgedStep:
    """A step. `subject`: likeness, 0 for the base's pictures of the class, 1 for the photos among themselves. `prompt`: 0 for a picture of
    anything, 1 for following it as the base does (or the share of places that are right). `copied`: the largest correlation of a
    picture's pixels with a photo's; that photo's name is in `nearest` if it looks like a copy."""

    step: int
    subject: float
    prompt: float
    copied: float
    nearest: str | None = None

    @property
    def score(self) -> float:
        """What decides: the subject, in the place that was asked for."""
        return self.subject * self.prompt


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The steps that were judged, in order, who judged them, and which is best and why."""

    judge: str
    steps: tuple[JudgedStep, ...]
    best: int
    reason: str


def due_steps(settings: TrainSettings) -> list[int]:
    """The steps whose weights are kept until the end of the run: with --keep all, every checkpoint saved by number; if they will be
    judged, at most MOST of those, evenly spread; always the last."""
    every, steps = settings.checkpoint_every or settings.steps, settings.steps
    if settings.keep == "all":
        apart = every
    elif settings.keep == "best" and settings.judge == "auto":
        apart = every * math.ceil(steps / every / MOST)
    else:
        apart = steps
    return sorted({*range(apart, steps, apart), steps})


def best_of(scores: Sequence[Sequence[float]]) -> int:
    """The index of the best step, given the scores of the same pictures at each step: the last, unless another is better by more than
    chance (SURE standard errors of the pictures' differences)."""
    last = len(scores) - 1
    best = max(range(len(scores)), key=lambda place: (mean(scores[place]), place))
    gains = [one - other for one, other in zip(scores[best], scores[last], strict=True)]
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    return best if mean(gains) > SURE * error else last


def reason_for(steps: Sequence[JudgedStep], best: int) -> str:
    """Why a step is best, in words: what becomes worse after it."""
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
    """Save the judgement. Raises OSError."""
    write_json(path, asdict(judged))


def read_judged(path: Path) -> Judged | None:
    """The saved judgement, None if there is none or it can't be read."""
    try:
        values = json.loads(read_text(path))
        check_values(Judged, values)
        return Judged(**{**values, "steps": tuple(JudgedStep(**step) for step in values["steps"])})
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
