"""`prep`: photos -> pictures to train on, with a report and a contact sheet. Only what has changed is done again."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Generator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

from ..captions import caption_remarks, plain_caption
from ..disk import (
    clear_leftovers,
    disk_errors,
    make_folder,
    read_text,
    replace_folder,
    sha256_of,
    temporary,
    write_json,
)
from ..errors import PhotoError, ProjectError, UsageError
from ..events import Event, Events, Finding, PhaseStarted, PhotoLooked, PhotoRead, PhotosPrepared, Warned
from ..locks import hold
from ..paths import cache_folder, expanded
from ..photo_table import check_photo_names
from ..photos.beside import MASK
from ..photos.buckets import STEP, bucket_sizes
from ..photos.crop import Box, Size, scaled_box, within
from ..photos.files import Look, check_beside, count_likely, find_photos, printable
from ..photos.findings import judge_photos, judge_set, verdict_on, word_for
from ..photos.inspect import judge_count
from ..photos.looked import Looked, forget_old
from ..photos.sheet import Tile, contact_sheet, save_sheet
from ..project import Project
from ..schemas import check_schema, with_schema
from ..settings import AUTO, PrepSettings
from ..text import listed, shortened
from .photo_rows import Preparing, kept_rows, photo_rows
from .prepared import PreparedPhoto

REPORT, SHEET, LEFT_OUT = "report.json", "contact-sheet.jpg", ".left-out"
OF_THE_WHOLE = {"tiny_subject", "cut_subject"}  # findings that do not apply to a photo whose box the user chose


def prepare(
    project: Project, settings: PrepSettings, *, resolution: int, step: int = STEP, source: Path | None = None
) -> Events:
    """Turn a project's photos upright, crop and resize them to squares with sides of `resolution` pixels, or, with --crop none, to about
    as many pixels in their own shapes, with sides that are multiples of `step`. Nothing is written if nothing has changed.

    `source`: the folder that the photos came from; events name each photo there, as the user gave it.
    The caller holds the project's lock. Raises PhotoError if no photo can be used, ProjectError, DiskError.
    """
    if not project.photos.is_dir():
        raise ProjectError(
            f"project {project.name} has lost its photos folder",
            f"give it photos: dreambooth prep {project.name} --photos DIR",
        )
    clear_leftovers(project.photos)
    looks = [look for look in find_photos(project.photos, left_out(project)) if look.path.name != LEFT_OUT]
    check_beside(looks)
    looks, boxes = with_own_words(project, looks)
    buckets = bucket_sizes(resolution, step) if settings.crop == "none" else ()
    if settings.crop == AUTO and is_kept_central(project):
        settings = replace(settings, crop="center")
    preparing = Preparing(project.photos, looks, resolution, settings, buckets, boxes, project.config)
    report = _kept_report(project.prepared, preparing.key)
    if report is None:
        report = yield from _make(preparing, project.prepared, source)
    else:
        for row in report["photos"]:
            yield _looked(project.photos / row["file"], row, source)
    if settings.strict:
        _check_strictly(report)
    for warning in [*report["warnings"], *caption_warnings(project, looks)]:
        yield Warned(message=warning)
    yield PhotosPrepared(
        count=report["usable"],
        resolution=resolution,
        path=project.prepared,
        contact_sheet=project.prepared / SHEET,
        report=project.prepared / REPORT,
        sizes=_sizes(report),
        findings=_findings_of(report),
        verdict=report["verdict"],
    )


def prepared_photos(project: Project) -> list[PreparedPhoto]:
    """The prepared photos of a project, in the order of their names.

    Raises ProjectError if the report or a picture is missing or was changed.
    """
    hint = f"prepare them again: dreambooth prep {project.name}"
    report = read_report(project.prepared)
    if report is None:
        raise ProjectError(
            f"the prepared photos in {project.prepared} are missing or damaged: {REPORT} can't be read", hint
        )
    for path, digest in _files(project.prepared, report):
        if not _is_whole(path, digest):
            raise ProjectError(f"the prepared photo {path} is missing or was changed", hint)
    return [PreparedPhoto.of_row(project.prepared, row) for row in report["photos"] if row["prepared"] is not None]


def prepare_class_photos(
    folder: Path, settings: PrepSettings, *, resolution: int
) -> Generator[Event, None, list[Path]]:
    """Prepare the user's own class images as squares with sides of `resolution` pixels, in the cache. Returns the paths of those that can
    be used; each of the others gets an event. Raises UsageError if there is no such folder, DiskError."""
    try:
        looks = list(find_photos(expanded(folder)))
    except PhotoError as error:
        raise UsageError(f"--class-data-dir: {error.message}", "name a folder with pictures of the class") from error
    if settings.crop in (AUTO, "none"):  # drawn class images are squares too, and these show no particular subject
        settings = replace(settings, crop="center")
    preparing = Preparing(expanded(folder), looks, resolution, settings, judged=False)
    target = cache_folder() / "class-photos" / preparing.key[:32] / "prepared"
    with disk_errors(target), hold(target.parent):
        report = _kept_report(target, preparing.key)
        if report is None:
            report = yield from _make(preparing, target, folder)
        else:
            for row in report["photos"]:
                if row["prepared"] is None:
                    yield _looked(folder / row["file"], row, folder)
    if not report["usable"]:
        yield Warned(message=f"{printable(folder)} has no class image that can be used, so all of them are drawn")
    return [path for path, _ in _pictures(target, report)]


def is_kept_central(project: Project) -> bool:
    """Whether the photos were cropped in the middle, as 0.2 did, and a run has begun with them, and nobody has asked for another crop
    since. They are then cropped that way again, so that the same command finds its run."""
    report = read_report(project.prepared)
    if report is None or report.get("crop") != "center" or not any(run.has_begun for run in project.runs()):
        return False
    return not project.config.is_file() or "crop" not in project.settings()["prep"]


def with_own_words(project: Project, looks: list[Look]) -> tuple[list[Look], dict[str, Box]]:
    """The photos, with captions in project.toml replacing those in files, and the boxes given there, by file name. Raises PhotoError,
    ProjectError."""
    table = project.settings()["photos"] if project.config.is_file() else {}
    check_photo_names(project.config, table, [printable(look.path.name) for look in looks])
    found, boxes = [], {}
    for look in looks:
        name = printable(look.path.name)
        own = table.get(name)
        if own is not None and own.box is not None:
            boxes[name] = own.box
        if own is not None and own.caption is not None:
            try:
                look = replace(look, beside=replace(look.beside, caption=plain_caption(own.caption)))
            except ValueError as error:
                raise PhotoError(f'{project.config}: [photos."{name}"]: {error}', "fix that line") from error
        found.append(look)
    return found, boxes


def caption_warnings(project: Project, looks: list[Look]) -> list[str]:
    """A line for each thing that speaks against a photo's caption."""
    subject = project.settings()["subject"] if project.config.is_file() else {}
    about = subject.get("class_prompt") or "", subject.get("identifier") or AUTO
    told = []
    for look in looks:
        if look.status == "ok" and (caption := look.beside.caption):
            remarks = caption_remarks(caption, *about)
            told += [f'the caption of {printable(look.path.name)}, "{shortened(caption, 60)}": {remark}' for remark in remarks]
    return told


