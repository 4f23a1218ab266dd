"""The demo's page: the photos, and below them what the model drew of each prompt before training and after."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from .picture import read_picture
from .sheet import EDGE, FAINT, INK, MARGIN, PAPER, drawable, font_for

SIDE, GAP, LABEL = 192, 12, 34  # pixels
ROW_LABEL = 20


@dataclass(frozen=True)
class Column:
    """One prompt and its two pictures, drawn from the same seed."""

    prompt: str
    before: Image.Image
    after: Image.Image


def story_page(photos: list[Image.Image], columns: list[Column]) -> Image.Image:
    """The page: a row of photos, a row of pictures before training, one after; the prompts stand beneath their columns."""
    across = max(len(photos), len(columns))
    width = 2 * MARGIN + across * (SIDE + GAP) - GAP
    page = Image.new("RGB", (width, 2 * MARGIN + 3 * (ROW_LABEL + SIDE + GAP) + LABEL), PAPER)
    rows = [
        ("the photos", photos),
        ("before: the base model's answers", [column.before for column in columns]),
        ("after: the fine-tuned model's, from the same seeds", [column.after for column in columns]),
    ]
    top = MARGIN
    for label, pictures in rows:
        _draw_row(page, label, pictures, top)
        top += ROW_LABEL + SIDE + GAP
    for place, column in enumerate(columns):
        _write_prompt(page, column.prompt, MARGIN + place * (SIDE + GAP), top - GAP + 4)
    return page


def story_strip(path: Path, side: int) -> Image.Image:
    """A page's pictures alone, each of `side` px with a little between them: small enough for a terminal."""
    page = read_picture(path)
    across = (page.width - 2 * MARGIN + GAP) // (SIDE + GAP)
    strip = Image.new("RGB", (across * (side + 1) - 1, 3 * (side + 2) - 2))
    for row in range(3):
        for column in range(across):
            left, top = MARGIN + column * (SIDE + GAP), MARGIN + row * (ROW_LABEL + SIDE + GAP) + ROW_LABEL
            tile = page.crop((left, top, left + SIDE, top + SIDE)).resize((side, side), Image.Resampling.BOX)
            strip.paste(tile, (column * (side + 1), row * (side + 2)))
    return strip


def _draw_row(page: Image.Image, label: str, pictures: list[Image.Image], top: int) -> None:
    pen = ImageDraw.Draw(page)
    pen.text((MARGIN, top), label, fill=FAINT, font=font_for(label, 14))
    for place, picture in enumerate(pictures):
        left, upper = MARGIN + place * (SIDE + GAP), top + ROW_LABEL
        page.paste(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, upper))
        pen.rectangle((left - 1, upper - 1, left + SIDE, upper + SIDE), outline=EDGE)


def _write_prompt(page: Image.Image, prompt: str, left: int, top: int) -> None:
    """A prompt on two lines at most."""
    prompt = drawable(prompt)
    font, words = font_for(prompt, 14), prompt.split()
    pen, line, lines = ImageDraw.Draw(page), "", []
    for word in words:
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > SIDE:
            lines.append(line)
            longer = word
        line = longer
    for place, text in enumerate([*lines, line][:2]):
        pen.text((left, top + 17 * place), text, fill=INK, font=font)
