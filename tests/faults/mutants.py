"""Photos that are broken, hostile or merely odd: a function for each kind, which writes one file and says what must become of it.

Each is drawn from a generator of its own, so that any one of them can be made again: `make(kind, number, folder)`.
"""

import os
import random
import socket
import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

HEIC = Path(__file__).parent.parent / "data" / "turned.heic"
SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "GIF": ".gif",
    "BMP": ".bmp",
    "AVIF": ".avif",
}
KEPT, ANY = True, False  # whether a photo must be used; else any answer will do
Maker = Callable[[random.Random, Path, str], bool]


def picture(rng: random.Random, mode: str = "RGB", size: tuple[int, int] | None = None) -> Image.Image:
    """A picture of noise in coarse squares: no two are the same."""
    width, height = size or (rng.randrange(72, 160), rng.randrange(72, 160))
    small = Image.frombytes("RGB", (8, 8), rng.randbytes(192))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def written(image: Image.Image, format_: str, **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    data = BytesIO()
    image.save(data, format=format_, **options)
    return data.getvalue()


@cache
def bases() -> tuple[tuple[str, bytes], ...]:
    """Whole files of every format and the common forms of each: suffix and content."""
    rng = random.Random("bases")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a phone"
    exif.get_ifd(0x8825)[1] = "N"
    ordinary = {"exif": exif, "comment": b"at home"}
    return (
        (".jpg", written(picture(rng), "JPEG", quality=90, **ordinary)),
        (".jpg", written(picture(rng), "JPEG", progressive=True, subsampling=0, **ordinary)),
        (".jpg", written(picture(rng, "L"), "JPEG")),
        (".jpg", written(picture(rng), "MPO", save_all=True, append_images=[picture(rng)])),
        (".png", written(picture(rng), "PNG", exif=exif)),
        (".png", written(picture(rng, "RGBA"), "PNG")),
        (".png", written(picture(rng, "P"), "PNG", transparency=3)),
        (".webp", written(picture(rng), "WEBP", quality=80, exif=exif)),
        (".webp", written(picture(rng, "RGBA"), "WEBP", lossless=True)),
        (".tif", written(picture(rng), "TIFF", exif=exif)),
        (".tif", written(picture(rng), "TIFF", compression="tiff_lzw")),
        (".tif", written(picture(rng), "TIFF", compression="jpeg")),
        (".gif", written(picture(rng, "P"), "GIF")),
        (".bmp", written(picture(rng), "BMP")),
        (".avif", written(picture(rng), "AVIF", speed=10)),
        (".heic", HEIC.read_bytes()),
    )


def flip(rng: random.Random, data: bytes) -> bytes:
    """Some bits turned: anywhere, or in the head alone, where a format's promises stand."""
    mutated, reach = bytearray(data), rng.choice((64, 512, len(data), len(data)))
    for _ in range(rng.choice((1, 2, 8, 64, 400))):
        mutated[rng.randrange(min(reach, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(mutated)


def perhaps_flip(rng: random.Random, data: bytes) -> tuple[bytes, bool]:
    """A file as it is, or every second time with bits turned; whether it must be used."""
    return (data, KEPT) if rng.random() < 0.5 else (flip(rng, data), ANY)


def unique(rng: random.Random, data: bytes) -> bytes:
    """The same picture as a file of its own: every reader passes over what follows a picture."""
    return data + rng.randbytes(8)


# ---- content


def bit_flips(rng: random.Random, folder: Path, stem: str) -> bool:
    """Bits turned."""
    suffix, data = rng.choice(bases())
    (folder / f"{stem}{suffix}").write_bytes(flip(rng, data))
    return ANY


def truncation(rng: random.Random, folder: Path, stem: str) -> bool:
    """Cut off anywhere; every fourth with zeros in place of the rest, as from a card that broke."""
    suffix, data = rng.choice(bases())
    kept = data[: rng.randrange(len(data))]
    (folder / f"{stem}{suffix}").write_bytes(kept + bytes(rng.choice((0, 0, 0, len(data) - len(kept)))))
    return ANY


def swapped_segments(rng: random.Random, folder: Path, stem: str) -> bool:
    """Two stretches exchanged, one told twice, or one of another file put in."""
    suffix, data = rng.choice(bases())
    other = rng.choice(bases())[1]
    a, b, c, d = sorted(rng.randrange(len(data)) for _ in range(4))
    match rng.randrange(3):
        case 0:
            mutated = data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]
        case 1:
            mutated = data[:b] + data[a:b] * rng.choice((1, 2, 50)) + data[b:]
        case _:
            start = rng.randrange(len(other))
            mutated = data[:a] + other[start : start + (b - a)] + data[b:]
    (folder / f"{stem}{suffix}").write_bytes(mutated)
    return ANY


def exif_bombs(rng: random.Random, folder: Path, stem: str) -> bool:
    """EXIF that promises what is not there, points at itself, comes in a thousand parts, or is of odd types."""
    exif = b"Exif\0\0" + tag_table(rng)
    image = picture(rng)
    match rng.randrange(6):
        case 0:
            suffix, data = ".jpg", with_segments(written(image, "JPEG"), [exif] * rng.choice((1, 1, 70, 200)))
        case 1:
            suffix, data = ".png", with_chunks(written(image, "PNG"), [(b"eXIf", exif[6:] * rng.choice((1, 1, 300)))])
        case 2:
            raw = "\nexif\n" + f"{len(exif):8}\n" + exif.hex()
            packed = b"Raw profile type exif\0\0" + zlib.compress(raw.encode())
            suffix, data = ".png", with_chunks(written(image, "PNG"), [(b"zTXt", packed)])
        case 3:
            suffix, data = ".webp", written(image, "WEBP", exif=exif[6:])
        case 4:
            suffix, data = ".tif", tag_table(rng)
        case _:
            # entries that each point at all of a file of some MB
            count = rng.choice((50, 5000, 65_000))
            entries = [(number, 7, 3_000_000, struct.pack("<L", 8)) for number in range(256, 256 + count)]
            suffix, data = rng.choice((".tif", ".tiff")), tiff(entries) + bytes(rng.choice((0, 3_000_000)))
    (folder / f"{stem}{suffix}").write_bytes(data)
    return ANY


def tag_table(rng: random.Random) -> bytes:
    """A TIFF directory as EXIF has it, of bad entries."""
    tags = (
        0x0112,
        0x010F,
        0x8769,
        0x8825,
        0xA005,
        0x011A,
        0x0128,
        0x927C,
        0x02BC,
        0x8773,
        273,
        279,
        256,
        257,
        258,
        259,
    )
    entries = []
    for _ in range(rng.choice((1, 5, 40, 2000))):
        tag = rng.choice(tags) if rng.random() < 0.5 else rng.randrange(65_536)
        count = rng.choice((0, 1, 2, 100, 60_000, 2**31, 2**32 - 1))
        value = struct.pack("<L", rng.choice((0, 6, 8, 8, 100, 2**31, 2**32 - 1, rng.randrange(2**32))))
        entries.append((tag, rng.randrange(0, 20), count, value))
    return tiff(entries, following=rng.choice((0, 8, 8, 2**32 - 1)))


def tiff(entries: list[tuple[int, int, int, bytes]], following: int = 0) -> bytes:
    """A TIFF of one directory: tag, type, count, and 4 bytes that are the value or where it is."""
    table = b"".join(struct.pack("<HHL", tag, kind, count) + value for tag, kind, count, value in sorted(entries))
    return b"II*\0" + struct.pack("<LH", 8, min(len(entries), 65_535)) + table + struct.pack("<L", following)


def with_segments(jpeg: bytes, segments: list[bytes]) -> bytes:
    """A JPEG with more APP1 segments."""
    more = b"".join(b"\xff\xe1" + struct.pack(">H", min(len(part), 65_533) + 2) + part[:65_533] for part in segments)
    return jpeg[:2] + more + jpeg[2:]


def with_chunks(png: bytes, chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG with more chunks after its header."""
    return png[:33] + b"".join(chunk(name, data) for name, data in chunks) + png[33:]


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def decompression_bombs(rng: random.Random, folder: Path, stem: str) -> bool:
    """Few bytes that become many: in pixels, in passes, in tiles, in text, or as a file with a hole of gigabytes."""
    bomb = rng.choice(BOMBS)
    suffix, data = bomb(rng)
    path = folder / f"{stem}{suffix}"
    path.write_bytes(data)
    if rng.random() < 0.02:
        os.truncate(path, rng.choice((500_000_000, 10**11)))
    return ANY


def large_side(rng: random.Random) -> int:
    """A side in pixels that is too long with another of its kind."""
    return rng.choice((8000, 20_000, 50_000, 65_500))


def png_by_header(rng: random.Random) -> tuple[str, bytes]:
    """A PNG that says it is huge."""
    data = bytearray(written(picture(rng), "PNG"))
    data[16:24] = struct.pack(">LL", large_side(rng), rng.choice((large_side(rng), 2**31 - 1)))
    data[29:33] = struct.pack(">L", zlib.crc32(data[12:29]))
    return ".png", bytes(data)


def png_of_zeros(rng: random.Random) -> tuple[str, bytes]:
    """A PNG that is nearly as large as any that is decoded, or a bit over that, and has a few kilobytes."""
    width, depth, colour, channels = rng.choice(((7700, 8, 6, 4), (7700, 16, 2, 3), (7800, 8, 2, 3)))
    if rng.random() < 0.9:
        width //= 10
    header = struct.pack(">LLBBBBB", width, width, depth, colour, 0, 0, rng.choice((0, 1)))
    packer = zlib.compressobj(9)
    row = bytes(1 + width * channels * depth // 8)
    packed = b"".join(packer.compress(row * 100) for _ in range(width // 100)) + packer.flush()
    return ".png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def png_of_chunks(rng: random.Random) -> tuple[str, bytes]:
    """A PNG of very many, or of bloated, chunks."""
    name, data = rng.choice(((b"teSt", b""), (b"tEXt", b"a\0b"), (b"zTXt", b"a\0\0" + zlib.compress(bytes(10**6)))))
    return ".png", with_chunks(written(picture(rng), "PNG"), [(name, data)] * rng.choice((10, 1000, 20_000)))


def gif_by_header(rng: random.Random) -> tuple[str, bytes]:
    """A GIF that says it is huge, or is of very many extensions."""
    data = bytearray(written(picture(rng, "P"), "GIF"))
    if rng.random() < 0.5:
        data[6:10] = struct.pack("<HH", large_side(rng), large_side(rng))
        return ".gif", bytes(data)
    start = 13 + 3 * (2 << (data[10] & 7))
    return ".gif", bytes(data[:start] + b"!\xfe\x01a\0" * rng.choice((10, 1000, 100_000)) + data[start:])


def bmp_by_header(rng: random.Random) -> tuple[str, bytes]:
    """A BMP that says it is huge."""
    data = bytearray(written(picture(rng), "BMP"))
    data[18:26] = struct.pack("<ll", large_side(rng), large_side(rng))
    return ".bmp", bytes(data)


def tiff_by_header(rng: random.Random) -> tuple[str, bytes]:
    """A TIFF of a huge size, of huge tiles, or of a million strips."""
    side, what = large_side(rng), rng.randrange(3)
    size = side if what == 0 else 100
    packed = zlib.compress(bytes(1 << 22))
    strips = rng.choice((1000, 100_000, 1_000_000))
    entries = {256: size, 257: size, 258: 8, 259: 8 if what == 1 else 1, 262: 1, 277: 1}
    entries |= {322: side, 323: side, 325: len(packed)} if what == 1 else {278: size, 279: size * size}
    table = [(tag, 4, 1, struct.pack("<L", value)) for tag, value in entries.items()]
    place = struct.pack("<L", 8 + 2 + 12 * (len(table) + 1) + 4)
    table.append((324 if what == 1 else 273, 4, strips if what == 2 else 1, place))
    return ".tif", tiff(table) + (struct.pack("<L", 8) * strips if what == 2 else packed)


def webp_by_header(rng: random.Random) -> tuple[str, bytes]:
    """A WebP that says it is as large as any can be."""
    data = bytearray(written(picture(rng, "RGBA"), "WEBP", exif=b"Exif\0\0"))
    data[24:30] = struct.pack("<L", 16_382)[:3] * 2
    return ".webp", bytes(data)


def box_by_header(rng: random.Random) -> tuple[str, bytes]:
    """An AVIF or HEIC that says it is huge."""
    suffix, whole = rng.choice([base for base in bases() if base[0] in (".avif", ".heic")])
    data, place = bytearray(whole), whole.index(b"ispe")
    data[place + 8 : place + 16] = struct.pack(">LL", large_side(rng), large_side(rng))
    return suffix, bytes(data)


def jpeg_by_header(rng: random.Random) -> tuple[str, bytes]:
    """A JPEG, ordinary or progressive, that says it is huge."""
    data = bytearray(written(picture(rng), "JPEG", progressive=rng.random() < 0.7))
    place = max(data.find(b"\xff\xc0\0\x11"), data.find(b"\xff\xc2\0\x11"))
    data[place + 5 : place + 9] = struct.pack(">HH", large_side(rng), large_side(rng))
    return ".jpg", bytes(data) + bytes(rng.choice((0, 20_000)))


def jpeg_of_passes(rng: random.Random) -> tuple[str, bytes]:
    """A JPEG of some, or of very many, passes in which nothing changes."""
    side = rng.choice((100, 4000))
    data = bytearray(written(Image.new("L", (16, 16)), "JPEG", progressive=True))
    frame, scan = data.index(b"\xff\xc2"), data.index(b"\xff\xda")
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    blocks = ((side + 7) // 8) ** 2
    table = b"\xff\xc4\0\x14\x10" + bytes([1]) + bytes(15) + b"\xe0"
    bits = ("0" + "1" * 14) * (blocks // 32_767 + 1)
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    one = b"\xff\xda\0\x08\x01\x01\0\x01\x3f\0" + coded
    passes = rng.choice((5, 50, 500, 30_000))
    return ".jpg", bytes(data[: scan + 10]) + bytes(blocks // 4 + 1) + table + one * passes + b"\xff\xd9"


def jpeg_of_markers(rng: random.Random) -> tuple[str, bytes]:
    """A JPEG of empty comments, or of zeros where its header should be."""
    data = written(picture(rng), "JPEG")
    junk = rng.choice((b"\xff\xfe\0\2" * 100_000, bytes(1_500_000), b"\xff" * 1_500_000))
    return ".jpg", data[:2] + junk + data[2:]


BOMBS = (
    png_by_header,
    png_of_zeros,
    png_of_chunks,
    gif_by_header,
    bmp_by_header,
    tiff_by_header,
    webp_by_header,
    box_by_header,
    jpeg_by_header,
    jpeg_of_passes,
    jpeg_of_markers,
)


def long_strips(rng: random.Random, folder: Path, stem: str) -> bool:
    """1 x 50,000 pixels, lying or upright, or a few pixels wider."""
    format_ = rng.choice(("JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP"))
    thin, long = rng.choice((1, 1, 2, 7)), 16_383 if format_ == "WEBP" else rng.choice((50_000, 50_000, 65_000))
    mode, step = "P" if format_ == "GIF" else rng.choice(("RGB", "L")), rng.choice((1, -1))
    image = picture(rng, mode, (thin, long) if step == 1 else (long, thin))
    data = written(image, format_)
    (folder / f"{stem}{SUFFIXES[format_]}").write_bytes(data if rng.random() < 0.7 else flip(rng, data))
    return ANY


def animated(rng: random.Random, folder: Path, stem: str) -> bool:
    """Of 2 to 30 pictures, every second with bits turned."""
    format_ = rng.choice(("GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"))
    mode = "P" if format_ == "GIF" else "RGB"
    size = (rng.randrange(64, 90), rng.randrange(64, 90))
    frames = [picture(rng, mode, size) for _ in range(rng.choice((2, 3, 30)) if format_ != "AVIF" else 3)]
    data = written(frames[0], format_, save_all=True, append_images=frames[1:])
    data, must = perhaps_flip(rng, data)
    (folder / f"{stem}{SUFFIXES.get(format_, '.jpg')}").write_bytes(data)
    return must


def sixteen_bits(rng: random.Random, folder: Path, stem: str) -> bool:
    """16 bits to a channel, or 32, or floating point; every second with bits turned."""
    size = (rng.randrange(64, 120), rng.randrange(64, 120))
    noise = rng.randbytes(8 * size[0] * size[1])
    pixels = size[0] * size[1]
    match rng.randrange(6):
        case 0:
            suffix, data = ".png", written(Image.frombytes("I;16", size, noise[: 2 * pixels]), "PNG")
        case 1:
            suffix, data = ".tif", written(Image.frombytes("I;16", size, noise[: 2 * pixels]), "TIFF")
        case 2:
            suffix, data = ".tif", written(Image.frombytes("I;16B", size, noise[: 2 * pixels]), "TIFF")
        case 3:
            suffix, data = ".tif", written(Image.frombytes("I", size, noise[: 4 * pixels]), "TIFF")
        case 4:
            suffix, data = ".tif", written(Image.frombytes("F", size, noise[: 4 * pixels]), "TIFF")
        case _:
            colour, channels = rng.choice(((2, 3), (4, 2), (6, 4)))
            rows = [b"\0" + noise[i : i + 2 * channels * size[0]] for i in range(size[1])]
            header = struct.pack(">LLBBBBB", *size, 16, colour, 0, 0, 0)
            parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows), 1)) + chunk(b"IEND", b"")
            suffix, data = ".png", b"\x89PNG\r\n\x1a\n" + parts
    data, must = perhaps_flip(rng, data)
    (folder / f"{stem}{suffix}").write_bytes(data)
    return must


def cmyk(rng: random.Random, folder: Path, stem: str) -> bool:
    """CMYK without a profile, or with one of another space; every second with bits turned."""
    format_ = rng.choice(("JPEG", "TIFF"))
    profile = rng.choice((None, None, rng.randbytes(500)))
    data, must = perhaps_flip(rng, written(picture(rng, "CMYK"), format_, icc_profile=profile))
    (folder / f"{stem}{SUFFIXES[format_]}").write_bytes(data)
    return must


def wrong_extension(rng: random.Random, folder: Path, stem: str) -> bool:
    """A picture called something else, or something else called a picture."""
    if rng.random() < 0.3:
        text = rng.choice(
            (b"", b"hello", b"BM a list", b"%PDF-1.4", b"PK\3\4", b"\x89PN", b"\xff\xd8\xff", b"RIFF", b"II*\0")
        )
        suffix = rng.choice(list(SUFFIXES.values()))
        (folder / f"{stem}{suffix}").write_bytes(text + rng.randbytes(rng.choice((0, 10, 5000))))
        return ANY
    data = written(picture(rng), rng.choice(list(SUFFIXES)))
    suffix = rng.choice((*SUFFIXES.values(), ".heic", ".txt", ".mp4", ".JPG", ".jpeg.exe", "", ".dng"))
    (folder / f"{stem}{suffix}").write_bytes(data)
    return suffix != ".dng"


# ---- files


def links(rng: random.Random, folder: Path, stem: str) -> bool:
    """Links that lead round in a circle, nowhere, far, or to what is no file."""
    path, other = folder / f"{stem}.jpg", folder / f"{stem}-b.jpg"
    match rng.randrange(8):
        case 0:
            path.symlink_to(path)
        case 1:
            path.symlink_to(other)
            other.symlink_to(path)
        case 2:
            path.symlink_to(rng.choice((".", "..", "/")))
        case 3:
            path.symlink_to(rng.choice(("/dev/zero", "/dev/null", "/dev/full", "/proc/self/mem")))
        case 4:
            path.symlink_to("nowhere.jpg" if rng.random() < 0.5 else "x" * rng.choice((255, 300, 4000)))
        case 5:
            chain = [folder / f"{stem}-{place}.jpg" for place in range(rng.choice((3, 60)))]
            for each, following in zip(chain, [*chain[1:], path], strict=True):
                each.symlink_to(following.name)
            path.write_bytes(written(picture(rng), "JPEG"))
        case 6:
            path.symlink_to(f"{stem}.jpg/{stem}.jpg")
        case _:
            away = folder.parent / f"{folder.name}-away-{stem}.jpg"
            away.write_bytes(written(picture(rng), "JPEG"))
            path.symlink_to(away)
            return KEPT
    return ANY


def unreadable(rng: random.Random, folder: Path, stem: str) -> bool:
    """Files that may not be read, and what is no file at all."""
    path = folder / f"{stem}{rng.choice(list(SUFFIXES.values()))}"
    match rng.randrange(5):
        case 0 | 1:
            path.write_bytes(written(picture(rng), "JPEG"))
            path.chmod(rng.choice((0, 0o200, 0o111)))
        case 2:
            os.mkfifo(path)
        case 3:
            path.mkdir(mode=rng.choice((0, 0o755)))
        case _:
            home = os.getcwd()
            os.chdir(folder)  # the path of a socket may have 107 bytes
            try:
                with socket.socket(socket.AF_UNIX) as opened:
                    opened.bind(path.name)
            finally:
                os.chdir(home)
    return ANY


# ---- names


def named(*names: str) -> Maker:
    """A photo, most of them whole, under a name made of one of these, `*` being what makes it one of its kind."""

    def make(rng: random.Random, folder: Path, stem: str) -> bool:
        name = rng.choice(names).replace("*", stem)
        suffix, data = rng.choice(bases()[:-1])
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name.encode("utf-8", "surrogateescape")))
        is_whole = rng.random() < 0.75  # the names of others are printed
        path.with_name(path.name + suffix).write_bytes(unique(rng, data) if is_whole else data[: rng.randrange(60)])
        return KEPT if is_whole else ANY

    return make


def longest_name(rng: random.Random, folder: Path, stem: str) -> bool:
    """A name of 255 bytes, of letters of one to four bytes."""
    suffix, data = rng.choice(bases()[:-1])
    letter = rng.choice("aäの😀")
    room = 255 - len(stem) - len(suffix)
    name = stem + letter * (room // len(letter.encode())) + "b" * (room % len(letter.encode())) + suffix
    (folder / name).write_bytes(unique(rng, data))
    return KEPT


ESCAPES = ("\x1b[2J*", "\x1b]0;title\x07*", "*\r", "*\x08\x08", "*\x7f\x85", "\u202e*gpj", "*\x0b\x0c")

KINDS: dict[str, Maker] = {
    "bit flips": bit_flips,
    "truncated": truncation,
    "swapped segments": swapped_segments,
    "EXIF bombs": exif_bombs,
    "decompression bombs": decompression_bombs,
    "1 x 50,000 strips": long_strips,
    "animated": animated,
    "16 bits and more": sixteen_bits,
    "CMYK without profile": cmyk,
    "wrong extension": wrong_extension,
    "links that loop, dangle, lead away": links,
    "unreadable": unreadable,
    "names with a line's end": named("*\n", "\n*", "*\nError: all is lost", "*\r\n", "*\u2028", "*\x1c"),
    "names with control characters": named(*ESCAPES),
    "names with emoji, other scripts, no UTF-8": named(
        "*😀", "👩‍👩‍👧*", "*の写真", "*\u05d0\u05d1", "*e\u0301", "*\udcff", "\udce9*"
    ),
    "names with [red]": named(
        "[red]*", "*[-]", "[bold]*[-bold]", "[link=x]*", ":smile:*", "*[identifier]", "[@click=x]*"
    ),
    "names with quotes": named(
        "*'", '*"', '"*"', "'*'; rm -rf x", "$(touch *)", "`*`", "*\\", "%s*", "{0}*", "--*", "* "
    ),
    "names of 255 bytes": longest_name,
}


def make(kind: str, number: int, folder: Path) -> bool:
    """Write mutant `number` of a kind; whether it must be used."""
    return KINDS[kind](random.Random(f"{kind}-{number}"), folder, f"{number:05d}")
