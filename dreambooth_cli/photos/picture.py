"""Pictures that the tool makes: written with what made them in the PNG's text chunks, and never over another file."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo


def save_new(image: Image.Image, folder: Path, stem: str, text: Mapping[str, str]) -> Path:
    """Write a PNG under a name that is still free, `stem.png`, `stem-2.png`, ..., and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    info = PngInfo()
    for key, value in text.items():
        info.add_itxt(key, value)
    number = 1
    while True:
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        try:
            with path.open("xb") as file:
                image.save(file, format="PNG", pnginfo=info)
            return path
        except FileExistsError:
            number += 1


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
