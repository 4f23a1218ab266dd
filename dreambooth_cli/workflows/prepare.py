"""`prep`: photos -> pictures to train on, with a report and a contact sheet. Done again only where something changed."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
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
from ..photo_table import check_box, check_photo_names
from ..photos.beside import MASK
from ..photos.buckets import STEP, bucket_sizes
from ..photos.crop import Box, Size, scaled_box, within
from ..photos.files import Look, check_beside, find_photos, printable, save_png
from ..photos.findings import MOST_LOST, TWICE, cut_by_crop, judge_photos, judge_set, same_file, verdict_on, word_for
from ..photos.inspect import judge_count
from ..photos.measures import Measures, measure
from ..photos.opened import Cut, Opened, open_photo
from ..photos.sheet import Tile, contact_sheet, save_sheet
from ..project import Project
from ..schemas import check_schema, with_schema
from ..settings import AUTO, PrepSettings
from ..text import shortened
from .prepared import PreparedPhoto

RECIPE = 1  # counts up when the same photo would become other pixels
AHEAD = 3  # photos that are decoded before they are written, at most
JUDGES = 1  # counts up when the same photos would be judged otherwise
REPORT, SHEET, LEFT_OUT = "report.json", "contact-sheet.jpg", ".left-out"


@dataclass(frozen=True)
class Preparing:
    """What shapes the prepared pictures: the files of a folder, as they were found, the side in pixels, which part of each is kept; the
    sizes that there are where each keeps its shape."""

    folder: Path
    looks: list[Look]
    resolution: int
    settings: PrepSettings
    buckets: tuple[Size, ...] = ()
    boxes: Mapping[str, Box] = field(default_factory=dict)  # of photos that have one of their own, in `config`
    config: Path = Path()
    judged: bool = True  # whether each photo matters, as a subject's few do

    @property
    def cut(self) -> Cut:
        """How they are cut."""
        return Cut(self.settings.crop, self.resolution, self.buckets)

    @property
    def key(self) -> str:
        """A digest of all of it: the same key, the same pictures."""
        files = [[printable(look.path.name), look.status, look.reason, look.sha256, *_beside(look)] for look in self.looks]
        parts = [RECIPE, JUDGES, self.resolution, self.settings.crop, self.buckets, self.boxes, files]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def prepare(
    project: Project, settings: PrepSettings, *, resolution: int, step: int = STEP, source: Path | None = None
) -> Events:
    """Turn, crop and resize a project's photos to squares of `resolution` pixels, or to as many pixels in their own shapes, whose sides
    are multiples of `step`; nothing is written where nothing changed.

    `source` is the folder that the photos came from: events name a photo there, as the user gave it.
    The caller holds the project's lock. Raises PhotoError where no photo can be used, ProjectError, DiskError.
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

    Raises ProjectError where the report or a picture is missing or was changed.
    """
    hint = f"prepare them again: dreambooth prep {project.name}"
    report = _read_report(project.prepared)
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
    """The user's own class images as squares of `resolution` pixels, in the cache; returns their paths, none where none can
    be used. Only what is not used gets an event. Raises UsageError where there is no such folder, DiskError."""
    try:
        looks = list(find_photos(expanded(folder)))
    except PhotoError as error:
        raise UsageError(f"--class-data-dir: {error.message}", "name a folder with pictures of the class") from error
    if settings.crop in (AUTO, "none"):  # they are drawn beside squares, and no one of them is the subject
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
        yield Warned(message=f"{printable(folder)} holds no class image that can be used; all of them are made")
    return [path for path, _ in _pictures(target, report)]


def is_kept_central(project: Project) -> bool:
    """Whether the photos were cropped in the middle, as 0.2 did, a run has begun with them, and nobody has asked for another crop since:
    so that the same command finds its run."""
    report = _read_report(project.prepared)
    if report is None or report.get("crop") != "center" or not any(run.has_begun for run in project.runs()):
        return False
    return not project.config.is_file() or "crop" not in project.settings()["prep"]


def with_own_words(project: Project, looks: list[Look]) -> tuple[list[Look], dict[str, Box]]:
    """The photos with the captions that project.toml gives them in the place of those beside them, and the boxes that it gives them, by
    their names. Raises PhotoError, ProjectError."""
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
                raise PhotoError(f'{project.config}: [photos."{name}"]: {error}', "mend that line") from error
        found.append(look)
    return found, boxes


def caption_warnings(project: Project, looks: list[Look]) -> list[str]:
    """What speaks against the photos' captions, a line each."""
    subject = project.settings()["subject"] if project.config.is_file() else {}
    about = subject.get("class_prompt") or "", subject.get("identifier") or AUTO
    told = []
    for look in looks:
        if look.status == "ok" and (caption := look.beside.caption):
            remarks = caption_remarks(caption, *about)
            told += [f'the caption of {printable(look.path.name)}, "{shortened(caption, 60)}": {remark}' for remark in remarks]
    return told


