"""The files of a photo folder: which of them are pictures, and what is said of those that are not used.

What a file is, is decided by its content, not by its name. Originals are only read.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from ..errors import PhotoError
from .beside import CAPTION, LONE, MASK, NOTHING, Beside, ending_of, match
from .crop import Size
from .headers import MOST_BYTES, MOST_BYTES_HELD, MOST_HEAD
from .kinds import ARCHIVE, FILM, RAW, RAW_SUFFIXES, kind_by_name, kind_not_read
from .pixels import TIFF, read_photo

SUFFIXES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib",
    ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif", ".hif",
}  # fmt: skip
MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8[79]a|RIFF....WEBP|II[*+]\x00|MM\x00[*+]|....ftyp(avi[fs]|he[iv][cxms]|m[is]f1)",
    re.DOTALL,
)
HELD_MAGIC = re.compile(rb"GIF8|RIFF|....ftyp", re.DOTALL)
BITMAP_HEADERS = [size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)]
HIDDEN = "hidden"


@dataclass(frozen=True, kw_only=True)
class Look:
    """One file of a photo folder: a picture (`ok`), passed over (`skipped`) or a picture that can't be used (`refused`).

    `reason` says why it is not used; `sha256` is of the file, where it is a picture; `size` its upright size, where known; `twin` the
    name of a file before it with the same content. `beside` has its caption and its mask; `stops`: this is such a file, and nothing goes
    on before it is seen to.
    """

    path: Path
    status: Literal["ok", "skipped", "refused"]
    reason: str = ""
    sha256: str = ""
    size: Size | None = None
    twin: str = ""
    beside: Beside = NOTHING
    stops: bool = False


def look_over(folder: Path, left_out: Collection[str] = ()) -> Iterator[Look]:
    """Every file of a folder in natural order, each decoded once, small; nothing is written.

    Raises PhotoError where the folder is missing or is no folder.
    """
    for look in find_photos(folder, left_out):
        yield decoded_look(look) if look.status == "ok" else look


def decoded_look(look: Look) -> Look:
    """The same look once the picture was decoded: its size, or why it is refused."""
    try:
        return replace(look, size=read_photo(look.path, 64).size)
    except PhotoError as error:
        return replace(look, status="refused", reason=error.message)


def count_photos(folder: Path) -> int:
    """How many files of a folder are pictures that can be read. Raises PhotoError as `look_over`."""
    return sum(look.status == "ok" for look in look_over(folder))


def count_likely(folder: Path) -> int:
    """How many files of a folder are photos by their first bytes or their names, without a look at the pictures; 0 for no folder."""
    try:
        return sum(is_likely_photo(path) for path in folder.iterdir())
    except OSError:
        return 0


def is_likely_photo(path: Path) -> bool:
    """Whether a file is a photo by its first bytes or its name; a mask is none."""
    if path.name.startswith(".") or ending_of(path) == MASK:
        return False
    try:
        with path.open("rb") as file:
            head = file.read(MOST_HEAD)
    except OSError:  # a folder, too
        return False
    return not kind_not_read(head) and bool(MAGIC.match(head) or _is_bitmap(head) or path.suffix.lower() in SUFFIXES)


def find_photos(folder: Path, left_out: Collection[str] = ()) -> Iterator[Look]:
    """Every file of a folder in natural order, told by its first bytes and its name; pictures are not decoded yet.

    Of files with the same content the first counts. `left_out` names files that are to be passed over. What lies beside a photo, its
    caption and its mask, comes with it, and by itself only where it can't be used.
    Raises PhotoError where the folder is missing or is no folder.
    """
    looks = [_first_look(path) for path in list_folder(folder)]
    files = {look.path: None for look in looks if _may_be_beside(look) and look.path.name not in left_out}
    photos = [look.path for look in looks if look.path not in files and (look.sha256 or look.status == "refused")]
    beside, refused = match(photos, list(files))
    used = {file for one in beside.values() for file in one.files}
    seen: dict[str, Path] = {}
    for look in looks:
        path = look.path
        if path in refused:
            # a text may be there for another reason, where no photo has a caption
            stops = bool(beside) or ending_of(path) == MASK or LONE not in refused[path]
            look = Look(path=path, status="refused", reason=refused[path], stops=stops)
        elif path.name in left_out and (look.sha256 or ending_of(path)):
            look = replace(look, status="skipped", reason="left out: it is gone from the photo folder")
        elif look.sha256 in seen:
            twin = printable(seen[look.sha256].name)
            unused = ", and the caption or mask beside it is not used" if path in beside else ""
            look = replace(look, status="skipped", reason=f"the same picture as {twin}{unused}", twin=twin)
        elif look.sha256 and path not in used:
            seen[look.sha256] = path
            look = replace(look, beside=beside.get(path, NOTHING))
        if path not in used:
            yield look


def check_beside(looks: Iterable[Look]) -> None:
    """Raises PhotoError where a caption or a mask can't be used: it was put there for the photo."""
    told = [f"{printable(look.path)}: {look.reason}" for look in looks if look.stops]
    if told:
        more = f"; and {len(told) - 3} more" if len(told) > 3 else ""
        raise PhotoError(f"{'; '.join(told[:3])}{more}", "mend what is named, or take it out of the folder")


