"""Every format, orientation and kind of pixel; what is passed over and what is refused, in words."""

import os
import struct
import subprocess
import sys
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageCms, ImageOps

from dreambooth_cli.errors import PhotoError
from dreambooth_cli.photos import pixels
from dreambooth_cli.photos.files import count_photos, find_photos, look_over, natural_key, printable
from dreambooth_cli.photos.pixels import read_photo, save_png, takes_much

HEIC = Path(__file__).parent.parent / "data" / "turned.heic"
WRITTEN_AS = {"a.jpg": "JPEG", "a.heic": "PNG"}
RED, BLUE, LIME, WHITE = (255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255)


def quarters(size=(96, 64)):
    """Red, blue / lime, white."""
    width, height = size
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (width // 2, 0, width, height // 2))
    image.paste(LIME, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


def corners(image):
    """The colours near the four corners, rounded to full and none."""
    across, down = image.width // 8, image.height // 8
    points = [
        (across, down),
        (image.width - across, down),
        (across, image.height - down),
        (image.width - across, image.height - down),
    ]
    return [tuple(255 * (value > 127) for value in image.getpixel(point)) for point in points]


def looks(folder):
    return {look.path.name: (look.status, look.reason) for look in look_over(folder)}


# ---- formats


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {"quality": 95}),
        ("a.jpg", {"quality": 95, "progressive": True}),
        ("a.png", {}),
        ("a.webp", {"quality": 95}),
        ("a.webp", {"lossless": True}),
        ("a.bmp", {}),
        ("a.tiff", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.gif", {}),
        ("a.avif", {"quality": 95}),
    ],
)
def test_every_format(name, options, tmp_path):
    quarters().save(tmp_path / name, **options)
    photo = read_photo(tmp_path / name, 64)
    assert photo.size == photo.image.size == (96, 64)
    assert photo.image.mode == "RGB"
    assert corners(photo.image) == [RED, BLUE, LIME, WHITE]
    assert looks(tmp_path) == {name: ("ok", "")}


def test_two_pictures_in_one_jpeg_as_phones_write(tmp_path):
    second = Image.new("RGB", (96, 64), "black")
    quarters().save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    assert corners(read_photo(tmp_path / "a.jpg", 64).image) == [RED, BLUE, LIME, WHITE]


def test_a_large_two_picture_jpeg_is_decoded_smaller(tmp_path):
    large = quarters((1600, 1200))
    large.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[large])
    photo = read_photo(tmp_path / "a.jpg", 64)
    assert (photo.size, photo.image.size) == ((1600, 1200), (200, 150))
    assert corners(photo.image) == [RED, BLUE, LIME, WHITE]


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff"])
def test_the_first_frame_counts(name, tmp_path):
    quarters().save(tmp_path / name, save_all=True, append_images=[Image.new("RGB", (96, 64), "black")])
    assert corners(read_photo(tmp_path / name, 64).image) == [RED, BLUE, LIME, WHITE]


def test_heic_is_upright_once(tmp_path):
    photo = read_photo(HEIC, 64)
    assert photo.size == photo.image.size == (64, 96)
    assert corners(photo.image) == [LIME, RED, WHITE, BLUE]
    (tmp_path / "as-named.jpg").write_bytes(HEIC.read_bytes())
    assert looks(tmp_path) == {"as-named.jpg": ("ok", "")}


def test_the_heic_reader_is_loaded_only_when_one_is_met(tmp_path):
    quarters().save(tmp_path / "a.jpg")
    code = (
        "import sys; from pathlib import Path; from dreambooth_cli.photos.pixels import read_photo;"
        f"read_photo(Path({str(tmp_path / 'a.jpg')!r}), 64); before = 'pi_heif' in sys.modules;"
        f"read_photo(Path({str(HEIC)!r}), 64); print(before, 'pi_heif' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("name", "format_"), [("a.jpg", "PNG"), ("a.png", "JPEG"), ("a.txt", "WEBP"), ("photo", "GIF"), ("b.txt", "BMP")]
)
def test_the_content_decides_not_the_name(name, format_, tmp_path):
    quarters().save(tmp_path / name, format=format_)
    assert looks(tmp_path) == {name: ("ok", "")}


