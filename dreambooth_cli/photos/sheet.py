"""The contact sheet: all prepared photos on one page, as the model will see them, their names beneath."""

import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

TILE, GAP, MARGIN, CAPTION, LINE = 240, 28, 40, 48, 19  # pixels
MOST = 120
PAPER, INK, FAINT, AMBER, EDGE = "#faf9f6", "#26241f", "#8b877d", "#b3690b", "#dcd8ce"
ELLIPSIS = "…"
# Pillow's own font has ASCII only; whichever of these the machine has writes the other names
FONTS = (
    "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "PingFang.ttc", "Arial Unicode.ttf", "msyh.ttc", "malgun.ttf",
    "NotoSans-Regular.ttf", "DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf",
)  # fmt: skip
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet: the picture, its file's name, a line of detail, whether something is to be said of it, and further lines
    below: its caption."""

    picture: Image.Image
    name: str
    detail: str
    warned: bool = False
    lines: tuple[str, ...] = ()


def small_picture(picture: Image.Image) -> Image.Image:
    """A picture at the size that it has on the sheet, so that the large one can go."""
    return ImageOps.pad(picture, (TILE, TILE), Image.Resampling.LANCZOS, color=PAPER)


def contact_sheet(title: str, tiles: list[Tile]) -> Image.Image:
    """All tiles on one page, as square as their number allows; beyond 120 the rest is only counted."""
    shown = tiles[:MOST]
    columns = max(3, math.ceil(math.sqrt(len(shown))))
    rows = math.ceil(len(shown) / columns)
    header = MARGIN + 44
    caption = CAPTION + LINE * max((len(tile.lines) for tile in shown), default=0)
    sheet = Image.new(
        "RGB",
        (2 * MARGIN + columns * (TILE + GAP) - GAP, header + rows * (TILE + caption + GAP) - GAP + MARGIN),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    rest = f", {len(tiles) - MOST} more are not shown" if len(tiles) > MOST else ""
    draw.text((MARGIN, MARGIN - 8), title + rest, fill=INK, font=font_for(title, 22))
    for place, tile in enumerate(shown):
        row, column = divmod(place, columns)
        _draw_tile(sheet, draw, tile, MARGIN + column * (TILE + GAP), header + row * (TILE + caption + GAP))
    return sheet


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    sheet.paste(small_picture(tile.picture), (left, top))
    draw.rectangle((left - 1, top - 1, left + TILE, top + TILE), outline=AMBER if tile.warned else EDGE)
    written = drawable(tile.name)
    name, detail = font_for(written, 15), font_for(tile.detail, 13)
    draw.text((left, top + TILE + 8), shorten(written, TILE, name), fill=INK, font=name)
    colour = AMBER if tile.warned else FAINT
    draw.text((left, top + TILE + 29), shorten(tile.detail, TILE, detail), fill=colour, font=detail)
    for place, line in enumerate(map(drawable, tile.lines), 1):
        draw.text((left, top + TILE + 29 + LINE * place), shorten(line, TILE, font_for(line, 13)), fill=INK, font=font_for(line, 13))


def drawable(text: str) -> str:
    """Text that any font can draw on one line: the layout fails on lines' ends and on marks that turn the writing round."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def font_for(text: str, size: int) -> Font:
    """A font that can write the text, if this machine has one, else Pillow's own."""
    if not text.replace(ELLIPSIS, "").isascii():
        for name in FONTS:
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)


def shorten(text: str, width: int, font: Font) -> str:
    """Text that fits into `width` pixels, the middle left out where it is too long: names differ at their ends."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = text[: (kept + 1) // 2] + ELLIPSIS + text[len(text) - kept // 2 :]
        if font.getlength(short) <= width:
            return short
    return ELLIPSIS


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write the sheet as a JPEG."""
    sheet.save(path, format="JPEG", quality=90)
