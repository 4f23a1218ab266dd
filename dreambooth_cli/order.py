"""What one call means, before any work: of `train` a project, or at once photos and a class prompt; of `generate` what draws."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bases.base import ask_for_base
from .config import Asked, Told, ask
from .disk import clear_leftovers, holds_something
from .errors import UsageError
from .model_card import read_card
from .paths import expanded, real_path
from .project import ANOTHER_PLACE, Project, check_model_place, choose_project, find_project, unreadable_projects
from .prompts import check_class_prompt, class_noun
from .settings import SubjectSettings

DIRECT_OUTPUT = Path("output")  # where the model goes if there is no project to leave it in
DRAWN = Path("generated")  # where pictures go if there is none

@dataclass(frozen=True, kw_only=True)
class Order:
    """Whose training one call of `train` asks for, and where the model goes. `project` is None where the photos have no project yet;
    `passed_over` says then which ones can't be read. `photos` is None where the project was named."""

    project: Project | None
    photos: Path | None
    output_dir: Path | None
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What is drawn with: a model's folder or LoRA file, the base of a LoRA and the subject's word as the user named them: without, the
    card beside the model has them."""

    path: Path
    base: str | None = None
    identifier: str | None = None


def find_source(where: Project | Path, run: int | None) -> tuple[Path, Mapping[str, Any], Path]:
    """What is drawn with: a project's run (None: its newest finished one), or a path; what project.toml says of it, and where the
    pictures go. Raises UsageError, ProjectError."""
    if isinstance(where, Project):
        return where.finished_run(run).path, where.settings()["generate"], where.images
    if run is not None:
        raise UsageError("--run is for a project", "name the project, or leave --run out")
    return where, {}, DRAWN


def understand(name: str | None, told: Told, output_dir: Path | None = None) -> tuple[Order, Asked]:
    """What was said, held against the project that it means. Raises UsageError, ProjectError, ModelUnavailable."""
    subject = dict(told.get(SubjectSettings, {}))
    photos = subject.get("photos")
    if photos is not None:
        photos = subject["photos"] = real_path(photos)
    check_is_whole(name, photos, "class_prompt" in subject)
    passed_over: tuple[str, ...] = ()
    if photos is None:
        found: Project | None = choose_project(name)
    else:
        settings = SubjectSettings(**subject)  # before it is looked for: a wrong value is told first
        wanted = settings.class_prompt or ""
        found = find_project(photos, class_noun(wanted, settings.identifier), class_prompt=wanted)
        passed_over = tuple(unreadable_projects()) if found is None else ()
        output_dir = output_dir or DIRECT_OUTPUT
    asked = ask(found.settings() if found else {}, {**told, SubjectSettings: subject})
    ask_for_base(asked.subject.model)
    place = expanded(output_dir) if output_dir else None
    return Order(project=found, photos=photos, output_dir=place, passed_over=passed_over), asked


def check_is_whole(name: str | None, photos: Path | None, has_prompt: bool) -> None:
    """Raises UsageError where a call names a project and photos, or one half of what the direct form takes."""
    if name is not None and photos is not None:
        raise UsageError(
            f"project {name} has photos of its own", f"bring others in: dreambooth prep {name} --photos {photos}"
        )
    if name is None and photos is None and has_prompt:
        raise UsageError("where are the photos?", "name their folder: --photos ./instance_images, or name a project")
    if photos is not None and not has_prompt:
        raise UsageError("what is in the photos? the class prompt is missing", 'say it: --class-prompt "a dog"')


def check_prompt(order: Order, asked: Asked) -> None:
    """Raises UsageError where it is not certain what the class prompt's subject is. A run that has begun under it goes on with the
    prompts that it has."""
    wanted = asked.subject.class_prompt or ""
    try:
        check_class_prompt(wanted, asked.subject.identifier, with_class_images=asked.train.with_prior)
    except UsageError:
        if order.project is None or not order.project.has_run_of(wanted):
            raise


def check_output(folder: Path | None, project: Project | None) -> None:
    """Refuse, before any work, a folder that can't be a model of ours, whole or in part. Raises UsageError."""
    if folder is None:
        return
    runs = project.runs() if project is not None else []
    if folder.is_dir() or not folder.exists():
        check_model_place(folder)
        clear_leftovers(folder)
        if not folder.exists() or not holds_something(folder) or read_card(folder) is not None:
            return
    if not folder.is_dir() or not any(run.has_part_at(folder) for run in runs):
        raise UsageError(f"{folder} exists and is not this run's model", ANOTHER_PLACE)