# ---- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff"])
def test_all_eight_turns(name, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters().save(tmp_path / name, exif=exif, quality=95)
    with Image.open(tmp_path / name) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    photo = read_photo(tmp_path / name, 64)
    assert photo.size == photo.image.size == ((96, 64) if orientation < 5 else (64, 96))
    assert corners(photo.image) == corners(upright)
    assert photo.image.tobytes() == upright.tobytes()


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, [RED, BLUE, LIME, WHITE]), (6, [LIME, RED, WHITE, BLUE]), (8, [BLUE, WHITE, RED, LIME])],
)
def test_a_large_jpeg_is_decoded_smaller_and_turned(orientation, expected, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters((1600, 1200)).save(tmp_path / "a.jpg", exif=exif)
    photo = read_photo(tmp_path / "a.jpg", 64)
    assert photo.size == ((1600, 1200) if orientation == 1 else (1200, 1600))
    assert sorted(photo.image.size) == [150, 200]
    assert corners(photo.image) == expected


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0garbage",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0",
    ],
)
def test_damaged_exif_is_no_reason_to_refuse(exif, tmp_path):
    quarters().save(tmp_path / "a.jpg", exif=exif)
    assert read_photo(tmp_path / "a.jpg", 64).size == (96, 64)


# ---- pixels


def test_alpha_is_flattened_on_white(tmp_path):
    image = quarters().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda value: 255 * (value > 127)))
    for name in ("a.png", "a.webp", "a.tiff"):
        image.save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
        assert corners(read_photo(tmp_path / name, 64).image) == [WHITE, WHITE, LIME, WHITE]


def test_half_transparent_black_is_grey(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 128)).save(tmp_path / "a.png")
    Image.new("LA", (8, 8), (0, 128)).save(tmp_path / "b.png")
    assert read_photo(tmp_path / "a.png", 8).image.getpixel((0, 0)) == (127, 127, 127)
    assert read_photo(tmp_path / "b.png", 8).image.getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_palette_with_and_without_transparency(name, tmp_path):
    image = quarters().convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    image.save(tmp_path / name)
    assert corners(read_photo(tmp_path / name, 64).image) == [RED, BLUE, LIME, WHITE]
    image.save(tmp_path / name, transparency=image.getpixel((2, 2)))
    assert corners(read_photo(tmp_path / name, 64).image) == [WHITE, BLUE, LIME, WHITE]


def test_a_transparent_colour_of_a_picture_without_alpha(tmp_path):
    quarters().save(tmp_path / "a.png", transparency=RED)
    assert corners(read_photo(tmp_path / "a.png", 64).image) == [WHITE, BLUE, LIME, WHITE]


@pytest.mark.parametrize("name", ["a.jpg", "a.tiff"])
def test_cmyk(name, tmp_path):
    quarters().convert("CMYK").save(tmp_path / name, quality=95)
    assert corners(read_photo(tmp_path / name, 64).image) == [RED, BLUE, LIME, WHITE]


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize(("value", "grey"), [(0, 0), (200, 0), (300, 1), (40000, 156), (65535, 255)])
def test_sixteen_bit_grey(name, value, grey, tmp_path):
    Image.new("I;16", (8, 8), value).save(tmp_path / name)
    assert read_photo(tmp_path / name, 8).image.getpixel((3, 3)) == (grey, grey, grey)


def test_sixteen_bit_grey_of_the_other_byte_order(tmp_path):
    Image.frombytes("I;16B", (8, 8), (40000).to_bytes(2, "big") * 64).save(tmp_path / "a.tiff")
    assert read_photo(tmp_path / "a.tiff", 8).image.getpixel((3, 3)) == (156, 156, 156)


@pytest.mark.parametrize(("bits", "compression"), [(8, 1), (8, 8), (16, 1), (16, 8)])
def test_a_tiff_with_each_colour_in_a_plane(bits, compression, tmp_path):
    """What Pillow reads wrong, 16 bits uncompressed, is refused; the rest is read."""
    planes = [bytes([value]) * (8 * 8 * bits // 8) for value in (255, 128, 0)]
    planes = [zlib.compress(plane) if compression == 8 else plane for plane in planes]
    entries = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 3, 134), (259, 3, 1, compression), (262, 3, 1, 2), (273, 4, 3, 140)]
    entries += [(277, 3, 1, 3), (278, 4, 1, 8), (279, 4, 3, 152), (284, 3, 1, 2)]
    starts = [164 + sum(len(plane) for plane in planes[:number]) for number in range(3)]
    table = struct.pack("<H", 10) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    values = struct.pack("<3H6I", bits, bits, bits, *starts, *map(len, planes))
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0" + table + values + b"".join(planes))
    if (bits, compression) == (16, 1):
        with pytest.raises(PhotoError, match="a TIFF with each colour of 16 bits"):
            read_photo(tmp_path / "a.tif", 8)
    else:
        assert read_photo(tmp_path / "a.tif", 8).image.getpixel((3, 3)) == (255, 128, 0)