def left_out(project: Project) -> set[str]:
    """The names of the project's photos (and captions and masks) that are kept but not used."""
    path = project.photos / LEFT_OUT
    if not path.is_file():
        return set()
    return {os.fsdecode(name) for name in path.read_bytes().split(b"\0") if name}


def no_usable_photo(folder: Path, looks: list[tuple[str, str]], hint: str) -> PhotoError:
    """The error for a folder without a usable photo; `looks`: the files' names, each with the reason why not."""
    if not count_likely(expanded(folder)) and (inner := _folders_with_photos(expanded(folder))):
        names = ", ".join(printable(each.name) for each in inner[:3])
        more = f" and {len(inner) - 3} more" if len(inner) > 3 else ""
        hint = f"there are photos in its folders {names}{more}; name one: --photos {shlex.quote(str(inner[0]))}"
        return PhotoError(f"{printable(folder)} holds no photos itself", hint)
    if not looks:
        return PhotoError(f"{printable(folder)} holds no photos", hint)
    told = "; ".join(f"{name}: {reason}" for name, reason in looks[:3])
    more = f"; and {len(looks) - 3} more" if len(looks) > 3 else ""
    return PhotoError(f"no photo in {printable(folder)} can be used ({told}{more})", hint)


def _folders_with_photos(folder: Path) -> list[Path]:
    """The folders in a folder that hold photos; none if it can't be read."""
    with suppress(OSError):
        return [each for each in sorted(folder.iterdir()) if not each.name.startswith(".") and count_likely(each)]
    return []


