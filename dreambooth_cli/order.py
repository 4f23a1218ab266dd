"""What one call of `train` means, before any work: a project, or at once photos and a class prompt."""

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
    """Whose training one call of `train` asks for, and where the model goes. `project` is None where the photos have no project yet;
    `passed_over` says then which ones can't be read. `photos` is None where the project was named; `odd` is else what is odd about a
    class prompt under which no run has begun, in a sentence."""

    project: Project | None
    photos: Path | None
    output_dir: Path | None
    export: Format | None = None  # what the finished model is written as, too
    passed_over: tuple[str, ...] = ()
    odd: str = ""


def understand(name: str | None, told: Told, output_dir: Path | None = None) -> tuple[Order, Asked]:
    """What was said, held against the project that it means. Raises UsageError, ProjectError, ModelUnavailable."""
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
        settings = SubjectSettings(**subject)  # before it is looked for: a wrong value is told first
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
    """What is asked of a run that begins with the weights of a finished one: the same base, subject and form of the weights. Raises
    UsageError where a flag says otherwise, ProjectError where there is no such run, or its weights are gone."""
    if project is None:
        raise UsageError("--continue is for a project that has a finished run", "name it: dreambooth train my-dog --continue 1")
    run = project.finished_run(number)
    record, steps = run.record(), int(run.record().asked["train"]["steps"])
    if not (run.checkpoint(steps) / WEIGHTS).is_file():
        raise ProjectError(f"run {number} of {project.name} keeps no weights to go on from", "they lay in its checkpoints, which are gone")
    was = {
        "subject": {**record.asked["subject"], "identifier": record.prompts.identifier},
        "train": {**record.asked["train"], "method": record.plan.method, "train_text_encoder": record.plan.train_text_encoder},
    }
    wanted = {"subject": ("model", "class_prompt", "identifier"), "train": KEPT}
    for stage, names in wanted.items():
        for name in names:
            asks, had = getattr(getattr(asked, stage), name), was[stage].get(name)
            if asked.sources.get(stage, {}).get(name, "").startswith("--") and name in was[stage] and asks not in (had, AUTO):
                raise UsageError(f"{flag_of(name)} {asks} is not what run {number} was trained with ({had})", "leave it out, or begin anew")
    subject = replace(asked.subject, **{name: was["subject"][name] for name in wanted["subject"]})
    train = replace(asked.train, **{name: was["train"][name] for name in KEPT if name in was["train"]})
    return replace(asked, subject=subject, train=train, continues=Continued(number, run.id, steps))


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
    """Whether a run may be the one that these settings mean, as far as settings say it: its photos and its base are looked at later."""
    try:
        began = (run.record().shape or {}).get("asked")  # 0.1 kept none
    except ProjectError:  # one without a record, or with a damaged one: that is told where it is needed
        return False
    known = [asked.shaping(version) for version in ("", *FORMER)]
    return began is None or json.dumps(began, sort_keys=True) in (json.dumps(each, sort_keys=True) for each in known)
