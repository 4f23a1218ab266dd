"""What one call of `train` means, before any work: a project, or at once photos and a class prompt."""

import json
from dataclasses import dataclass
from pathlib import Path

from .bases.base import ask_for_base
from .config import Asked, Told, ask
from .disk import clear_leftovers, holds_something
from .errors import UsageError
from .model_card import read_card
from .paths import expanded, real_path
from .project import ANOTHER_PLACE, Project, check_model_place, choose_project, find_project, unreadable_projects
from .prompts import check_class_prompt, class_noun
from .run import Run
from .settings import FORMER, SubjectSettings, as_before, shaping

DIRECT_OUTPUT = Path("output")  # where the model goes if there is no project to leave it in


@dataclass(frozen=True, kw_only=True)
class Order:
    """Whose training one call of `train` asks for, and where the model goes. `project` is None where the photos have no project yet;
    `passed_over` says then which ones can't be read. `photos` is None where the project was named."""

    project: Project | None
    photos: Path | None
    output_dir: Path | None
    passed_over: tuple[str, ...] = ()


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


def check_output(folder: Path | None, project: Project | None, asked: Asked | None = None, *, restart: bool = False) -> None:
    """Refuse, before any work, a folder that can't hold the model of the run that is meant (`asked` None: any of the project's), whole
    or in part. Raises UsageError."""
    if folder is None:
        return
    runs = project.runs() if project is not None and not restart else []
    if folder.is_dir() or not folder.exists():
        check_model_place(folder)
        clear_leftovers(folder)
        if not folder.exists() or not holds_something(folder):
            return
        card = read_card(folder)
        if card is not None and any(asked is None or is_meant(run, asked) for run in runs if run.id == card.run):
            return
    if not folder.is_dir() or not any(run.has_part_at(folder) for run in runs):
        raise UsageError(f"{folder} exists and is not this run's model", ANOTHER_PLACE)


def is_meant(run: Run, asked: Asked) -> bool:
    """Whether a run may be the one that these settings mean, as far as settings say it: its photos and its base are looked at later."""
    began = (run.record().shape or {}).get("asked")  # 0.1 kept none
    known = [{**shaping(asked.subject), **shaping(asked.train)}]
    known += [{**as_before(asked.subject, version), **as_before(asked.train, version)} for version in FORMER]
    return began is None or json.dumps(began, sort_keys=True) in (json.dumps(each, sort_keys=True) for each in known)