def _make(preparing: Preparing, target: Path, source: Path | None) -> Generator[Event, None, dict[str, Any]]:
    """Prepare every photo in a temporary folder, then rename that to `target`. Returns the report. If left early, nothing is changed."""
    name = "photos" if preparing.judged else "your class images"
    yield PhaseStarted(name=name, total=len(preparing.looks), unit="photos")
    before = read_report(target)
    with disk_errors(target):
        make_folder(target.parent)
    with disk_errors(target), temporary(target.parent) as part:
        part.mkdir()
        seen: list[tuple[dict[str, Any], Looked | None]] = []
        with closing(photo_rows(preparing, part, kept_rows(target, before["photos"] if before else []))) as rows_seen:
            for number, one in enumerate(rows_seen, start=1):
                seen.append(one)
                yield PhotoRead(number=number, total=len(preparing.looks))
        of_set = _judge(seen, preparing.boxes) if preparing.judged else []
        rows = [row for row, _ in seen]
        for look, row in zip(preparing.looks, rows, strict=True):
            if row["prepared"] is None or preparing.judged:
                yield _looked(look.path, row, source)
        if not any(row["prepared"] for row in rows) and preparing.judged:
            told = [(row["file"], row["reasons"][0]) for row in rows]
            raise no_usable_photo(source or preparing.folder, told, _hint(rows))
        report = _write_report(preparing, part, seen, of_set)
        if preparing.settings.strict:
            _check_strictly(report)
        _exchange(part, target)
        forget_old()
        return report


