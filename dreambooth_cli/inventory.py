"""What a project holds and how much room that takes: its runs, what they kept, its pictures; and the class images of the cache."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .disk import bytes_in, remove
from .errors import ProjectError
from .locks import is_held
from .paths import cache_folder
from .project import Project
from .run import OPTIMIZER, Run, lighten


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run in a line. `steps` were asked for, `reached` of them are trained; `kept`: those whose weights can be drawn with;
    `verdict`: what its end said of it; `bytes` is all that lies in its folder."""

    number: int
    date: str
    base: str
    method: str
    steps: int
    verdict: str | None
    bytes: int
    reached: int
    kept: tuple[int, ...]
    finished: bool

    def told(self) -> dict[str, Any]:
        """As `projects show --json` says it."""
        return {name: getattr(self, name) for name in ("number", "date", "base", "method", "steps", "verdict", "bytes")}


def runs_of(project: Project) -> tuple[list[RunFacts], list[str]]:
    """The runs of a project that have begun, oldest first, and a line for each whose record can't be read."""
    found, damaged = [], []
    for run in project.runs():
        if not run.has_begun:
            continue
        try:
            found.append(facts_of(run))
        except ProjectError as error:
            damaged.append(f"run {run.number}: {error.message}")
    return found, damaged


def facts_of(run: Run) -> RunFacts:
    """What is to be said of a run. Raises ProjectError where its record is damaged."""
    record, kept = run.record(), tuple(run.steps())
    return RunFacts(
        number=run.number,
        date=record.date or datetime.fromtimestamp(run.plan.stat().st_mtime).astimezone().isoformat(timespec="seconds"),
        base=record.base.name,
        method=record.plan.method,
        steps=int(record.asked["train"]["steps"]),
        verdict=record.verdict or None,
        bytes=bytes_in(run.path),
        reached=max(kept, default=0),
        kept=kept,
        finished=run.is_finished,
    )


@dataclass(frozen=True)
class Share:
    """Files that lie somewhere: how many, and the bytes that they take."""

    path: Path
    count: int
    bytes: int


@dataclass(frozen=True)
class Waste:
    """What nothing needs any more, or what can be made again: in words, the files or folders, and their bytes."""

    what: str
    paths: tuple[Path, ...]
    bytes: int


def waste_of(project: Project, *, pictures: bool = False) -> list[Waste]:
    """What of a project can go: of finished runs the optimizer's state and damaged checkpoints; with `pictures` what `generate` made."""
    found = []
    for run in project.runs():
        if run.is_finished:
            states = tuple(run.checkpoints.glob(f"step-*/{OPTIMIZER}"))
            damaged = tuple(run.checkpoints.glob("damaged-*"))
            found.append(_waste(f"{project.name}, run {run.number}: optimizer state of the finished run", states))
            found.append(_waste(f"{project.name}, run {run.number}: damaged checkpoints", damaged))
    if pictures:
        made = tuple(path for pattern in ("*.png", "compare-runs-*.html") for path in project.images.glob(pattern))
        found.append(_waste(f"{project.name}: pictures", made))
    return [one for one in found if one.paths]


def waste_of_cache() -> list[Waste]:
    """The class images that all projects share: they can be made again."""
    return [one for one in [_waste("class images of all projects", tuple(share.path for share in class_images()))] if one.paths]


def _waste(what: str, paths: tuple[Path, ...]) -> Waste:
    return Waste(what, paths, sum(bytes_in(path) if path.is_dir() else path.stat().st_size for path in paths))


def throw_away(waste: Waste) -> None:
    """Remove it; a checkpoint's manifest no longer lists what has gone. Raises OSError."""
    for path in waste.paths:
        if path.name == OPTIMIZER:
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # of a damaged manifest nothing is to be kept true
                lighten(path.parent)
        if not (path.is_dir() and is_held(path)):  # or a run draws there just now
            remove(path)


def pictures_of(project: Project) -> Share:
    """What `generate` made with a project."""
    return _share(project.images, "*.png")


def class_images() -> list[Share]:
    """The folders of the cache of class images, which all projects share."""
    folder = cache_folder() / "class-images"
    return [_share(each, "*.png") for each in sorted(folder.iterdir()) if each.is_dir()] if folder.is_dir() else []


def _share(folder: Path, pattern: str) -> Share:
    return Share(folder, sum(1 for _ in folder.glob(pattern)), bytes_in(folder) if folder.is_dir() else 0)
