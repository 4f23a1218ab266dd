"""Measure, crop and write the photos of a folder, several at a time; each gives a row of the report. What has not changed is reused: a
photo that was measured before is not decoded, and one that is cropped as before is not written again."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..disk import copy_file, sha256_of
from ..errors import PhotoError
from ..photo_table import check_box
from ..photos.beside import MASK
from ..photos.crop import Box, Size
from ..photos.files import Look, printable
from ..photos.findings import MOST_LOST, TWICE, cut_by_crop, same_file
from ..photos.looked import VERSION, Looked, keep, look_at, recall
from ..photos.measures import SIDE
from ..photos.opened import Cut, Opened, Part, open_photo, part_of
from ..photos.pixels import FORMER_LEVEL, Photo, pixels_digest, read_photo, save_png, takes_much
from ..settings import PrepSettings

RECIPE = 1  # count up if the same photo would become other pixels
JUDGES = 5  # count up if the same photos would be judged differently
WORKERS = min(4, 1 + (os.cpu_count() or 1))  # photos worked on at a time; one more than cores, because of waiting for the disk
AHEAD = 2 * WORKERS  # photos that are started before the first is waited for
LEVEL = 1  # PNG compression: four times as fast as Pillow's default, for an eighth more bytes
WHOLE = 10**6  # pixels: longer than any side of a photo, so it is decoded at full size

Row = dict[str, Any]
Seen = tuple[Row, Looked | None]


@dataclass(frozen=True)
class Preparing:
    """What shapes the prepared pictures: the files of a folder, as they were found, the side in pixels, how they are cropped; with
    --crop none, `buckets` are the sizes to choose from."""

    folder: Path
    looks: list[Look]
    resolution: int
    settings: PrepSettings
    buckets: tuple[Size, ...] = ()
    boxes: Mapping[str, Box] = field(default_factory=dict)  # by file name, from `config`
    config: Path = Path()
    judged: bool = True  # False for class images, whose single pictures don't matter

    @property
    def cut(self) -> Cut:
        """How they are cropped."""
        return Cut(self.settings.crop, self.resolution, self.buckets)

    @property
    def key(self) -> str:
        """A digest of all of it: the same key means the same pictures."""
        files = [[printable(look.path.name), look.status, look.reason, look.sha256, *_beside(look)] for look in self.looks]
        judges = [JUDGES] if self.judged else []
        return _digest([RECIPE, *judges, self.resolution, self.settings.crop, self.buckets, self.boxes, files])

    def box_of(self, look: Look) -> Box | None:
        """The box that project.toml gives a photo, if any."""
        return self.boxes.get(printable(look.path.name))

    def look_key(self, look: Look) -> str:
        """A digest of everything that measuring a photo depends on."""
        return _digest([VERSION, look.sha256, _beside(look)[1], self.resolution, self.box_of(look)])

    def picture_key(self, look: Look) -> str:
        """A digest of everything that a prepared picture depends on."""
        return _digest([RECIPE, self.look_key(look), self.settings.crop, self.buckets])


def photo_rows(preparing: Preparing, folder: Path, kept: Mapping[str, tuple[Path, Row]]) -> Generator[Seen, None, None]:
    """The rows of all files in order, with the pictures of those that are used written into `folder` as `000.png`, ... `kept`: rows of an
    earlier report by key, each with the folder of its picture. Raises PhotoError if a mask can't be used, OSError."""
    count = 0
    work = partial(_row_of, preparing, folder, kept)
    with closing(_in_turn(preparing, work)) as seen:
        for row, looked in seen:
            if row["prepared"]:
                name = f"{count:03d}.png"
                (folder / row["prepared"]).rename(folder / name)
                if row["mask"]:
                    (folder / row["mask"]).rename(folder / f"{count:03d}{MASK}")
                    row["mask"] = f"{count:03d}{MASK}"
                row["prepared"] = name
                count += 1
            yield row, looked


def kept_rows(folder: Path, rows: Iterable[Row]) -> dict[str, tuple[Path, Row]]:
    """The rows of an earlier report whose pictures can be reused, by key."""
    return {row["key"]: (folder, row) for row in rows if row.get("key") and row["prepared"]}