@pytest.mark.parametrize(
    ("mode", "value", "grey"),
    [
        ("I", 200, 200),
        ("I", 40000, 156),
        ("I", 2_000_000_000, 255),
        ("F", 0.5, 127),
        ("F", 200.0, 200),
        ("F", 1000.0, 255),
        ("1", 1, 255),
        ("L", 77, 77),
    ],
)
def test_other_kinds_of_grey(mode, value, grey, tmp_path):
    Image.new(mode, (8, 8), value).save(tmp_path / "a.tiff")
    assert read_photo(tmp_path / "a.tiff", 8).image.getpixel((3, 3)) == (grey, grey, grey)


def test_a_colour_profile_is_obeyed(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, bytes_ in (("srgb.png", srgb), ("unfit.png", profile), ("broken.png", b"no profile")):
        quarters().save(tmp_path / name, icc_profile=bytes_)
        assert read_photo(tmp_path / name, 64).image.tobytes() == quarters().tobytes()
    swapped = srgb.replace(b"sRGB", b"wide").replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))
    red, green = swapped.index(b"rXYZ"), swapped.index(b"gXYZ")
    swapped = bytearray(swapped)
    swapped[red : red + 4], swapped[green : green + 4] = b"gXYZ", b"rXYZ"
    quarters().save(tmp_path / "swapped.png", icc_profile=bytes(swapped))
    assert corners(read_photo(tmp_path / "swapped.png", 64).image) == [LIME, BLUE, RED, WHITE]


