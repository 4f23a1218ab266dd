"""Projects: their folders, their names, and how they are made, found and locked.

projects/my-dog/
  project.toml  photos/  prepared/  runs/1/  images/
"""

import os
import re
import shutil
import time
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock

from .config import read_config
from .disk import (
    check_folder,
    clear_leftovers,
    disk_errors,
    file_of,
    make_folder,
    read_text,
    reason_of,
    remove,
    system_errors,
    temporary,
)
from .errors import DiskError, ProjectError, UsageError
from .locks import acquire, release
from .paths import cache_folder, home_folder, projects_folder, real_path
from .run import Run
from .settings import AUTO
from .text import shortened

NAME = re.compile(r"[^\W_][\w.-]{0,63}", re.UNICODE)
ANOTHER_PLACE = "name another folder: --output-dir ./my-model"
KEPT = ".drawing-"  # a process that draws: its number, and a lock
MAKING_OF_0_1 = re.compile(r"\.making-[0-9a-f]{32}\.[0-9]+")  # a process number, which says nothing in another container
A_DAY = 24 * 60 * 60  # seconds; a project was made in minutes
RUN_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
LONGEST_NAME = 200  # bytes; file systems allow 255, and something may be appended
RESERVED = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(10)), *(f"lpt{i}" for i in range(10))}


def clear_up() -> None:
    """Remove what killed processes left in the data directory and the cache: half-made or half-removed projects, unfinished files.

    Also in the folders of class images, to which a finished run does not return.
    """
    class_images = cache_folder() / "class-images"
    with suppress(OSError):  # what can't be read is reported where it is needed
        for name in os.listdir(class_images):
            clear_leftovers(class_images / name)
    for folder in (projects_folder(), home_folder(), cache_folder() / "digests", cache_folder() / "looks"):
        clear_leftovers(folder)
    for left in home_folder().glob(".making-*"):
        with suppress(OSError):
            if MAKING_OF_0_1.fullmatch(left.name) and time.time() - left.stat().st_mtime > A_DAY:
                shutil.rmtree(left)