def _hint(rows: list[dict[str, Any]]) -> str:
    """What to do if no photo can be used: a smaller resolution, if that would help."""
    side = max((min(row["size"]) // 8 * 8 for row in rows if row["size"] is not None), default=0)
    if side >= 32:
        return f"take larger photos, or train on smaller pictures: --resolution {side}"
    return "give 3 to 5 photos of the subject (jpg, png, webp, heic, ...): --photos DIR"


def _judge(seen: list[tuple[dict[str, Any], Looked | None]], boxes: Mapping[str, Box]) -> list[Finding]:
    """Write the findings into the rows of the photos that are used. Returns the findings about the set. For a photo with a box in
    project.toml, how much of it the subject fills is not judged: the user has decided that."""
    used = [(row, looked.measures) for row, looked in seen if row["prepared"] is not None and looked is not None]
    measured = [measures for _, measures in used]
    if not measured:
        return []
    for (row, _), judged in zip(used, judge_photos(measured, [row["file"] for row, _ in used]), strict=True):
        known = _findings_of(row)
        unsaid = {finding.kind for finding in known} | (OF_THE_WHOLE if row["file"] in boxes else set())
        findings = [*known, *(finding for finding in judged if finding.kind not in unsaid)]
        row |= {"findings": [asdict(finding) for finding in findings], "word": word_for(findings)}
    return judge_set(measured)


def _check_strictly(report: dict[str, Any]) -> None:
    """Raises PhotoError if there is a finding about a photo or the set."""
    told = [f"{row['file']}: {row['word']}" for row in report["photos"] if row.get("findings")]
    told += [finding["words"] for finding in report["findings"]]
    if told:
        more = f"; and {len(told) - 5} more" if len(told) > 5 else ""
        raise PhotoError(
            f"refused, as --strict asks: {'; '.join(told[:5])}{more}", "replace these photos, or use them anyway: --no-strict"
        )


def _tile_of(row: Mapping[str, Any], picture: Any) -> Tile:
    """A photo on the contact sheet: the whole photo, the part that is kept, and what was found."""
    size, status = row["size"], row["status"]
    detail = [Path(row["prepared"]).stem] if row["prepared"] else []
    detail += [f"{size[0]} x {size[1]}"] if size else []
    detail += ["enlarged"] if status == "warned" else []
    said = row["reasons"] if status == "refused" else [finding["words"] for finding in row["findings"]]
    box = scaled_box(row["crop"], size, picture.size) if picture is not None and row["crop"] else None
    caption = f'"{row["caption"]}"' if row["caption"] else ""
    return Tile(picture, row["file"], "   ".join(detail), tuple(said), caption, box, status)


def _write_report(
    preparing: Preparing, part: Path, seen: list[tuple[dict[str, Any], Looked | None]], of_set: list[Finding]
) -> dict[str, Any]:
    rows = [row for row, _ in seen]
    usable = sum(row["prepared"] is not None for row in rows)
    remark = judge_count(usable) if preparing.judged else None
    report = {
        "key": preparing.key,
        "resolution": preparing.resolution,
        "crop": preparing.settings.crop,
        "usable": usable,
        "warnings": [remark] if remark else [],
        "findings": [asdict(finding) for finding in of_set],
        "verdict": verdict_on([row["findings"] for row in rows if row["prepared"]], of_set),
        "photos": rows,
    }
    if usable:
        sizes = listed([f"{width} x {height}" for width, height in _sizes(report)])
        tiles = [_tile_of(row, looked and looked.shown) for row, looked in seen if row["status"] != "skipped"]
        photos = "1 photo" if len(tiles) == 1 else f"{len(tiles)} photos"
        kept = photos if usable == len(tiles) else f"{usable} of {photos}"
        told: tuple[str, ...] = (str(report["verdict"]), *(finding.words for finding in of_set)) if preparing.judged else ()
        save_sheet(contact_sheet(f"{kept} at {sizes} pixels", tiles, told), part / SHEET)
    write_json(part / REPORT, with_schema(REPORT, report))
    return report


def _sizes(report: dict[str, Any]) -> tuple[Size, ...]:
    """The sizes of the prepared pictures, each once."""
    return tuple(dict.fromkeys((row["into"][0], row["into"][1]) for row in report["photos"] if row["prepared"] is not None))


def _is_ours(path: Path, report: dict[str, Any] | None = None) -> bool:
    """Whether we wrote a file in a prepared folder: its report names it, or, if that can't be read, its name looks like one of ours."""
    if path.name in (REPORT, SHEET):
        return True
    if report is None:
        return re.fullmatch(r"[0-9]{3,}(\.mask)?\.png", path.name) is not None
    return path.name in {row.get(key) for row in report["photos"] for key in ("prepared", "mask")}


def _free_place(path: Path) -> Path:
    """A path, or the same with the next free number: `003.png`, `003-2.png`."""
    names = (path.with_stem(f"{path.stem}-{number}") if number > 1 else path for number in count(1))
    return next(place for place in names if not os.path.lexists(place))


def _exchange(part: Path, target: Path) -> None:
    """Replace the old folder by the new one, keeping whatever a user has put there."""
    report = read_report(target)
    if target.is_dir():
        for path in target.iterdir():
            if not _is_ours(path, report):
                _keep(path, _free_place(part / path.name))
    replace_folder(part, target)


def _clear_up(target: Path) -> None:
    """Clear up after a process that was killed. 0.1 left `prepared.part`, which is ours if it holds nothing else."""
    clear_leftovers(target.parent)
    clear_leftovers(target)
    part = target.with_name(f"{target.name}.part")
    if part.is_dir() and not part.is_symlink() and all(_is_ours(path) for path in part.iterdir()):
        shutil.rmtree(part)


def _keep(path: Path, to: Path) -> None:
    """Copy what a user has put there; a link stays a link, since it may lead round in a circle."""
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, to, symlinks=True)
    else:
        shutil.copy2(path, to, follow_symlinks=False)


def _kept_report(prepared: Path, key: str) -> dict[str, Any] | None:
    """The report, if it has this key and everything that it names is still as it was written; else None."""
    with disk_errors(prepared):
        _clear_up(prepared)
    report = read_report(prepared)
    if report is None or report["key"] != key or (report["usable"] and not (prepared / SHEET).is_file()):
        return None
    return report if all(_is_whole(path, digest) for path, digest in _files(prepared, report)) else None


def read_report(prepared: Path) -> dict[str, Any] | None:
    """What report.json holds, or None if it is missing or not a report. Raises ProjectError if its schema is newer."""
    try:
        report = json.loads(read_text(prepared / REPORT))
        check_schema(prepared / REPORT, report)
        for name, kind in (("key", str), ("usable", int), ("warnings", list), ("photos", list)):
            if not isinstance(report[name], kind):
                return None
        whole = all({"file", "status", "reasons", "prepared", "sha256"} <= row.keys() for row in report["photos"])
        names = [row["prepared"] for row in report["photos"] if row["prepared"] is not None]
        masks = {row.get("mask") for row in report["photos"]} - {None, *(Path(name).stem + MASK for name in names)}
        return report if whole and not masks and names == [f"{number:03d}.png" for number in range(report["usable"])] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _pictures(prepared: Path, report: dict[str, Any]) -> list[tuple[Path, str]]:
    return [(prepared / row["prepared"], row["sha256"]) for row in report["photos"] if row["prepared"] is not None]


def _files(prepared: Path, report: dict[str, Any]) -> list[tuple[Path, str]]:
    """The pictures and the masks, each with its sha256."""
    masks = [(prepared / row["mask"], row["mask_sha256"]) for row in report["photos"] if row.get("mask")]
    return [*_pictures(prepared, report), *masks]


def _is_whole(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_of(path) == digest


def _findings_of(part: Mapping[str, Any]) -> tuple[Finding, ...]:
    """The findings in a report, or in a row of it."""
    return tuple(Finding(**finding) for finding in part["findings"])


def _looked(path: Path, row: Mapping[str, Any], source: Path | None) -> PhotoLooked:
    # also False if the folder now belongs to another user and can't be looked into
    is_there = source is not None and os.path.exists(source / path.name)
    given = source / path.name if source is not None and is_there else path
    return PhotoLooked(
        path=printable(given),
        status=row["status"],
        reasons=tuple(row["reasons"]),
        findings=_findings_of(row),
        word=row["word"],
        box=within(row["crop"], row["size"]) if row["crop"] else None,
        size=tuple(row["size"]) if row["size"] else None,
    )
