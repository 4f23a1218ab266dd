"""What may lie beside a photo `x.jpg`: `x.txt`, its caption, and `x.mask.png`, its mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..captions import MOST, plain_caption
from ..errors import PhotoError

CAPTION, MASK = ".txt", ".mask.png"
LONE = "without its photo"
NO_CAPTIONS = ("readme", "read me", "license", "licence", "notes", "credits", "copying", "copyright")  # what texts in any folder are called


@dataclass(frozen=True)
class Beside:
    """What lies beside a photo: its caption, "" for none, the file that says it, and its mask."""

    caption: str = ""
    caption_file: Path | None = None
    mask: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files themselves."""
        return tuple(filter(None, (self.caption_file, self.mask)))


NOTHING = Beside()


def ending_of(path: Path) -> str:
    """CAPTION or MASK, by what the file is called; "" for any other."""
    return next((ending for ending in (MASK, CAPTION) if path.name.casefold().endswith(ending)), "")


def match(photos: Sequence[Path], files: Sequence[Path]) -> tuple[Mapping[Path, Beside], Mapping[Path, str]]:
    """What of these files lies beside which photo; and those that can't be used, each with the reason."""
    of_stem: dict[str, list[Path]] = {}
    for photo in photos:
        of_stem.setdefault(photo.stem.casefold(), []).append(photo)
    beside: dict[Path, Beside] = {}
    refused: dict[Path, str] = {}
    for path in files:
        ending = ending_of(path)
        what, stem = "caption" if ending == CAPTION else "mask", path.name[: -len(ending)]
        found = of_stem.get(stem.casefold(), [])
        has = beside.get(found[0], NOTHING) if found else NOTHING
        try:
            if len(found) == 1 and (has.mask if ending == MASK else has.caption_file):
                refused[path] = f"{found[0].name} has a {what} already: take one of the two out"
            elif len(found) == 1:
                more = {"mask": path} if ending == MASK else {"caption": read_caption(path), "caption_file": path}
                beside[found[0]] = replace(has, **more)
            elif found:
                refused[path] = f"a {what} of which photo? {' and '.join(photo.name for photo in found[:2])} are called alike: rename one"
            elif ending == MASK or stem.casefold() not in NO_CAPTIONS:
                refused[path] = f"a {what} {LONE}: there is no photo called {stem}"
        except PhotoError as error:
            refused[path] = error.message
    return beside, refused


def read_caption(path: Path) -> str:
    """The caption in a text file, on one line. Raises PhotoError, whose message is the reason alone."""
    try:
        with path.open("rb") as file:
            text = file.read(4 * MOST + 4).decode("utf-8-sig")
        return plain_caption(text)
    except UnicodeDecodeError as error:
        raise PhotoError("no caption: it is not in UTF-8; save it as UTF-8") from error
    except ValueError as error:
        raise PhotoError(str(error)) from error
    except OSError as error:
        raise PhotoError(f"can't be read: {error.strerror}") from error