@dataclass(frozen=True)
class Project:
    """One subject: its photos, its settings, its runs and its pictures."""

    path: Path

    @property
    def name(self) -> str:
        """Its name, which is its folder's."""
        return self.path.name

    @property
    def config(self) -> Path:
        """Its settings."""
        return self.path / "project.toml"

    @property
    def photos(self) -> Path:
        """The originals, copied in, never changed."""
        return self.path / "photos"

    @property
    def prepared(self) -> Path:
        """The photos turned and cropped, `report.json` and the contact sheet."""
        return self.path / "prepared"

    @property
    def images(self) -> Path:
        """What `generate` made."""
        return self.path / "images"

    def settings(self) -> dict[str, dict[str, Any]]:
        """What project.toml says: section -> name -> value."""
        return read_config(self.config)

    def runs(self) -> list[Run]:
        """Its runs, oldest first."""
        folder = self.path / "runs"
        numbers = (
            sorted(int(child.name) for child in folder.glob("*") if RUN_NUMBER.fullmatch(child.name))
            if folder.is_dir()
            else []
        )
        return [Run(folder / str(number)) for number in numbers]

    def find_run(self, digest: str) -> Run | None:
        """The newest run of this digest, finished or not; one that was superseded by `--restart` does not count."""
        return next((run for run in reversed(self.runs()) if run.has_begun and run.record().digest == digest), None)

    def has_run_of(self, class_prompt: str) -> bool:
        """Whether a run has begun with exactly this class prompt."""
        for run in self.runs():
            with suppress(ProjectError):  # a damaged record is reported where it is needed
                if run.record().asked["subject"].get("class_prompt") == class_prompt:
                    return True
        return False

    def new_run(self) -> Run:
        """Make the folder of the next run; the number of a run that was killed before it had a plan is used again."""
        for run in self.runs():
            if not run.plan.exists():
                run.clear_up()
                with suppress(OSError):  # it is not empty
                    run.path.rmdir()
        numbers = [run.number for run in self.runs()]
        run = Run(self.path / "runs" / str(max(numbers, default=0) + 1))
        with disk_errors(run.path):
            make_folder(run.path)
        return run

    def finished_run(self, number: int | None) -> Run:
        """Run `number`, or the latest finished one. Raises ProjectError if there is none."""
        finished = [run for run in self.runs() if run.is_finished]
        if number is None:
            if not finished:
                raise ProjectError(
                    f"project {self.name} has no finished run", f"train it: dreambooth train {self.name}"
                )
            return finished[-1]
        for run in finished:
            if run.number == number:
                return run
        has = ", ".join(str(run.number) for run in finished) or "none"
        raise ProjectError(f"project {self.name} has no finished run {number}", f"its finished runs: {has}")

    def run_with_step(self, number: int | None, step: int) -> Run:
        """Run `number`, or the newest run, that has the weights of this step. Raises ProjectError if there is none."""
        runs = [run for run in self.runs() if run.has_begun and number in (None, run.number)]
        if number is not None and not runs:
            raise ProjectError(f"project {self.name} has no run {number}", f"see what it has: dreambooth projects show {self.name}")
        if found := [run for run in runs if step in run.steps()]:
            return found[-1]
        has = "; ".join(f"run {run.number}: {', '.join(map(str, run.steps())) or 'none'}" for run in runs) or "no run has begun"
        which = f"run {number} of {self.name}" if number is not None else f"project {self.name}"
        raise ProjectError(f"{which} has no weights of step {step}", f"the steps that were kept: {has}")

    @contextmanager
    def lock(self) -> Iterator[str]:
        """Hold the project for one run. Yields "", or a warning if its file system has no locks, so that nothing is held. Raises
        ProjectError if another process holds it, OSError."""
        lock = filelock.FileLock(self.path / ".lock", blocking=False, fallback_to_soft=False)
        holder = self.path / ".lock-holder"
        try:
            remark = acquire(lock)
        except filelock.Timeout as error:
            raise ProjectError(
                f"project {self.name} is in use by {_told_by(holder)}", "wait for it, or stop it first"
            ) from error
        try:
            now = datetime.now().astimezone()
            with suppress(OSError):  # it is only for a message
                holder.unlink(missing_ok=True)  # whatever it is: a FIFO would be waited for
                holder.write_text(f"process {os.getpid()}, since {now:%Y-%m-%d %H:%M:%S}", encoding="utf-8")
            yield remark
        finally:
            release(lock)


def check_is_free(project: Project) -> None:
    """Raises ProjectError, without waiting, if another process holds a project for a run."""
    with suppress(OSError), project.lock():  # a disk without locks, or a read-only one, is reported where it matters
        pass


def _told_by(holder: Path) -> str:
    try:
        return read_text(holder)
    except (OSError, ValueError):
        return "another process"


def check_name(name: str) -> str:
    """The same name, if it can be a project's. Raises ProjectError."""
    is_long = len(name.encode(errors="replace")) > LONGEST_NAME
    if is_long or not NAME.fullmatch(name) or name.lower().split(".")[0] in RESERVED or name.endswith("."):
        raise ProjectError(
            f"{shortened(repr(name))} can't be a project's name",
            "use letters, digits, dots and dashes, beginning with a letter or digit",
        )
    return name


def check_new_name(name: str) -> str:
    """The same name, if no project has it yet. Raises ProjectError."""
    if (projects_folder() / check_name(name)).exists():
        raise ProjectError(
            f"there is already a project called {name}", f"choose another name, or: dreambooth projects remove {name}"
        )
    return name


def suggest_name(text: str) -> str:
    """A project's name from any words: `a Red Backpack!` -> `a-red-backpack`."""
    plain = unicodedata.normalize("NFKC", text).lower()
    name = re.sub(r"[^\w]+|_+", "-", plain).strip("-")[:48].rstrip("-") or "subject"
    return f"{name}-subject" if name in RESERVED else name


