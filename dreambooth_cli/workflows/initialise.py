"""`init`: make a project, whole or not at all; and add photos to it later."""

import os
import shutil
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..bases.base import ask_for_base
from ..config import write_config
from ..disk import (
    clear_leftovers,
    disk_errors,
    make_folder,
    settle,
    sha256_of,
    sync,
    sync_all,
    temporary,
    write_whole,
)
from ..errors import ProjectError, UsageError
from ..events import Event, Events, Noted, PhaseStarted, PhotoLooked, PhotoRead, ProjectSaved, Warned
from ..memory.search import check_trainable
from ..paths import PRIVATE, expanded, projects_folder, real_path
from ..photos.beside import CAPTION, MASK
from ..photos.files import Look, check_beside, decoded_look, find_photos, printable
from ..photos.findings import TWICE, same_file
from ..photos.mask import read_mask
from ..project import Project, check_name, clear_up, free_name, suggest_name
from ..prompts import check_class_prompt, class_noun
from ..settings import PrepSettings, SubjectSettings, TrainSettings, default_of
from .plan import known_facts
from .prepare import LEFT_OUT, left_out, no_usable_photo, prepare

LONGEST_NAME = 255  # bytes, on nearly every file system
HINT = "put 3 to 5 photos of the subject there (jpg, png, webp, heic, ...), or name another folder: --photos DIR"


def initialise(
    name: str | None,
    *,
    subject: SubjectSettings,
    prep: Mapping[str, Any],
    train: Mapping[str, Any],
    only: Collection[str] | None = None,
    warnings: Sequence[str] = (),
) -> Events:
    """Make a project: copy the photos of a folder, write project.toml. If it is left early or fails, nothing is there.

    `name`: None takes the class noun, with a number if that is taken. `prep` and `train`: the settings that were given, without defaults.
    `only`: the names of the files to take from the folder, None for all. `warnings`: what is odd about the answers.
    Raises UsageError, PhotoError, ProjectError, ModelUnavailable, DiskError.
    """
    for warning in warnings:
        yield Warned(message=warning)
    sections = _sections(subject, prep, train)
    source, noun = _photo_folder(subject), class_noun(subject.class_prompt or "", subject.identifier)
    if name is not None:
        _check_free(projects_folder() / check_name(name))
    clear_up()
    with disk_errors(projects_folder()):
        make_folder(projects_folder(), PRIVATE)
    # on the projects' own disk, and hidden: a half-made project is never listed
    with disk_errors(projects_folder()), temporary(projects_folder()) as making_place:
        making = Project(making_place)
        make_folder(making.photos)
        yield from _copy_pictures(source, making.photos, only)
        write_config(making.config, sections)
        target = _publish(making, name, suggest_name(noun))
    yield ProjectSaved(name=target.name, path=target, created=True)


def add_photos(project: Project, folder: Path) -> Events:
    """Make a project use the photos of a folder: those whose content is new are copied in; those that are gone are no longer used, but
    kept. The same goes for captions and masks, and changed ones replace the project's copies.

    The caller holds the project's lock. Raises PhotoError if no photo there can be used, DiskError.
    """
    with disk_errors(project.photos):
        make_folder(project.photos)
        clear_leftovers(project.photos)
    looks = yield from _look_at(folder, show_kept=False)
    wanted = {look.sha256: look for look in looks if look.status == "ok"}
    own = [look for look in find_photos(project.photos) if look.sha256]
    has = {look.sha256 for look in own}
    new = [look for digest, look in wanted.items() if digest not in has]
    before, gone = left_out(project), {look.path.name for look in own if look.sha256 not in wanted}
    with disk_errors(project.photos):
        places = {look.sha256: look.path for look in reversed(own)}
        for look in new:
            places[look.sha256] = _free_path(project.photos, look.path.name)
            _copy(look.path, places[look.sha256])
        renewed, without = _copy_beside(wanted.values(), places)
        gone |= without
        if gone != before:
            _write_left_out(project, gone)
    if renewed:
        yield Noted(message=f"brought up to date in project {project.name}: {', '.join(map(printable, renewed))}")
    if project.settings()["subject"].get("photos") != real_path(folder):
        write_config(project.config, {"subject": {"photos": real_path(folder)}})
    yield from _changes(project, len(new), sorted(gone - before), sorted(before - gone))