def _in_turn(preparing: Preparing, work: Callable[[Look, int], Seen]) -> Generator[Seen, None, None]:
    """The result of `work` for each file, in order, several at a time; a photo that needs much memory is worked on alone. If left early,
    files that were not started are skipped."""
    waiting: deque[Future[Seen]] = deque()
    with _pool() as pool:
        for place, look in enumerate(preparing.looks):
            is_alone = _is_alone(preparing, look)
            while waiting and (is_alone or len(waiting) >= AHEAD):
                yield waiting.popleft().result()
            waiting.append(pool.submit(work, look, place))
            if is_alone:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(WORKERS)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _is_alone(preparing: Preparing, look: Look) -> bool:
    is_cut = preparing.box_of(look) is not None  # a small box may need the photo at full size
    return look.status == "ok" and takes_much(look.path, WHOLE if is_cut else max(preparing.resolution, SIDE))


def _row_of(preparing: Preparing, folder: Path, kept: Mapping[str, tuple[Path, Row]], look: Look, place: int) -> Seen:
    """One file's row of the report, and its measurements if it is a photo; if it is used, its picture is written under a temporary name."""
    row = _bare_row(look)
    if look.status != "ok":
        return row, None
    own, opened = preparing.box_of(look), None
    looked = recall(preparing.look_key(look)) if preparing.judged else None
    try:
        if looked is None:
            opened = _open(preparing, look)
            looked = look_at(_large_enough(opened.photo, look), opened.mask)
            if preparing.judged:
                keep(preparing.look_key(look), looked)
        if own is not None:
            check_box(preparing.config, row["file"], own, looked.size)
        part = part_of(looked, preparing.cut, own)
        row |= {"status": part.status, "reasons": [part.reason] if part.reason else [], "size": list(looked.size)}
        if part.status == "refused":
            return row, looked
        row |= {"crop": list(part.box), "into": list(part.into), "key": preparing.picture_key(look)}
        if preparing.judged and part.lost > MOST_LOST:
            row["findings"] = [asdict(cut_by_crop(row["file"], part.lost))]
        files = _taken(kept.get(row["key"]), folder, place)
        row |= files or _written(opened or _open(preparing, look), part, folder, place, LEVEL if preparing.judged else FORMER_LEVEL)
    except PhotoError as error:
        if error.hint:  # the error is about the mask
            raise
        return _bare_row(look) | {"status": "refused", "reasons": [error.message]}, None
    return row, looked


def _bare_row(look: Look) -> Row:
    """A row of the report before the file is opened."""
    return {
        "file": printable(look.path.name),
        "status": look.status,
        "reasons": [look.reason] if look.reason else [],
        "findings": [asdict(same_file(look.twin))] if look.twin else [],
        "word": TWICE if look.twin else "",
        "size": None,
        "crop": None,
        "prepared": None,
        "sha256": None,
        "pixels_sha256": None,
        "caption": look.beside.caption,
        "mask": None,
        "mask_sha256": None,
        "into": None,
        "key": None,
    }


def _open(preparing: Preparing, look: Look) -> Opened:
    mask = look.beside.mask if preparing.judged else None
    return open_photo(look.path, mask, preparing.cut, preparing.box_of(look))


def _large_enough(photo: Photo, look: Look) -> Photo:
    """The photo as it is looked at: what is found must not depend on the training size, and a JPEG was decoded to no more than that."""
    return photo if min(photo.image.size) >= min(SIDE, *photo.size) else read_photo(look.path, SIDE)


def _taken(kept: tuple[Path, Row] | None, folder: Path, place: int) -> Row | None:
    """Copy the picture and the mask of a kept row, if they are still as they were written; else None."""
    if kept is None:
        return None
    was, row = kept
    found = {key: row[key] for key in ("sha256", "pixels_sha256", "mask_sha256")}
    for key, ending, digest in (("prepared", ".png", "sha256"), ("mask", MASK, "mask_sha256")):
        found[key] = _name(place, ending) if row[key] else None
        if row[key]:
            try:
                copy_file(was / row[key], folder / found[key])
            except FileNotFoundError:
                return None
            if sha256_of(folder / found[key]) != row[digest]:
                return None
    return found


def _written(opened: Opened, part: Part, folder: Path, place: int, level: int) -> Row:
    """Write the picture and its mask. Returns their part of the row."""
    picture, mask = opened.pictures(part)
    row = {"prepared": _name(place, ".png"), "pixels_sha256": pixels_digest(picture)}
    row["sha256"] = save_png(picture, folder / row["prepared"], level)
    if mask is not None:
        row["mask"] = _name(place, MASK)
        row["mask_sha256"] = save_png(mask, folder / row["mask"])
    return row


def _name(place: int, ending: str) -> str:
    """A picture's temporary name, until all those before it are there."""
    return f"file-{place}{ending}"


def _beside(look: Look) -> list[str]:
    """A photo's caption and its mask's sha256."""
    return [look.beside.caption, "" if look.beside.mask is None else sha256_of(look.beside.mask)]


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