def free_name(wanted: str) -> str:
    """`wanted`, or with the next free number: `dog`, `dog-2`."""
    folder = projects_folder()
    # any file or folder counts, and case does not: some file systems ignore it
    taken = {child.name.casefold() for child in folder.iterdir()} if folder.is_dir() else set()
    names = [wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name.casefold() not in taken)


def list_projects() -> list[Project]:
    """All projects that can be read, by name. Raises OSError if the folder of all projects can't be read."""
    return [Project(child) for child in _folders() if _has_settings(child)]


def unreadable_projects() -> list[str]:
    """A line for each project that is skipped because it can't be read, such as another user's or one with broken settings."""
    lines = []
    for child in _folders():
        try:
            if (child / "project.toml").is_file():
                Project(child).settings()
                os.listdir(child)
        except ProjectError as error:
            lines.append(f"project {child.name} can't be used: {error.message}")
        except OSError as error:
            lines.append(f"project {child.name} can't be read: {file_of(error)}: {reason_of(error)}")
    return lines


def _folders() -> list[Path]:
    """The folders among the projects, except hidden ones: projects that are being made."""
    folder = projects_folder()
    return sorted(child for child in folder.iterdir() if not child.name.startswith(".")) if folder.is_dir() else []


def _has_settings(folder: Path) -> bool:
    try:
        return (folder / "project.toml").is_file()
    except OSError:
        return False


def open_project(name: str) -> Project:
    """A project by its name. Raises ProjectError, which lists the projects, or says how to make one."""
    check_name(name)
    project = Project(projects_folder() / name)
    if not project.config.is_file():
        names = [project.name for project in list_projects()]
        hint = f"your projects: {', '.join(names)}" if names else f"make it: dreambooth init {name}"
        raise ProjectError(f"there is no project called {name}", hint)
    return project


def choose_project(name: str | None) -> Project:
    """The named project, or the only one there is. Raises UsageError if that is not clear, ProjectError."""
    if name is not None:
        return open_project(name)
    projects = list_projects()
    if len(projects) == 1:
        return projects[0]
    if not projects:
        told = "; ".join(unreadable_projects())
        raise UsageError(f"there is no project yet{told and f' ({told})'}", "make one: dreambooth init")
    names = ", ".join(project.name for project in projects)
    raise UsageError("which project? its name is missing", f"your projects: {names}")


def remove_project(project: Project) -> str:
    """Delete a project with all its runs and pictures. Returns "", or a warning if its file system has no locks.

    Raises ProjectError if it is only a link to another place, or in use.
    """
    if project.path.is_symlink():
        raise ProjectError(
            f"project {project.name} is a link to {real_path(project.path)}",
            "remove that folder yourself, then the link",
        )
    with ExitStack() as held:
        with system_errors(DiskError, f"can't remove project {project.name}", project.path):
            leaving = held.enter_context(temporary(projects_folder()))
        remark = _take_away(project, leaving)  # gone at once: other processes find no project from now on
        try:
            _check_not_kept(project, leaving)  # one that started in between still counts
        except ProjectError:
            leaving.rename(project.path)
            raise
        with system_errors(DiskError, f"can't remove all of project {project.name}", leaving, "check who may write there"):
            remove(leaving)
    return remark


def _take_away(project: Project, leaving: Path) -> str:
    """Rename a project's folder while it is held. On Windows the open lock stands in the way: there, as soon as it is let go, when
    the lock of whoever came in between would stand in the way again. Raises ProjectError, DiskError, OSError for the lock's file."""
    with project.lock() as remark:
        _check_not_kept(project, project.path)
        with suppress(OSError):  # what stands in the way for good is told below
            project.path.rename(leaving)
            return remark
    with system_errors(DiskError, f"can't remove project {project.name}", project.path):
        project.path.rename(leaving)
    return remark