def renew(project: Project, settings: PrepSettings, *, resolution: int, step: int, photos: Path | None) -> Events:
    """Prepare a project's photos, after bringing in those of the folder `photos`, if any. Raises PhotoError, ProjectError, DiskError."""
    with project.lock() as unlocked:
        if unlocked:
            yield Warned(message=unlocked)
        if photos is not None:
            yield from add_photos(project, expanded(photos))
        source = photos or project.settings()["subject"].get("photos")
        yield from prepare(project, settings, resolution=resolution, step=step, source=source)


def _sections(subject: SubjectSettings, prep: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What project.toml will say. Raises UsageError if an answer is missing, a value is out of bounds or the base is not trained so,
    ModelUnavailable for what is no base."""
    if subject.photos is None:
        raise UsageError("where are the photos? their folder is missing", "name it: --photos DIR")
    if subject.class_prompt is None:
        raise UsageError("what is the subject? the class prompt is missing", 'say it: --class-prompt "a dog"')
    check_class_prompt(subject.class_prompt, subject.identifier, with_class_images=False)
    told = {
        item.name: value
        for item in fields(subject)
        # the base is always written: a new default in a later version must not change a project
        if (value := getattr(subject, item.name)) != default_of(SubjectSettings, item.name) or item.name == "model"
    }
    base = ask_for_base(subject.model)
    told |= {"photos": real_path(subject.photos)}
    if base.path and not base.entry:
        told["model"] = str(base.path)
    elif "://" in subject.model:  # the address may contain a password
        told["model"] = base.asked
    stages = {
        "prep": {key: value for key, value in prep.items() if value is not None},
        "train": {key: value for key, value in train.items() if value is not None},
    }
    PrepSettings(**stages["prep"])
    asked = TrainSettings(**stages["train"])
    facts = known_facts(base)
    if facts is not None:  # others are known only once they are fetched
        check_trainable(facts, asked.of_family(facts.family))
    return {"subject": told, **stages}


def _photo_folder(subject: SubjectSettings) -> Path:
    assert subject.photos is not None  # checked by `_sections`
    return expanded(subject.photos)


def check_photos(folder: Path) -> None:
    """Raises PhotoError if a folder is missing or has no photo in it. The first good one is enough."""
    looks = list(_until_ok(find_photos(expanded(folder))))
    if not looks or looks[-1].status != "ok":
        raise no_usable_photo(folder, [(printable(look.path.name), look.reason) for look in looks], HINT)


def _until_ok(looks: Iterable[Look]) -> Iterator[Look]:
    for look in looks:
        yield look
        if look.status == "ok":
            return


def _check_free(target: Path) -> None:
    if (target / "project.toml").is_file():
        raise ProjectError(
            f"there is already a project called {target.name}",
            f"choose another name, or remove it first: dreambooth projects remove {target.name}",
        )
    if target.exists():
        raise ProjectError(f"{target} already exists and is not a project", "choose another name, or move it away")


def _publish(making: Project, name: str | None, wanted: str) -> Path:
    """Rename the finished folder to `name`, or to the next free name after `wanted`, and return its path."""
    sync_all(making.path)
    while True:
        target = projects_folder() / (name or free_name(wanted))
        try:
            settled = making.path.rename(target)
            sync(target.parent)
            return settled
        except OSError:
            # another process took this name first
            if not target.exists():
                raise
            if name is not None:
                _check_free(target)


def _copy_pictures(source: Path, photos: Path, only: Collection[str] | None) -> Events:
    for look in (yield from _look_at(source, show_kept=True, only=only)):
        if look.status == "ok":
            with disk_errors(photos):
                _copy(look.path, photos / look.path.name)
                _copy_beside([look], {look.sha256: photos / look.path.name})


def _look_at(folder: Path, *, show_kept: bool, only: Collection[str] | None = None) -> Generator[Event, None, list[Look]]:
    """Check every file of a folder. Returns the looks. Raises PhotoError if none can be used.

    Each file that is not used gets an event; the others only with `show_kept`, because `prep`, if it follows, says more about them.
    `only`: the names of the files to check, None for all.
    """
    found = [look for look in find_photos(expanded(folder)) if only is None or look.path.name in only]
    yield PhaseStarted(name="looking at the photos", total=len(found), unit="photos")
    looks: list[Look] = []
    for number, one in enumerate(found, start=1):
        look = decoded_look(one) if one.status == "ok" else one
        looks.append(look)
        yield PhotoRead(number=number, total=len(found))
        if look.status == "ok" and not show_kept:
            continue
        yield PhotoLooked(
            path=printable(folder / look.path.name),
            status="kept" if look.status == "ok" else look.status,
            reasons=(look.reason,) if look.reason else (),
            findings=(same_file(look.twin),) if look.twin else (),
            word=TWICE if look.twin else "",
        )
    check_beside(looks)
    for look in looks:
        if look.status == "ok" and look.beside.mask is not None and look.size is not None:
            read_mask(look.beside.mask, look.size)
    if not any(look.status == "ok" for look in looks):
        raise no_usable_photo(folder, [(printable(look.path.name), look.reason) for look in looks], HINT)
    return looks


def _copy_beside(looks: Iterable[Look], places: Mapping[str, Path]) -> tuple[list[str], set[str]]:
    """Copy the captions and masks of a folder beside the project's photos (`places`: sha256 -> path). Returns the names of those that are
    new or changed, and of those that the project has but the folder has not."""
    renewed, without = [], set()
    for look in looks:
        for ending, path in ((CAPTION, look.beside.caption_file), (MASK, look.beside.mask)):
            to = places[look.sha256].with_name(places[look.sha256].stem + ending)
            if path is None and os.path.exists(to):
                without.add(to.name)
            elif path is not None and not (os.path.exists(to) and sha256_of(to) == sha256_of(path)):
                _copy(path, to)
                renewed.append(to.name)
    return renewed, without


def _copy(path: Path, to: Path) -> None:
    """Copy a photo under a temporary name, then rename it, so that a file with its name is always whole. Permissions are not copied."""
    with temporary(to.parent) as part:
        shutil.copyfile(path, part)
        settle(part, to)


def _free_path(folder: Path, name: str) -> Path:
    """`name` in a folder, or `name-2` and so on if that name is taken."""
    path, number = folder / name, 1
    while path.exists():
        number += 1
        stem, ending = Path(name).stem, f"-{number}{Path(name).suffix}"
        while len(os.fsencode(stem + ending)) > LONGEST_NAME:
            stem = stem[:-1]
        path = folder / (stem + ending)
    return path


def _write_left_out(project: Project, names: set[str]) -> None:
    path = project.photos / LEFT_OUT
    # a file name may contain a line break, but no NUL
    write_whole(path, b"".join(os.fsencode(name) + b"\0" for name in sorted(names)))


def _changes(project: Project, new: int, gone: list[str], back: list[str]) -> Events:
    if new:
        yield Noted(message=f"{new} new {'photo' if new == 1 else 'photos'} copied into project {project.name}")
    if gone:
        yield Noted(message=f"no longer used in project {project.name}, but kept: {', '.join(map(printable, gone))}")
    if back:
        yield Noted(message=f"used again in project {project.name}: {', '.join(map(printable, back))}")
