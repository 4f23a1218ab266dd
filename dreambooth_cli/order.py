"""What one call of `train` means, before any work: a project, or directly photos and a class prompt."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from .bases.base import ask_for_base
from .config import Asked, Told, ask
from .disk import clear_leftovers, holds_something
from .errors import ProjectError, UsageError
from .formats import Format
from .model_card import read_card
from .paths import expanded, real_path
from .project import ANOTHER_PLACE, Project, check_model_place, choose_project, find_project, unreadable_projects
from .prompts import check_class_prompt, class_noun, oddity_line
from .record import Continued
from .run import WEIGHTS, Run
from .settings import AUTO, FORMER, SubjectSettings, flag_of

DIRECT_OUTPUT = Path("output")  # where the model goes if there is no project to leave it in


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one call of `train` asks for, and where the model goes. `project`: None if the photos have no project yet; `passed_over` then
    says which projects can't be read. `photos`: None if the project was named. `odd`: with photos, what is odd about a class prompt that
    no run has begun with, in a sentence."""

    project: Project | None
    photos: Path | None
    output_dir: Path | None
    export: Format | None = None  # the format in which the finished model is also written
    passed_over: tuple[str, ...] = ()
    odd: str = ""


def understand(name: str | None, told: Told, output_dir: Path | None = None) -> tuple[Order, Asked]:
    """Find the project that a call means, and merge what was said with its settings. Raises UsageError, ProjectError, ModelUnavailable."""
    subject = dict(told.get(SubjectSettings, {}))
    photos = subject.get("photos")
    if photos is not None:
        photos = subject["photos"] = real_path(photos)
    check_is_whole(name, photos, "class_prompt" in subject)
    passed_over: tuple[str, ...] = ()
    odd = ""
    if photos is None:
        found: Project | None = choose_project(name)
    else:
        settings = SubjectSettings(**subject)  # before the search, so that a wrong value is reported first
        wanted = settings.class_prompt or ""
        found = find_project(photos, class_noun(wanted, settings.identifier), class_prompt=wanted)
        passed_over = tuple(unreadable_projects()) if found is None else ()
        odd = "" if found is not None and found.has_run_of(wanted) else oddity_line(wanted, settings.identifier)
        output_dir = output_dir or DIRECT_OUTPUT
    asked = ask(found.settings() if found else {}, {**told, SubjectSettings: subject})
    ask_for_base(asked.subject.model)
    place = expanded(output_dir) if output_dir else None
    return Order(project=found, photos=photos, output_dir=place, passed_over=passed_over, odd=odd), asked


KEPT = ("method", "train_text_encoder", "rank", "lora_layers", "alpha")  # settings that give a run's weights their form


def continue_from(project: Project | None, asked: Asked, number: int) -> Asked:
    """What is asked of a run that starts from the weights of a finished one: the same base and subject, and weights of the same form.
    Raises UsageError if a flag says otherwise, ProjectError if there is no such run or its weights are gone."""
    if project is None:
        raise UsageError("--continue is for a project that has a finished run", "name it: dreambooth train my-dog --continue 1")
    run = project.finished_run(number)
    record, steps = run.record(), int(run.record().asked["train"]["steps"])
    if not (run.checkpoint(steps) / WEIGHTS).is_file():
        raise ProjectError(f"run {number} of {project.name} has no weights to continue from", "they were in checkpoints that are gone")
    was = {
        "subject": {**record.asked["subject"], "identifier": record.prompts.identifier},
        "train": {**record.asked["train"], "method": record.plan.method, "train_text_encoder": record.plan.train_text_encoder},
    }
    wanted = {"subject": ("model", "class_prompt", "identifier"), "train": KEPT}
    for stage, names in wanted.items():
        for name in names:
            asks, had = getattr(getattr(asked, stage), name), was[stage].get(name)
            if asked.sources.get(stage, {}).get(name, "").startswith("--") and name in was[stage] and asks not in (had, AUTO):
                raise UsageError(f"{flag_of(name)} {asks} is not what run {number} was trained with ({had})", "leave it out, or start anew")
    subject = replace(asked.subject, **{name: was["subject"][name] for name in wanted["subject"]})
    train = replace(asked.train, **{name: was["train"][name] for name in KEPT if name in was["train"]})
    return replace(asked, subject=subject, train=train, continues=Continued(number, run.id, steps))


def check_is_whole(name: str | None, photos: Path | None, has_prompt: bool) -> None:
    """Raises UsageError if a call names both a project and photos, or only half of what the direct form needs."""
    if name is not None and photos is not None:
        raise UsageError(
            f"project {name} has photos of its own", f"to bring in others: dreambooth prep {name} --photos {photos}"
        )
    if name is None and photos is None and has_prompt:
        raise UsageError("where are the photos?", "name their folder: --photos ./instance_images, or name a project")
    if photos is not None and not has_prompt:
        raise UsageError("what is in the photos? the class prompt is missing", 'say it: --class-prompt "a dog"')


def check_prompt(order: Order, asked: Asked) -> None:
    """Raises UsageError if it is unclear what the class prompt's subject is, unless a run has begun with it, which keeps its prompts."""
    wanted = asked.subject.class_prompt or ""
    try:
        check_class_prompt(wanted, asked.subject.identifier, with_class_images=asked.train.with_prior)
    except UsageError:
        if order.project is None or not order.project.has_run_of(wanted):
            raise


def check_output(folder: Path | None, project: Project | None, asked: Asked | None = None, *, restart: bool = False) -> None:
    """Refuse, before any work, an output folder with anything but the model, whole or in part, of the run that is meant (`asked` None:
    of any run of the project). Raises UsageError."""
    if folder is None:
        return
    runs = [run for run in project.runs() if asked is None or is_meant(run, asked)] if project is not None and not restart else []
    if folder.is_dir() or not folder.exists():
        check_model_place(folder)
        clear_leftovers(folder)
        if not folder.exists() or not holds_something(folder):
            return
        card = read_card(folder)
        if card is not None and any(run.id == card.run for run in runs):
            return
    if not folder.is_dir() or not any(run.has_part_at(folder) for run in runs):
        raise UsageError(f"{folder} exists and is not this run's model", ANOTHER_PLACE)


def is_meant(run: Run, asked: Asked) -> bool:
    """Whether a run may be the one that these settings mean; its photos and its base are compared later."""
    try:
        began = (run.record().shape or {}).get("asked")  # 0.1 kept none
    except ProjectError:  # no record, or a damaged one: reported where it is needed
        return False
    known = [asked.shaping(version) for version in ("", *FORMER)]
    return began is None or json.dumps(began, sort_keys=True) in (json.dumps(each, sort_keys=True) for each in known)
