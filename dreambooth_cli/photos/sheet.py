"""The contact sheet: all photos on one page, whole, with what is kept of each and what is to be said of it."""

import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TILE, GAP, MARGIN, HEAD, CAPTION, LINE, SMALL = 240, 28, 40, 44, 48, 17, 13  # pixels
MOST_LINES = 8
PALE = 0.65  # of what is not kept
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
    """One photo of the sheet: a small copy of the whole of it (None: it can't be read), its file's name, a line of detail, and what is
    to be said of it, and its caption. `box`: the part that is kept, in pixels of the copy; `status`: kept, warned or refused."""

    picture: Image.Image | None
    name: str
    detail: str
    lines: tuple[str, ...] = ()
    caption: str = ""
    box: tuple[float, float, float, float] | None = None
    status: str = "kept"


def small_picture(picture: Image.Image) -> Image.Image:
    """A picture at the size that it has on the sheet, so that the large one can go."""
    scale = TILE / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)


def contact_sheet(title: str, tiles: list[Tile], remarks: tuple[str, ...] = ()) -> Image.Image:
    """All tiles on one page, as square as their number allows, above them what is to be said of all; beyond 120 the rest is only
    counted."""
    shown = tiles[:MOST]
    columns = max(3, math.ceil(math.sqrt(len(shown))))
    written = [[(line, AMBER) for line in _lines(tile.lines)] + [(line, INK) for line in _lines((tile.caption,))] for tile in shown]
    rows = [written[start : start + columns] for start in range(0, len(shown), columns)]
    heights = [TILE + CAPTION + LINE * max(map(len, row)) + GAP for row in rows]
    across = columns * (TILE + GAP) - GAP
    told = [line for remark in remarks for line in _wrapped(drawable(remark), font_for(remark, SMALL), across)]
    head = HEAD + LINE * len(told)
    sheet = Image.new("RGB", (2 * MARGIN + across, 2 * MARGIN + head + sum(heights) - GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    rest = f", {len(tiles) - MOST} more are not shown" if len(tiles) > MOST else ""
    draw.text((MARGIN, MARGIN - 8), title + rest, fill=INK, font=font_for(title, 22))
    for number, line in enumerate(told):
        draw.text((MARGIN, MARGIN + HEAD - 20 + LINE * number), line, fill=INK, font=font_for(line, SMALL))
    for place, (tile, lines) in enumerate(zip(shown, written, strict=True)):
        row, column = divmod(place, columns)
        left, top = MARGIN + column * (TILE + GAP), MARGIN + head + sum(heights[:row])
        _draw_photo(sheet, draw, tile, left, top)
        _write(draw, tile, lines, left, top + TILE + 8)
    return sheet


def _draw_photo(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    """The photo in the middle of its tile, pale where it is not kept, the box drawn round what is; in greys where it is refused."""
    if tile.picture is None:
        draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), fill=EDGE)
        return
    picture = tile.picture.convert("L").convert("RGB") if tile.status == "refused" else tile.picture.convert("RGB")
    left, top = left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2
    pale = Image.blend(picture, Image.new("RGB", picture.size, PAPER), PALE)
    if tile.status == "refused" or tile.box is None:
        sheet.paste(pale if tile.status == "refused" else picture, (left, top))
        return
    inner = round(tile.box[0]), round(tile.box[1]), round(tile.box[2]), round(tile.box[3])
    seen = max(0, inner[0]), max(0, inner[1]), min(picture.width, inner[2]), min(picture.height, inner[3])
    pale.paste(picture.crop(seen), seen[:2])
    sheet.paste(pale, (left, top))
    edge = left + seen[0], top + seen[1], left + seen[2] - 1, top + seen[3] - 1
    draw.rectangle(edge, outline=PAPER, width=3)
    draw.rectangle(edge, outline=AMBER if tile.status == "warned" or tile.lines else INK)


def _lines(texts: tuple[str, ...]) -> list[str]:
    """What is to be said of a photo, in lines that fit beneath it; what is too long ends in an ellipsis."""
    lines = [line for text in texts if text for line in _wrapped(drawable(text), font_for(text, SMALL))]
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1]} {ELLIPSIS}"]


def _wrapped(text: str, font: Font, across: int = TILE) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines, word] if lines[-1] and font.getlength(longer) > across else [*lines[:-1], longer]
    return [shorten(line, across, font) for line in lines]


def _write(draw: ImageDraw.ImageDraw, tile: Tile, lines: list[tuple[str, str]], left: int, top: int) -> None:
    written, small = drawable(tile.name), drawable(tile.detail)
    name, detail = font_for(written, 15), font_for(small, SMALL)
    draw.text((left, top), shorten(written, TILE, name), fill=INK if tile.status != "refused" else FAINT, font=name)
    draw.text((left, top + 21), shorten(small, TILE, detail), fill=FAINT if tile.status == "kept" else AMBER, font=detail)
    for number, (line, colour) in enumerate(lines):
        draw.text((left, top + 39 + LINE * number), line, fill=colour, font=font_for(line, SMALL))


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
