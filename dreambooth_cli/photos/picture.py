"""Pictures that the tool makes: written with what made them in the PNG's text chunks, and never over another file."""

import itertools
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..disk import is_running, make_folder, sync


def save_new(image: Image.Image, folder: Path, stem: str, text: Mapping[str, str]) -> Path:
    """Write a PNG under a name that is still free, `stem.png`, `stem-2.png`, ..., and return its path."""
    make_folder(folder)
    info = PngInfo()
    for key, value in text.items():
        info.add_itxt(key, value)
    _clear_up(folder)
    part = folder / f".{stem}.{os.getpid()}.part"
    try:
        image.save(part, format="PNG", pnginfo=info)
        sync(part)
        return _take_free_name(part, folder, stem)
    finally:
        part.unlink(missing_ok=True)


def _take_free_name(part: Path, folder: Path, stem: str) -> Path:
    """Give a finished picture the next name that is free, also where another process looks for one."""
    for number in itertools.count(1):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        try:
            os.link(part, path)
        except FileExistsError:
            continue
        except OSError:  # a file system that has no links
            if path.exists():
                continue
            part.replace(path)
        break
    part.unlink(missing_ok=True)  # before the sync: the disk keeps one name or the other
    sync(folder)
    return path


def _clear_up(folder: Path) -> None:
    """Remove what killed processes left half written."""
    for left in folder.glob(".*.part"):
        writer = left.name.split(".")[-2]
        if writer.isdigit() and not is_running(int(writer)):
            left.unlink(missing_ok=True)


def read_picture(path: Path) -> Image.Image:
    """A picture of ours from disk, as RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def stem_of(prompt: str, seed: int) -> str:
    """A file name that tells a picture: the prompt's words, cut short, and its seed."""
    words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-")
    return f"{words.encode()[:60].decode(errors='ignore').strip('-') or 'picture'}-seed{seed}"


def make_grid(images: list[Image.Image], gap: int = 4) -> Image.Image:
    """All pictures on one sheet, as square as their number allows, white between them."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        sheet.paste(image, (column * (width + gap), row * (height + gap)))
    return sheet
