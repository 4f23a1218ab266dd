"""Small files that promise much: refused before they are decoded."""

import random
import struct
import tracemalloc
import zlib
from io import BytesIO

import pytest
from PIL import Image

from dreambooth_cli.errors import PhotoError
from dreambooth_cli.photos import headers, pixels
from dreambooth_cli.photos.files import find_photos
from dreambooth_cli.photos.pixels import read_photo
from tests.faults.mutants import chunk, jpeg_of_passes, tiff, with_chunks, with_segments, written


def refusal(path, data):
    """Why a file of these bytes is refused; nothing of it is decoded."""
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
        with pytest.raises(PhotoError) as caught:
            read_photo(path, 64)
    return caught.value.message


def jpeg(size=(64, 64), promised=None, **options):
    """A JPEG that says it is larger than it is."""
    data = bytearray(written(Image.effect_noise((64, 64), 60).convert("RGB"), "JPEG", **options))
    place = max(data.find(b"\xff\xc0\0\x11"), data.find(b"\xff\xc2\0\x11"))
    if promised:
        data[place + 5 : place + 9] = struct.pack(">HH", *promised)
    return bytes(data)


def test_a_progressive_jpeg_is_held_whole_so_it_may_not_be_huge(tmp_path):
    said = refusal(tmp_path / "a.jpg", jpeg(promised=(20_000, 20_000), progressive=True))
    assert said.startswith("too large: 20000 × 20000 pixels in a progressive JPEG")


def test_a_jpeg_whose_colours_come_one_after_the_other_is_held_whole_too(tmp_path):
    data = jpeg(promised=(20_000, 20_000))
    scan = data.index(b"\xff\xda")
    alone = data[:scan] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[scan + 14 :]
    assert refusal(tmp_path / "a.jpg", alone).startswith("too large: 20000 × 20000 pixels")


def test_a_progressive_jpeg_of_a_large_camera_is_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(written(Image.new("RGB", (6000, 4000), "red"), "JPEG", progressive=True))
    photo = read_photo(tmp_path / "a.jpg", 64)
    assert (photo.size, photo.image.size) == ((6000, 4000), (750, 500))


def test_a_jpeg_of_thousands_of_passes_is_refused(tmp_path):
    draws = (jpeg_of_passes(random.Random(seed))[1] for seed in range(50))
    many = next(data for data in draws if data.count(b"\xff\xda") > headers.MOST_PASSES)
    assert refusal(tmp_path / "a.jpg", many) == "damaged: a JPEG in more than 100 passes"


def test_the_passes_are_counted_to_the_end_of_the_picture_alone(tmp_path):
    film = b"\xff\xda" * 1000  # behind the picture, as phones put a short film
    (tmp_path / "a.jpg").write_bytes(jpeg(progressive=True) + film)
    assert read_photo(tmp_path / "a.jpg", 64).size == (64, 64)


def test_exif_of_thousands_of_segments_is_refused(tmp_path):
    data = with_segments(jpeg(), [b"Exif\0\0" + bytes(60_000)] * 100)
    assert refusal(tmp_path / "a.jpg", data) == "damaged: its EXIF has more than 4 MB"


@pytest.mark.parametrize("junk", [b"\xff\xfe\0\2", b"\0", b"\xff"])
def test_a_jpeg_whose_header_never_ends_is_refused(junk, tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "MOST_READS", 1000)
    data = jpeg()
    (tmp_path / "a.jpg").write_bytes(data[:2] + junk * 2000 + data[2:])
    with pytest.raises(PhotoError, match="in more pieces than any picture"):
        read_photo(tmp_path / "a.jpg", 64)


@pytest.mark.parametrize(("format_", "name"), [("PNG", "a.png"), ("GIF", "a.gif")])
def test_a_picture_of_very_many_chunks_is_refused(format_, name, tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "MOST_READS", 1000)
    data = written(Image.new("P", (64, 64)), format_)
    start = 13 + 3 * (2 << (data[10] & 7))
    many = with_chunks(data, [(b"teSt", b"")] * 2000)
    if format_ == "GIF":
        many = data[:start] + b"!\xfe\0" * 2000 + data[start:]
    (tmp_path / name).write_bytes(many)
    with pytest.raises(PhotoError, match="in more pieces than any picture"):
        read_photo(tmp_path / name, 64)


def value(number):
    return struct.pack("<L", number)


PLAIN = [
    (256, 4, 1, value(100)),
    (257, 4, 1, value(100)),
    (258, 3, 1, value(8)),
    (259, 3, 1, value(1)),
    (262, 3, 1, value(1)),
]


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ([(322, 4, 1, value(40_000)), (323, 4, 1, value(40_000))], "too large: 40000 × 40000 pixels"),
        ([(322, 4, 1, value(2**31)), (323, 4, 1, value(2))], "too large: 2147483648 × 2 pixels"),
        ([(273, 4, 5_000_000, value(8))], "damaged: it is in more pieces than any picture"),
        ([(324, 4, 5_000_000, value(8))], "damaged: it is in more pieces than any picture"),
        ([(37_724, 7, 300_000_000, value(8))], "too large: its tags alone (layers, thumbnails) have more than 64 MB"),
    ],
)
def test_a_tiff_of_huge_parts_is_refused(tags, said, tmp_path):
    assert refusal(tmp_path / "a.tif", tiff(PLAIN + tags) + bytes(1000)).startswith(said)


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}, {"compression": "tiff_lzw"}])
def test_tiffs_are_read(options, tmp_path):
    Image.new("RGB", (64, 96), "red").save(tmp_path / "a.tif", **options)
    assert read_photo(tmp_path / "a.tif", 64).size == (64, 96)


