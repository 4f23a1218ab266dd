"""The contact sheet."""

from dataclasses import replace

import pytest
from PIL import Image, ImageChops, ImageFont

from dreambooth_cli.photos.sheet import (
    GAP,
    HEAD,
    LINE,
    MARGIN,
    MOST,
    MOST_LINES,
    TILE,
    Tile,
    contact_sheet,
    font_for,
    save_sheet,
    shorten,
    small_picture,
)


def tiles(count):
    return [
        Tile(Image.new("RGB", (64, 64), (40, 90, 2 * number)), f"{number}.jpg", "64 x 64") for number in range(count)
    ]


@pytest.mark.parametrize("count", [1, 3, 4, 9, 10, MOST + 5])
def test_it_holds_every_picture_up_to_a_number(count, tmp_path):
    sheet = contact_sheet("photos", tiles(count))
    colours = {colour for _, colour in sheet.getcolors(maxcolors=1 << 20)}
    assert {(40, 90, 2 * number) for number in range(min(count, MOST))} <= colours
    save_sheet(sheet, tmp_path / "sheet.jpg")
    with Image.open(tmp_path / "sheet.jpg") as image:
        assert (image.format, image.size) == ("JPEG", sheet.size)
        assert not image.getexif()


def test_names_lie_under_the_pictures():
    named = contact_sheet("photos", tiles(1))
    unnamed = contact_sheet("photos", [Tile(tiles(1)[0].picture, "", "")])
    left, top, right, _ = difference(named, unnamed)
    assert MARGIN <= left < right <= MARGIN + TILE
    assert top > MARGIN + 44 + TILE


def difference(one, other):
    return ImageChops.difference(one, other).getbbox()


def test_a_picture_that_is_warned_about_stands_out():
    plain, warned = (contact_sheet("photos", [replace(tiles(1)[0], status=status)]) for status in ("kept", "warned"))
    assert difference(plain, warned) is not None


def test_the_whole_photo_is_shown_and_what_is_not_kept_is_pale():
    red = Image.new("RGB", (TILE, TILE // 2), "red")
    whole, part = (contact_sheet("photos", [Tile(red, "a", "b", box=box)]) for box in (None, (0, 0, TILE // 2, TILE // 2)))
    middle = MARGIN + 44 + TILE // 2
    assert part.getpixel((MARGIN + TILE // 4, middle)) == whole.getpixel((MARGIN + TILE // 4, middle)) == (255, 0, 0)
    pale = part.getpixel((MARGIN + 3 * TILE // 4, middle))
    assert 128 < min(pale) < max(pale)


def test_a_refused_photo_is_grey_and_one_that_cannot_be_read_has_a_place():
    red = Image.new("RGB", (TILE, TILE), "red")
    sheet = contact_sheet("photos", [Tile(red, "a", "b", status="refused"), Tile(None, "c", "", ("cut off",), status="refused")])
    pixels = [sheet.getpixel((MARGIN + place * (TILE + GAP) + TILE // 2, MARGIN + 44 + TILE // 2)) for place in (0, 1)]
    assert all(max(pixel) - min(pixel) < 20 for pixel in pixels)


def test_what_is_said_of_a_photo_is_written_in_lines_below_it():
    said = "The crop removes 40% of what looks like the subject of IMG_3.jpg: try --crop pad or none, or give it a box of its own."
    plain, told = (contact_sheet("photos", [Tile(tiles(1)[0].picture, "a", "b", lines)]) for lines in ((), (said,)))
    assert told.height >= plain.height + 2 * LINE
    assert contact_sheet("photos", [Tile(None, "a", "b", (said,) * 20)]).height == plain.height + MOST_LINES * LINE


def test_long_names_keep_both_ends():
    font = ImageFont.load_default(15)
    short = shorten("a-photo-of-the-dog-on-the-beach-at-noon-0001.jpg", TILE, font)
    assert short.startswith("a-photo-of")
    assert short.endswith("0001.jpg")
    assert font.getlength(short) <= TILE
    assert shorten("short.jpg", TILE, font) == "short.jpg"
    assert shorten("wide", 1, font) == "…"


@pytest.mark.parametrize("name", ["犬の写真.jpg", "Äpfel.jpg", "\ufffd.jpg", "🐶.jpg", ""])
def test_any_name_can_be_drawn(name):
    assert font_for(name, 15).getlength(name) >= 0
    contact_sheet(name, [Tile(tiles(1)[0].picture, name, "64 x 64")])


def test_the_small_picture_has_the_tiles_size():
    assert small_picture(Image.new("RGB", (640, 640))).size == (TILE, TILE)
    assert small_picture(Image.new("RGB", (640, 320))).size == (TILE, TILE // 2)


@pytest.mark.parametrize(
    "name",
    [
        "one\x85two.jpg",
        "\u202egnp.jpg",
        "a\nb.jpg",
        "\x1b[2J.jpg",
        "\u2066a\u05d0\u2069",
        "\u05d0\u05d1.jpg",
        "😀👩‍👩‍👧",
    ],
)
def test_a_name_that_would_turn_the_writing_round_or_break_the_line(name):
    named = contact_sheet("photos", [Tile(tiles(1)[0].picture, name, "")])
    unnamed = contact_sheet("photos", [Tile(tiles(1)[0].picture, "", "")])
    assert named.size == unnamed.size
    assert difference(named, unnamed) is not None


def test_what_is_said_of_all_stands_above_the_photos():
    plain, told = (contact_sheet("photos", tiles(1), remarks) for remarks in ((), ("all from one place",)))
    assert told.height == plain.height + LINE
    below = told.crop((0, LINE + MARGIN + HEAD, told.width, told.height))
    assert below.tobytes() == plain.crop((0, MARGIN + HEAD, plain.width, plain.height)).tobytes()
    assert told.crop((0, 0, told.width, MARGIN + HEAD)).tobytes() != plain.crop((0, 0, plain.width, MARGIN + HEAD)).tobytes()