def _beside(look: Look) -> list[str]:
    """What lies beside a photo, by content."""
    return [look.beside.caption, "" if look.beside.mask is None else sha256_of(look.beside.mask)]


def left_out(project: Project) -> set[str]:
    """The names of the project's photos that are kept but not used."""
    path = project.photos / LEFT_OUT
    if not path.is_file():
        return set()
    return {os.fsdecode(name) for name in path.read_bytes().split(b"\0") if name}


def no_usable_photo(folder: Path, looks: list[tuple[str, str]], hint: str) -> PhotoError:
    """The error for a folder without a photo that can be used; `looks` are names and the reasons why not."""
    if not looks:
        return PhotoError(f"{printable(folder)} holds no photos", hint)
    told = "; ".join(f"{name}: {reason}" for name, reason in looks[:3])
    more = f"; and {len(looks) - 3} more" if len(looks) > 3 else ""
    return PhotoError(f"no photo in {printable(folder)} can be used ({told}{more})", hint)


def _make(preparing: Preparing, target: Path, source: Path | None) -> Generator[Event, None, dict[str, Any]]:
    """Prepare every photo in a folder beside `target`, then rename it; returns the report. Left early, nothing is changed."""
    name = "photos" if preparing.judged else "your class images"
    yield PhaseStarted(name=name, total=len(preparing.looks), unit="photos")
    with disk_errors(target):
        make_folder(target.parent)
    with disk_errors(target), temporary(target.parent) as part:
        part.mkdir()
        rows: list[dict[str, Any]] = []
        shown: list[Any] = []
        made: list[Future[Measures | None]] = []
        # one photo is decoded here while the one before is written beside: large pictures one at a time, as memory asks
        with ThreadPoolExecutor(1) as beside:
            for number, look in enumerate(preparing.looks, start=1):
                row, opened = _open_photo(look, preparing, len(made))
                rows.append(row)
                shown.append(None if opened is None else opened.shown)
                if opened is not None and row["prepared"]:
                    made.append(beside.submit(_write_photo, row, opened, part, preparing))
                if len(made) > AHEAD:
                    made[-AHEAD].result()
                yield PhotoRead(number=number, total=len(preparing.looks))
            measured = [measures for future in made if (measures := future.result()) is not None]
        of_set = _judge(rows, measured)
        for look, row in zip(preparing.looks, rows, strict=True):
            if row["prepared"] is None or preparing.judged:
                yield _looked(look.path, row, source)
        if not made and preparing.judged:
            told = [(row["file"], row["reasons"][0]) for row in rows]
            raise no_usable_photo(source or preparing.folder, told, _hint(rows))
        report = _write_report(preparing, part, rows, shown, of_set)
        if preparing.settings.strict:
            _check_strictly(report)
        _exchange(part, target)
        return report