@contextmanager
def keep(project: Project) -> Iterator[None]:
    """Keep a project from being removed while pictures are drawn with it or into it; other drawing, and a run, may go on meanwhile.

    Raises ProjectError if it has been removed. A killed process no longer keeps it.
    """
    lock = filelock.FileLock(project.path / f"{KEPT}{os.getpid()}-{uuid.uuid4().hex}", blocking=False, fallback_to_soft=False)
    try:
        # drawing is allowed even in a read-only project, or on a disk without locks
        with suppress(OSError):
            _clear_up_kept(project.path)
            lock.acquire()
        if not _has_settings(project.path):
            raise ProjectError(f"project {project.name} has just been removed", "see `dreambooth projects`")
        yield
    finally:
        lock.release()
        with suppress(OSError):
            Path(lock.lock_file).unlink(missing_ok=True)
        if not _has_settings(project.path):
            with suppress(OSError):
                project.path.rmdir()  # which taking the lock made again


def _is_kept_name(path: Path) -> bool:
    return re.fullmatch(rf"{re.escape(KEPT)}[0-9]+-[0-9a-f]{{32}}", path.name) is not None


def _clear_up_kept(folder: Path) -> None:
    """Remove the lock files of killed processes that kept a project. A recent one may be about to be locked."""
    for path in filter(_is_kept_name, folder.glob(f"{KEPT}*")):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 60:
                with filelock.FileLock(path, blocking=False, fallback_to_soft=False):
                    path.unlink()


def _check_not_kept(project: Project, folder: Path) -> None:
    """Raises ProjectError if a process is drawing with a project, which is now in `folder`."""
    for path in filter(_is_kept_name, folder.glob(f"{KEPT}*")):
        try:
            with filelock.FileLock(path, blocking=False, fallback_to_soft=False):
                continue
        except filelock.Timeout as error:
            drawing = path.name.removeprefix(KEPT).partition("-")[0]
            raise ProjectError(
                f"project {project.name} is in use by process {drawing}, which draws pictures", "wait for it, or stop it first"
            ) from error
        except OSError:
            continue  # a disk that knows no locks


def project_of(path: Path) -> Project | None:
    """The project that a path is in, or None."""
    for folder in (projects_folder(), real_path(projects_folder())):
        for each in (path, real_path(path)):
            if each.is_relative_to(folder) and each != folder:
                project = Project(folder / each.relative_to(folder).parts[0])
                return project if _has_settings(project.path) else None
    return None


def check_model_place(output_dir: Path) -> Path:
    """The real path of a folder for a finished model. Raises UsageError, before any work, if it can't be written, or is in a project, whose
    folders are made anew and removed with it."""
    real = check_folder(output_dir, ANOTHER_PLACE)
    if (project := project_of(real)) is not None:
        raise UsageError(f"{output_dir} is inside project {project.name}, whose folders are its own", ANOTHER_PLACE)
    return real


def find_project(photos: Path, noun: str, *, class_prompt: str = "") -> Project | None:
    """The project that was made from this photo folder (its real path) and class noun. One that can't be read is skipped.

    If there are several: the one with a run of exactly this class prompt, else the one with this class prompt. Raises ProjectError if a
    broken one names this folder, since another must not be made beside it.
    """
    from .prompts import class_noun

    found: list[Project] = []
    for project in list_projects():
        try:
            subject = project.settings()["subject"]
        except ProjectError:
            if _names(project.config, real_path(photos)):
                raise
            continue
        if subject.get("photos") is None or real_path(subject["photos"]) != real_path(photos):
            continue
        prompt = subject.get("class_prompt") or ""
        if project.has_run_of(class_prompt):
            return project
        if prompt == class_prompt:
            found.insert(0, project)
        elif class_noun(prompt, subject.get("identifier") or AUTO) == noun:
            found.append(project)
    return found[0] if found else None


def _names(config: Path, folder: Path) -> bool:
    """Whether the text of a broken settings file names a folder."""
    try:
        text = config.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(f"{quote}{folder}{quote}" in text for quote in "\"'")