def test_a_webp_may_have_fewer_pixels(tmp_path, monkeypatch):
    monkeypatch.setitem(pixels.MOST_PIXELS_OF, "WEBP", 5_000_000)
    Image.new("RGB", (3000, 2000)).save(tmp_path / "a.webp", quality=1, method=0)
    assert refusal(tmp_path / "a.webp", (tmp_path / "a.webp").read_bytes()) == (
        "too large: 3000 × 2000 pixels, at most 5 megapixels are read"
    )


@pytest.mark.parametrize(("format_", "megabytes"), [("JPEG", 400), ("PNG", 400), ("WEBP", 100), ("GIF", 100)])
def test_a_file_of_gigabytes_is_not_even_hashed(format_, megabytes, tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(written(Image.new("RGB", (64, 64)), format_))
    with path.open("r+b") as file:
        file.truncate(megabytes * 10**6 + 1)  # a hole: it takes no room
    monkeypatch.setattr("hashlib.file_digest", lambda *words: pytest.fail("it was read"))
    (look,) = find_photos(tmp_path)
    assert (look.status, look.reason.split(",")[1]) == ("refused", f" at most {megabytes} MB are read")


def test_exif_of_a_png_that_is_too_large_is_passed_over(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = exif.tobytes()[6:] + bytes(headers.MOST_EXIF)
    buffer = BytesIO()
    Image.new("RGB", (64, 96)).save(buffer, "PNG")
    (tmp_path / "a.png").write_bytes(with_chunks(buffer.getvalue(), [(b"eXIf", data)]))
    assert read_photo(tmp_path / "a.png", 64).size == (64, 96)


BOMB = zlib.compress(bytes(50_000_000))
TEXTS = {
    "plain": (b"tEXt", b"notes\0" + b"x" * 5_000_000),
    "packed": (b"zTXt", b"notes\0\0" + BOMB),
    "international": (b"iTXt", b"prompt\0\1\0\0\0" + BOMB),
    "of EXIF's name": (b"zTXt", b"Raw profile type exif\0\0" + BOMB),
    "of XMP's name": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    "broken": (b"zTXt", b"notes\0\0" + b"no zlib"),
    "a profile that is a bomb": (b"iCCP", b"sRGB\0\0" + BOMB),
    "a profile of no method": (b"iCCP", b"sRGB\0\7" + zlib.compress(bytes(100))),
    "a broken profile": (b"iCCP", b"sRGB"),
    "another program's": (b"prVt", b"x" * 5_000_000),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("behind", [False, True])
def test_a_png_is_read_whatever_texts_are_in_it(kind, behind, tmp_path):
    data = written(Image.linear_gradient("L").resize((64, 96)).convert("RGB"), "PNG")
    piece = chunk(*TEXTS[kind]) * 3
    place = data.index(b"IEND") - 4 if behind else 33
    (tmp_path / "a.png").write_bytes(data[:place] + piece + data[place:])
    plain = Image.open(BytesIO(data)).tobytes()
    tracemalloc.start()
    assert read_photo(tmp_path / "a.png", 64).image.tobytes() == plain
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("name", [b"zTXt", b"tEXt"])
def test_how_a_png_is_turned_may_stand_in_its_text(name, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    words = b"\nexif\n      " + str(len(exif.tobytes())).encode() + b"\n" + exif.tobytes().hex().encode() + b"\n"
    text = b"\0" + zlib.compress(words) if name == b"zTXt" else words
    data = with_chunks(written(Image.new("RGB", (64, 96)), "PNG"), [(name, b"Raw profile type exif\0" + text)])
    (tmp_path / "a.png").write_bytes(data)
    assert read_photo(tmp_path / "a.png", 64).size == (96, 64)


def test_pixels_in_many_pieces_between_other_chunks_are_read_in_order(tmp_path):
    image = Image.effect_noise((150, 120), 50).convert("RGB")
    data = written(image, "PNG")
    start = data.index(b"IDAT") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    packed = data[start + 8 : start + 8 + length]
    parts = [packed[place : place + 40] for place in range(0, length, 40)]
    assert len(parts) > 1000
    pieces = b"".join(chunk(b"IDAT", part) + chunk(b"prVt", b"x") for part in parts)
    (tmp_path / "a.png").write_bytes(data[:start] + pieces + chunk(b"IEND", b""))
    # a decoder ends at a chunk of another kind; what is left out is not there
    assert read_photo(tmp_path / "a.png", 64).image.tobytes() == image.tobytes()


def test_chunks_are_as_pngs_have_them():
    assert chunk(b"IEND", b"") == bytes(4) + b"IEND" + struct.pack(">L", zlib.crc32(b"IEND"))


@pytest.mark.parametrize("kept", [5, 9])
def test_a_tiff_that_ends_in_its_header_is_cut_off(kept, tmp_path):
    assert refusal(tmp_path / "a.tif", tiff(PLAIN)[:kept]) == "cut off: the file is not whole"
