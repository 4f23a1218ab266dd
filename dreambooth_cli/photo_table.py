"""What project.toml says about single photos: `[photos."IMG_3.jpg"]`, with a box and a caption."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .errors import ProjectError
from .text import is_text, shortened

SECTION = "photos"
BOX = "box = [left, top, right, bottom] in whole pixels of the photo as it is upright"


@dataclass(frozen=True, kw_only=True)
class OwnWords:
    """For one photo: the part to keep (left, top, right, bottom; in pixels of the upright photo, right and bottom excluded), and its
    caption."""

    box: tuple[int, int, int, int] | None = None
    caption: str | None = None


def read_photo_table(path: Path, table: Any) -> dict[str, OwnWords]:
    """The `[photos]` section of the project.toml at `path`, by file name. Raises ProjectError, which names the photo and the key."""
    if not isinstance(table, dict):
        raise ProjectError(f"{path}: {SECTION} must be a section", f'write a table for each photo: [{SECTION}."IMG_3.jpg"]')
    return {name: _words_of(f'{path}: [{SECTION}."{name}"]', words) for name, words in table.items()}


def check_photo_names(path: Path, table: Mapping[str, OwnWords], names: Collection[str]) -> None:
    """Raises ProjectError if project.toml names a photo that the project does not have."""
    for name in table:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "remove that table, or put the photo into the project's photos"
            raise ProjectError(f'{path}: [{SECTION}."{name}"]: there is no photo called {shortened(repr(name))}', hint)


def check_box(path: Path, name: str, box: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    """Raises ProjectError if a photo's box reaches beyond the photo; `size`: of the upright photo, in pixels."""
    if box[2] > size[0] or box[3] > size[1]:
        raise ProjectError(
            f'{path}: [{SECTION}."{name}"]: the box {list(box)} reaches beyond the photo, which has {size[0]} x {size[1]} pixels',
            BOX,
        )


def _words_of(where: str, words: Any) -> OwnWords:
    if not isinstance(words, dict):
        raise ProjectError(f"{where} must be a table", f'write [{SECTION}."IMG_3.jpg"], and below it {BOX}')
    known = [item.name for item in fields(OwnWords)]
    for key in words:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"what can be said of a photo: {', '.join(known)}"
            raise ProjectError(f"{where}: there is no setting {key!r}", hint)
    caption = words.get("caption")
    if caption is not None and not (isinstance(caption, str) and is_text(caption)):
        raise ProjectError(f"{where}: caption can't be {shortened(repr(caption))}", 'it takes words: caption = "in the snow"')
    return OwnWords(box=_box_of(where, words["box"]) if "box" in words else None, caption=caption)


def _box_of(where: str, box: Any) -> tuple[int, int, int, int]:
    if not isinstance(box, list) or len(box) != 4 or not all(type(edge) is int for edge in box):
        raise ProjectError(f"{where}: box can't be {shortened(repr(box))}", BOX)
    left, top, right, bottom = box
    if left >= right or top >= bottom:
        raise ProjectError(f"{where}: the box {box} is empty", f"{BOX}: right beyond left, bottom beyond top")
    if left < 0 or top < 0:
        raise ProjectError(f"{where}: the box {box} reaches beyond the photo", f"{BOX}, counted from 0")
    return left, top, right, bottom