def _may_be_beside(look: Look) -> bool:
    """Whether a file is called as a caption or a mask is; what is a text, its content says."""
    ending = ending_of(look.path)
    return look.reason != HIDDEN and (ending == MASK or (ending == CAPTION and not look.sha256))


def list_folder(folder: Path) -> list[Path]:
    """What lies in a folder, in natural order: 2 before 10. Raises PhotoError where it is missing or is no folder."""
    try:
        return sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    except FileNotFoundError as error:
        raise PhotoError(f"there is no folder {printable(folder)}", _where_instead(folder)) from error
    except NotADirectoryError as error:
        raise PhotoError(f"{printable(folder)} is a file, not a folder", _folder_instead(folder)) from error
    except OSError as error:
        raise PhotoError(f"{printable(folder)} can't be read: {error.strerror}", "check who may read it") from error


def _where_instead(folder: Path) -> str:
    """What to do where a folder is not there: it is a pattern, or an address."""
    words = printable(folder)
    if re.search(r"(^|/)https?:/", words):
        return "photos are read from this machine: download them into a folder, and give that to --photos"
    if (address := re.search(r"(?:^|/)file:/+(?:localhost/+)?(.+)", words)) is not None:
        return f"give the path itself: --photos '/{unquote(address[1])}'"
    plain = next((above for above in folder.parents if not re.search(r"[*?\[\]{}]", above.name)), folder)
    if re.search(r"[*?{]|\[.*\]", words):
        return f"a pattern is not understood: give the folder itself: --photos {printable(plain)}"
    return "check the path of --photos"


def _folder_instead(file: Path) -> str:
    """What to do where a file was given in the place of a folder."""
    try:
        with file.open("rb") as opened:
            head = opened.read(MOST_HEAD)
    except OSError:
        head = b""
    kind = kind_not_read(head) or kind_by_name(file.suffix.lower())
    if kind == ARCHIVE:
        return "unpack it, and give the folder with the photos to --photos"
    if kind == FILM:
        return "save 3 to 5 pictures of that video in a folder, and give the folder to --photos"
    if MAGIC.match(head) or _is_bitmap(head):
        return f"give the folder that the photos lie in: --photos {printable(file.parent)}"
    return "put the photos into a folder and give that to --photos"


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Sorts numbers in names by their value, and letters without their case."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", name.casefold())
    return [(not number, int(number or 0), text) for number, text in parts], name


def printable(path: Path | str) -> str:
    """A path or name that can be printed and written as UTF-8, whatever bytes it is made of."""
    return os.fsencode(path).decode("utf-8", "replace")


def _first_look(path: Path) -> Look:
    """What a file is by its name and its first bytes."""
    if path.name.startswith(".") and path.suffix == ".icloud":
        return Look(path=path, status="skipped", reason="still in iCloud: have it downloaded to this machine first")
    if path.name.startswith("."):
        return Look(path=path, status="skipped", reason=HIDDEN)
    try:
        if path.is_dir():
            return Look(path=path, status="skipped", reason="a folder: only the photos beside it are read")
        if not path.is_file():
            return Look(path=path, status="skipped", reason="not a file")
        return _by_content(path)
    except OSError as error:
        return Look(path=path, status="refused", reason=f"can't be read: {error.strerror}")


def _by_content(path: Path) -> Look:
    with path.open("rb") as file:
        head, suffix = file.read(MOST_HEAD), path.suffix.lower()
        is_raw = suffix in RAW_SUFFIXES and TIFF.match(head)
        other = RAW if is_raw else kind_not_read(head)
        is_read = MAGIC.match(head) or _is_bitmap(head) or suffix in SUFFIXES
        named = kind_by_name(suffix)
        if not head and (is_read or named):
            return Look(path=path, status="refused", reason="an empty file")
        if other or not is_read:
            return Look(path=path, status="skipped", reason=other or named or "not a picture")
        most = MOST_BYTES_HELD if HELD_MAGIC.match(head) else MOST_BYTES
        if (size := os.fstat(file.fileno()).st_size) > most:
            reason = f"too large: a file of {size / 1e6:,.0f} MB, at most {most // 10**6} MB are read"
            return Look(path=path, status="refused", reason=reason)
        file.seek(0)
        return Look(path=path, status="ok", sha256=hashlib.file_digest(file, "sha256").hexdigest())


def _is_bitmap(head: bytes) -> bool:
    # "BM" alone begins many a text; a bitmap's header goes on with four reserved zeros and a known header size
    return head[:2] == b"BM" and head[6:10] == bytes(4) and head[14:18] in BITMAP_HEADERS