def _hint(rows: list[dict[str, Any]]) -> str:
    """What to do where no photo can be used: a smaller resolution, where that would help."""
    side = max((min(row["size"]) // 8 * 8 for row in rows if row["size"] is not None), default=0)
    if side >= 32:
        return f"take larger photos, or train on smaller pictures: --resolution {side}"
    return "give 3 to 5 photos of the subject (jpg, png, webp, heic, ...): --photos DIR"


def _judge(rows: list[dict[str, Any]], measured: list[Measures]) -> list[Finding]:
    """Write what is found into the rows of the photos that were measured; returns what is to be said of the set."""
    used = [row for row in rows if row["prepared"] is not None]
    if not measured:
        return []
    for row, judged in zip(used, judge_photos(measured, [row["file"] for row in used]), strict=True):
        known = _findings_of(row)
        findings = [*known, *(finding for finding in judged if finding.kind not in [each.kind for each in known])]
        row |= {"findings": [asdict(finding) for finding in findings], "word": word_for(findings)}
    return judge_set(measured)


def _check_strictly(report: dict[str, Any]) -> None:
    """Raises PhotoError where there is something to say of a photo or of the set."""
    told = [f"{row['file']}: {row['word']}" for row in report["photos"] if row.get("findings")]
    told += [finding["words"] for finding in report["findings"]]
    if told:
        more = f"; and {len(told) - 5} more" if len(told) > 5 else ""
        raise PhotoError(
            f"refused, as --strict asks: {'; '.join(told[:5])}{more}", "replace these photos, or go on with them: --no-strict"
        )


def _open_photo(look: Look, preparing: Preparing, number: int) -> tuple[dict[str, Any], Opened | None]:
    """One file's row of the report and, where it is used, its picture under that number."""
    row: dict[str, Any] = {
        "file": printable(look.path.name),
        "status": look.status,
        "reasons": [look.reason] if look.reason else [],
        "findings": [asdict(same_file(look.twin))] if look.twin else [],
        "word": TWICE if look.twin else "",
        "size": None,
        "crop": None,
        "prepared": None,
        "sha256": None,
        "caption": look.beside.caption,
        "mask": None,
        "mask_sha256": None,
        "into": None,
    }
    if look.status != "ok":
        return row, None
    own, mask = preparing.boxes.get(row["file"]), look.beside.mask if preparing.judged else None
    try:
        opened = open_photo(look.path, mask, preparing.cut, own)
    except PhotoError as error:
        if error.hint:  # it is the mask's
            raise
        return row | {"status": "refused", "reasons": [error.message]}, None
    size = opened.small.size
    if own is not None:
        check_box(preparing.config, row["file"], own, size)
    row |= {"status": opened.status, "reasons": [opened.reason] if opened.reason else [], "size": list(size)}
    if opened.status == "refused":
        return row, opened
    if preparing.judged and opened.lost > MOST_LOST:
        row["findings"] = [asdict(cut_by_crop(row["file"], opened.lost))]
    return row | {"crop": list(opened.box), "into": list(opened.into), "prepared": f"{number:03d}.png"}, opened


def _write_photo(row: dict[str, Any], opened: Opened, part: Path, preparing: Preparing) -> Measures | None:
    """Write a picture and its mask, and note their sha256; what is measured of the photo."""
    row["sha256"] = save_png(opened.picture, part / row["prepared"])
    if opened.mask is not None:
        row["mask"] = Path(row["prepared"]).stem + MASK
        row["mask_sha256"] = save_png(opened.mask, part / row["mask"])
    return measure(opened.small.image, opened.small.size, opened.subject) if preparing.judged else None


def _tile_of(row: Mapping[str, Any], picture: Any) -> Tile:
    """A photo on the contact sheet: the whole of it, what is kept, and what is to be said of it."""
    size, status = row["size"], row["status"]
    detail = [Path(row["prepared"]).stem] if row["prepared"] else []
    detail += [f"{size[0]} x {size[1]}"] if size else []
    detail += ["enlarged"] if status == "warned" else []
    said = row["reasons"] if status == "refused" else [finding["words"] for finding in row["findings"]]
    box = scaled_box(row["crop"], size, picture.size) if picture is not None and row["crop"] else None
    caption = f'"{row["caption"]}"' if row["caption"] else ""
    return Tile(picture, row["file"], "   ".join(detail), tuple(said), caption, box, status)


def _write_report(
    preparing: Preparing, part: Path, rows: list[dict[str, Any]], shown: list[Any], of_set: list[Finding]
) -> dict[str, Any]:
    usable = sum(row["prepared"] is not None for row in rows)
    remark = judge_count(usable) if preparing.judged else None
    report = {
        "key": preparing.key,
        "resolution": preparing.resolution,
        "crop": preparing.settings.crop,
        "usable": usable,
        "warnings": [remark] if remark else [],
        "findings": [asdict(finding) for finding in of_set],
        "verdict": verdict_on([row["findings"] for row in rows if row["prepared"] or row["findings"]], of_set),
        "photos": rows,
    }
    if usable:
        sizes = " and ".join(f"{width} x {height}" for width, height in _sizes(report))
        looked = [(row, picture) for row, picture in zip(rows, shown, strict=True) if row["status"] != "skipped"]
        photos = "1 photo" if len(looked) == 1 else f"{len(looked)} photos"
        kept = photos if usable == len(looked) else f"{usable} of {photos}"
        save_sheet(contact_sheet(f"{kept} at {sizes} pixels", [_tile_of(*one) for one in looked]), part / SHEET)
    write_json(part / REPORT, with_schema(REPORT, report))
    return report


def _sizes(report: dict[str, Any]) -> tuple[Size, ...]:
    """The sizes that the prepared pictures have, each once."""
    return tuple(dict.fromkeys((row["into"][0], row["into"][1]) for row in report["photos"] if row["prepared"] is not None))


def _is_ours(path: Path, report: dict[str, Any] | None = None) -> bool:
    """Whether we wrote a file of a prepared folder: its report names it, or, where that can't be read, it is called as we would."""
    if path.name in (REPORT, SHEET):
        return True
    if report is None:
        return re.fullmatch(r"[0-9]{3,}(\.mask)?\.png", path.name) is not None
    return path.name in {row.get(key) for row in report["photos"] for key in ("prepared", "mask")}


def _free_place(path: Path) -> Path:
    """A path, or with the next free number: `003.png`, `003-2.png`."""
    names = (path.with_stem(f"{path.stem}-{number}") if number > 1 else path for number in count(1))
    return next(place for place in names if not os.path.lexists(place))


def _exchange(part: Path, target: Path) -> None:
    """Put the new folder in the place of the old one, and keep what a user has put there."""
    report = _read_report(target)
    if target.is_dir():
        for path in target.iterdir():
            if not _is_ours(path, report):
                _keep(path, _free_place(part / path.name))
    replace_folder(part, target)


def _clear_up(target: Path) -> None:
    """Clear up after a process that was killed. 0.1 left `prepared.part`: ours where nothing else is in it."""
    clear_leftovers(target.parent)
    clear_leftovers(target)
    part = target.with_name(f"{target.name}.part")
    if part.is_dir() and not part.is_symlink() and all(_is_ours(path) for path in part.iterdir()):
        shutil.rmtree(part)


def _keep(path: Path, to: Path) -> None:
    """Copy what a user has put there; a link stays a link: it may lead round in a circle."""
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, to, symlinks=True)
    else:
        shutil.copy2(path, to, follow_symlinks=False)


def _kept_report(prepared: Path, key: str) -> dict[str, Any] | None:
    """The report, where it is of this key and all that it names is there as it was written."""
    with disk_errors(prepared):
        _clear_up(prepared)
    report = _read_report(prepared)
    if report is None or report["key"] != key or (report["usable"] and not (prepared / SHEET).is_file()):
        return None
    return report if all(_is_whole(path, digest) for path, digest in _files(prepared, report)) else None


def _read_report(prepared: Path) -> dict[str, Any] | None:
    """What report.json holds, or None where it is missing or is no report. Raises ProjectError where it is of a newer schema."""
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
    """The findings that a report, or a row of it, holds."""
    return tuple(Finding(**finding) for finding in part["findings"])


def _looked(path: Path, row: Mapping[str, Any], source: Path | None) -> PhotoLooked:
    # or it can't be asked any more, in a folder that is another user's now
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
