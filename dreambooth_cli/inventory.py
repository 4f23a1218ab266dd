"""What a project contains and how much disk that takes: its runs, what they kept, its pictures; and the class images in the cache."""

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
    """A run in a line. `steps`: how many were asked for; `reached`: the last one that is saved; `kept`: steps whose weights can be drawn
    with; `verdict`: the word on it, None if there is none yet; `bytes`: the size of its folder."""

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
        """As `projects show --json` prints it."""
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
    """The facts of a run. Raises ProjectError if its record is damaged."""
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
    """The files in a folder: how many, and their size in bytes."""

    path: Path
    count: int
    bytes: int


@dataclass(frozen=True)
class Waste:
    """Something that is no longer needed or can be made again: in words, its files or folders, and their size in bytes."""

    what: str
    paths: tuple[Path, ...]
    bytes: int


def waste_of(project: Project, *, pictures: bool = False) -> list[Waste]:
    """What can be removed from a project: optimizer state and damaged checkpoints of finished runs; with `pictures`, also those."""
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
    """The class images that all projects share, which can be made again."""
    return [one for one in [_waste("class images of all projects", tuple(share.path for share in class_images()))] if one.paths]


def _waste(what: str, paths: tuple[Path, ...]) -> Waste:
    return Waste(what, paths, sum(bytes_in(path) if path.is_dir() else path.stat().st_size for path in paths))


def throw_away(waste: Waste) -> None:
    """Remove it, also from the checkpoints' manifests. Raises OSError."""
    for path in waste.paths:
        if path.name == OPTIMIZER:
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # a damaged manifest need not be updated
                lighten(path.parent)
        if not (path.is_dir() and is_held(path)):  # unless a run is drawing there just now
            remove(path)


def pictures_of(project: Project) -> Share:
    """The pictures that `generate` made with a project."""
    return _share(project.images, "*.png")


def class_images() -> list[Share]:
    """The folders of class images in the cache, which all projects share."""
    folder = cache_folder() / "class-images"
    return [_share(each, "*.png") for each in sorted(folder.iterdir()) if each.is_dir()] if folder.is_dir() else []


def _share(folder: Path, pattern: str) -> Share:
    return Share(folder, sum(1 for _ in folder.glob(pattern)), bytes_in(folder) if folder.is_dir() else 0)