def profile_of(name, *, swapped=False):
    """sRGB's profile under a name, its red and green changed places or not."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for old, new in ((b"sRGB", name.encode()), ("sRGB".encode("utf-16-be"), name.encode("utf-16-be"))):
        # in the description alone: the header's own mark stays
        place = data.find(old, 128)
        while place >= 0:
            data[place : place + len(old)] = new
            place = data.find(old, place + len(old))
    if swapped:
        red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
        data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("name", ["sRGB", "wide"])
def test_a_profile_is_obeyed_for_what_it_holds_not_for_its_name(name, tmp_path):
    quarters().save(tmp_path / "same.png", icc_profile=profile_of(name))
    assert read_photo(tmp_path / "same.png", 64).image.tobytes() == quarters().tobytes()
    for file in ("other.png", "other.jpg", "other.webp", "other.tif"):
        quarters().save(tmp_path / file, icc_profile=profile_of(name, swapped=True))
        assert corners(read_photo(tmp_path / file, 64).image) == [LIME, BLUE, RED, WHITE]


def test_profiles_that_do_not_fit_are_passed_over(tmp_path):
    grey = Image.new("L", (96, 64), 90)
    ramp = Image.linear_gradient("L").resize((96, 64))
    for picture, profile in (
        (grey, profile_of("sRGB", swapped=True)),  # of colours, in a grey picture
        (ramp, profile_of("sRGB", swapped=True)[:300]),
        (quarters(), b"\0" * 400),
        (quarters(), profile_of("sRGB", swapped=True).replace(b"mntr", b"link")),
        (quarters(), profile_of("sRGB", swapped=True).replace(b"RGB XYZ ", b"CMYKXYZ ")),
        (quarters().convert("CMYK"), profile_of("sRGB", swapped=True)),
    ):
        picture.save(tmp_path / "a.tif", icc_profile=profile)
        assert read_photo(tmp_path / "a.tif", 64).image.tobytes() == picture.convert("RGB").tobytes()


def test_pictures_of_lab_are_read(tmp_path):
    quarters().convert("LAB").save(tmp_path / "a.tif")
    assert corners(read_photo(tmp_path / "a.tif", 64).image) == [RED, BLUE, LIME, WHITE]


def test_nothing_of_the_photos_metadata_is_written(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "a phone"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    quarters().save(tmp_path / "a.jpg", exif=exif, icc_profile=srgb, comment=b"at home", dpi=(72, 72), xmp=b"<x/>")
    for path in (tmp_path / "a.jpg", HEIC):
        save_png(read_photo(path, 64).image, tmp_path / "out.png")
        data = (tmp_path / "out.png").read_bytes()
        with Image.open(BytesIO(data)) as image:
            image.load()
            assert (image.info, dict(image.getexif())) == ({}, {})
        assert chunks(data) == {b"IHDR", b"IDAT", b"IEND"}


def chunks(data):
    found, place = set(), 8
    while place < len(data):
        found.add(data[place + 4 : place + 8])
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return found


# ---- what is passed over


def test_what_is_no_photo_is_skipped_with_a_word(tmp_path):
    quarters().save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    quarters().save(tmp_path / "._a.jpg", format="JPEG")
    (tmp_path / "more").mkdir()
    (tmp_path / "notes.txt").write_text("BM a list")
    (tmp_path / "empty").touch()
    (tmp_path / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0")
    (tmp_path / "shot.CR2").write_bytes(b"II*\0")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert looks(tmp_path) == {
        "a.jpg": ("ok", ""),
        "b.jpg": ("skipped", "the same picture as a.jpg"),
        ".DS_Store": ("skipped", "hidden"),
        "._a.jpg": ("skipped", "hidden"),
        "more": ("skipped", "a folder: only the photos beside it are read"),
        "notes.txt": ("skipped", "not a picture"),
        "empty": ("skipped", "not a picture"),
        "film.mov": ("skipped", "a video: save a picture of it as jpg first"),
        "shot.CR2": ("skipped", "a camera's raw file: save it as jpg first"),
        "gone.jpg": ("skipped", "not a file"),
        "pipe.jpg": ("skipped", "not a file"),
    }
    assert count_photos(tmp_path) == 1


ISO = b"\0\0\0\x18ftyp"
PICTURE = "which is not read: save it as jpg or png"
OTHER_KINDS = {
    "jxl": (b"\xff\x0a\xfa\x1f", f"a JPEG XL picture, {PICTURE}"),
    "jxl in a box": (b"\0\0\0\x0cJXL \r\n\x87\n", f"a JPEG XL picture, {PICTURE}"),
    "jp2": (b"\0\0\0\x0cjP  \r\n\x87\n", f"a JPEG 2000 picture, {PICTURE}"),
    "j2k": (b"\xff\x4f\xff\x51\0", f"a JPEG 2000 picture, {PICTURE}"),
    "jxr": (b"II\xbc\x01", f"a JPEG XR picture, {PICTURE}"),
    "jls": (b"\xff\xd8\xff\xf7\0\x0b", f"a JPEG-LS picture, {PICTURE}"),
    "cr2": (b"II*\0\x10\0\0\0CR\2\0", "a camera's raw file: save it as jpg first"),
    "cr3": (ISO + b"crx \0\0\0\1", "a camera's raw file: save it as jpg first"),
    "raf": (b"FUJIFILMCCD-RAW 0201", "a camera's raw file: save it as jpg first"),
    "x3f": (b"FOVb\0\0\2\0", "a camera's raw file: save it as jpg first"),
    "orf": (b"IIRO\x08\0\0\0", "a camera's raw file: save it as jpg first"),
    "rw2": (b"IIU\0\x18\0\0\0", "a camera's raw file: save it as jpg first"),
    "psd": (b"8BPS\0\1", f"a Photoshop picture, {PICTURE}"),
    "xcf": (b"gimp xcf v011", f"a GIMP picture, {PICTURE}"),
    "svg": (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="">', f"a drawing of lines (SVG), {PICTURE}"),
    "pdf": (b"%PDF-1.7", f"a PDF document, {PICTURE}"),
    "ico": (b"\0\0\1\0\2\0\x10\x10\0\0\1\0", f"an icon, {PICTURE}"),
    "exr": (b"\x76\x2f\x31\x01\2", f"an OpenEXR picture, {PICTURE}"),
    "hdr": (b"#?RADIANCE\n", f"an HDR picture, {PICTURE}"),
    "ppm": (b"P6\n640 480\n255\n", f"a picture of Netpbm's kind (ppm, pgm, pfm), {PICTURE}"),
    "mp4": (ISO + b"isom\0\0\2\0", "a video: save a picture of it as jpg first"),
    "mov": (ISO + b"qt  \0\0\2\0", "a video: save a picture of it as jpg first"),
    "avi": (b"RIFF\0\0\0\0AVI LIST", "a video: save a picture of it as jpg first"),
    "mkv": (b"\x1a\x45\xdf\xa3", "a video: save a picture of it as jpg first"),
    "zip": (b"PK\3\4\x14\0", "an archive: unpack it first"),
    "tar": (b"a.jpg".ljust(257, b"\0") + b"ustar\0", "an archive: unpack it first"),
    "html": (b"\n<!DOCTYPE html><html>", "a web page, not the picture itself: save that anew"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS: fetch the file itself with `git lfs pull`"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
@pytest.mark.parametrize("name", ["a", "a.jpg", "a.tif"])
def test_other_kinds_are_said_for_what_they_are_whatever_they_are_called(kind, name, tmp_path):
    head, words = OTHER_KINDS[kind]
    (tmp_path / name).write_bytes(head + bytes(600))
    assert looks(tmp_path) == {name: ("skipped", words)}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.jxl", f"a JPEG XL picture, {PICTURE}"),
        ("a.JP2", f"a JPEG 2000 picture, {PICTURE}"),
        ("a.tga", f"a Targa picture, {PICTURE}"),
        ("a.3fr", "a camera's raw file: save it as jpg first"),
        ("a.MTS", "a video: save a picture of it as jpg first"),
        ("a.aae", "not a picture"),
    ],
)
def test_where_the_first_bytes_say_nothing_the_name_does(name, words, tmp_path):
    (tmp_path / name).write_bytes(b"\x13\x37" * 300)
    assert looks(tmp_path) == {name: ("skipped", words)}
    (tmp_path / name).write_bytes(b"")
    assert looks(tmp_path)[name][1] == ("an empty file" if name != "a.aae" else "not a picture")


@pytest.mark.parametrize("name", ["a.jxl", "a.nef", "a.cr3", "a.psd", "a.mov", "a.txt", "a.svg"])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"])
def test_a_picture_is_read_whatever_it_is_called(name, format_, tmp_path):
    quarters().save(tmp_path / name, format=format_)
    assert looks(tmp_path) == {name: ("ok", "")}


def test_a_raw_file_that_looks_like_a_tiff(tmp_path):
    quarters().save(tmp_path / "a.nef", format="TIFF")
    assert looks(tmp_path) == {"a.nef": ("skipped", "a camera's raw file: save it as jpg first")}
    (tmp_path / "a.nef").unlink()
    for tags in ({254: 1}, {50706: b"\1\4\0\0"}):  # a thumbnail first, or DNG's own mark
        quarters().save(tmp_path / "a.tif", tiffinfo=tags)
        assert looks(tmp_path) == {"a.tif": ("refused", "a camera's raw file: save it as jpg first")}


@pytest.mark.parametrize(
    ("marker", "bits", "words"), [(0xC3, 8, "a lossless JPEG"), (0xC1, 12, "a JPEG of 12 bits"), (0xC7, 8, "a lossless JPEG")]
)
def test_jpegs_that_no_decoder_here_reads(marker, bits, words, tmp_path):
    quarters().save(tmp_path / "a.jpg")
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = marker, bits
    (tmp_path / "a.jpg").write_bytes(data)
    assert looks(tmp_path) == {"a.jpg": ("refused", f"{words}, which is not read: save it as an ordinary jpg or png")}


def test_a_text_that_never_ends_its_comments_is_looked_at_quickly(tmp_path):
    (tmp_path / "a").write_bytes(b"<!---->" * 1000)
    assert looks(tmp_path) == {"a": ("skipped", "not a picture")}


def test_a_linked_photo_is_read(tmp_path):
    quarters().save(tmp_path / "a.jpg")
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "link.jpg").symlink_to(tmp_path / "a.jpg")
    assert looks(folder) == {"link.jpg": ("ok", "")}


def test_files_that_are_left_out(tmp_path):
    quarters().save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    found = [(look.path.name, look.status, look.reason) for look in find_photos(tmp_path, {"a.jpg"})]
    assert found == [("a.jpg", "skipped", "left out: it is gone from the photo folder"), ("b.jpg", "ok", "")]


def test_the_order_is_the_natural_one(tmp_path):
    names = ["IMG_2.jpg", "img_10.jpg", "IMG_1.jpg", "1.jpg", "09.jpg", "10.jpg", "a.jpg", "B.jpg"]
    assert sorted(names, key=natural_key) == [
        "1.jpg",
        "09.jpg",
        "10.jpg",
        "a.jpg",
        "B.jpg",
        "IMG_1.jpg",
        "IMG_2.jpg",
        "img_10.jpg",
    ]


def test_a_name_of_any_bytes_can_be_printed(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    quarters().save(path)
    (look,) = look_over(tmp_path)
    assert look.status == "ok"
    assert printable(look.path.name) == "caf\ufffd.jpg"
    printable(look.path).encode("utf-8")


# ---- what is refused


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "a.gif", "a.avif", "a.heic"])
def test_a_picture_that_is_cut_off_is_refused(name, tmp_path):
    data = BytesIO()
    picture = Image.effect_mandelbrot((200, 160), (-2, -1.5, 1, 1.5), 60).convert("RGB")
    picture.save(data, format=WRITTEN_AS.get(name, name[2:].upper()))
    whole = HEIC.read_bytes() if name == "a.heic" else data.getvalue()
    for part in (2 / 3, 1 / 3):
        (tmp_path / name).write_bytes(whole[: int(len(whole) * part)])
        status, reason = looks(tmp_path)[name]
        assert status == "refused"
        assert reason.startswith(("cut off: the file is not whole", "damaged: "))


def test_a_photo_whose_last_rows_are_missing_is_said_to_be_cut_off(tmp_path):
    Image.effect_noise((300, 200), 90).convert("RGB").save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[:-400])
    assert looks(tmp_path) == {"a.jpg": ("refused", "cut off: the file is not whole")}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"this is a text", "damaged: no picture can be found in it"),
        (b"\xff\xd8\xff\xe0 and then nothing of a picture", "cut off: the file is not whole"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged: no picture can be found in it"),
        (b"\0\0\0\x1cftypheic" + bytes(100), "damaged"),
    ],
)
def test_a_picture_by_name_that_is_none(content, reason, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    status, said = looks(tmp_path)["a.jpg"]
    assert status == "refused"
    assert said.startswith(reason)


def test_damaged_bytes_in_the_middle(tmp_path):
    quarters((300, 200)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    middle = data.index(b"IDAT") + 10
    data[middle : middle + 20] = bytes(20)
    (tmp_path / "a.png").write_bytes(data)
    status, reason = looks(tmp_path)["a.png"]
    assert (status, reason.split(":")[0]) == ("refused", "damaged")


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path):
    quarters().save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    limit = Image.MAX_IMAGE_PIXELS
    assert looks(tmp_path) == {"a.png": ("refused", "too large: 50000 × 50000 pixels, at most 60 megapixels are read")}
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_jpeg_of_more_pixels_than_pillow_allows_is_decoded_smaller(tmp_path):
    Image.new("L", (14_000, 13_000), 90).save(tmp_path / "a.jpg")
    photo = read_photo(tmp_path / "a.jpg", 512)
    assert (photo.size, photo.image.size) == ((14_000, 13_000), (1750, 1625))
    assert photo.image.getpixel((5, 5)) == (90, 90, 90)


def test_a_long_thin_jpeg_of_too_many_pixels_is_refused(tmp_path):
    Image.new("L", (60_010, 1000), 90).save(tmp_path / "a.jpg")
    with pytest.raises(PhotoError) as caught:
        read_photo(tmp_path / "a.jpg", 1024)
    assert caught.value.message == "too large: 60010 × 1000 pixels, at most 60 megapixels are read"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_photo_that_may_not_be_read_is_refused(tmp_path):
    quarters().save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").chmod(0)
    assert looks(tmp_path) == {"a.jpg": ("refused", "can't be read: Permission denied")}


def test_a_missing_folder_and_a_file_for_a_folder(tmp_path):
    with pytest.raises(PhotoError) as caught:
        count_photos(tmp_path / "nowhere")
    assert caught.value.message == f"there is no folder {tmp_path / 'nowhere'}"
    assert caught.value.hint == "check the path of --photos"
    assert caught.value.exit_code == 3
    quarters().save(tmp_path / "a.jpg")
    with pytest.raises(PhotoError) as caught:
        count_photos(tmp_path / "a.jpg")
    assert caught.value.message == f"{tmp_path / 'a.jpg'} is a file, not a folder"
    assert caught.value.hint == f"give the folder that the photos lie in: --photos {tmp_path}"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("photos.zip", "unpack it, and give the folder with the photos to --photos"),
        ("film.mp4", "save 3 to 5 pictures of that video in a folder, and give the folder to --photos"),
        ("*.jpg", "a pattern is not understood: give the folder itself: --photos {}"),
        ("photos/*/IMG_[12].jpg", "a pattern is not understood: give the folder itself: --photos {}/photos"),
        ("file:///home/jane/my%20dog", "give the path itself: --photos '/home/jane/my dog'"),
        ("https:/example.org/photos", "photos are read from this machine: download them into a folder, and give that to --photos"),
    ],
)
def test_what_is_no_folder_is_told_with_what_to_give(given, hint, tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"PK\3\4")
    (tmp_path / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    with pytest.raises(PhotoError) as caught:
        count_photos(tmp_path / given)
    assert caught.value.hint == hint.format(tmp_path)
    assert caught.value.exit_code == 3


def test_looking_writes_nothing_and_leaves_no_file_open(tmp_path):
    quarters().save(tmp_path / "a.jpg")
    (tmp_path / "b.png").write_bytes(b"broken")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    open_before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else set()
    assert count_photos(tmp_path) == 1
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before
    if open_before:
        assert set(os.listdir("/proc/self/fd")) == open_before


def test_formats_that_start_other_programs_are_never_tried():
    assert "EPS" not in pixels.FORMATS


@pytest.mark.parametrize("band", [7, 64, 1000, 96 * 3])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "CMYK", "I", "F", "I;16", "1"])
def test_a_picture_is_converted_in_bands_as_it_is_at_once(mode, band, monkeypatch):
    noise = Image.effect_noise((96, 64), 90).convert("RGB")
    noise.putalpha(Image.linear_gradient("L").resize(noise.size))
    image = {
        "F": lambda: noise.convert("L").convert("F").point(lambda value: value * 3.5),
        "I": lambda: noise.convert("L").convert("I").point(lambda value: value * 999),
        "I;16": lambda: Image.frombytes("I;16", (96, 64), noise.tobytes()[: 2 * 96 * 64]),
    }.get(mode, lambda: noise.convert(mode))()
    if mode == "CMYK":
        image.info["icc_profile"] = b"no profile"
    if mode == "RGB":
        image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    whole = pixels.to_rgb(image)
    monkeypatch.setattr(pixels, "BAND", band)
    assert pixels.to_rgb(image).tobytes() == whole.tobytes()


@pytest.mark.parametrize("target", ["x" * 300, "x" * 5000, "loop.jpg", "loop.jpg/loop.jpg", ".", "/dev/zero"])
def test_links_that_lead_nowhere_or_in_a_circle_are_passed_over(target, tmp_path):
    try:
        (tmp_path / "loop.jpg").symlink_to(target)
    except OSError:
        pytest.skip("this system makes no such link")
    (look,) = look_over(tmp_path)
    assert look.status in ("skipped", "refused")
    assert look.reason


def test_what_lies_beside_the_second_of_two_same_pictures_is_not_dropped_in_silence(tmp_path):
    quarters().save(tmp_path / "a.jpg", format="JPEG")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    (tmp_path / "b.txt").write_text("in the snow")
    told = {look.path.name: look.reason for look in find_photos(tmp_path)}
    assert told == {"a.jpg": "", "b.jpg": "the same picture as a.jpg, and the caption or mask beside it is not used"}


def test_pillow_s_limits_are_lifted_while_any_photo_is_read_and_then_are_as_they_were():
    before = (Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    first, second = pixels._quiet, pixels._quiet
    with first:
        with second:
            pass
        assert Image.MAX_IMAGE_PIXELS is None  # one of the two still reads
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


@pytest.mark.parametrize(("options", "much"), [({}, False), ({"progressive": True}, True)])
def test_a_photo_takes_much_as_it_is_decoded(options, much, tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "MOST_TOGETHER", 640 * 480 // 2)
    quarters((640, 480)).save(tmp_path / "a.jpg", **options)
    quarters((640, 480)).save(tmp_path / "a.png")
    assert takes_much(tmp_path / "a.jpg", 64) is much
    assert takes_much(tmp_path / "a.png", 64)
    assert takes_much(tmp_path / "a.jpg", 480)
