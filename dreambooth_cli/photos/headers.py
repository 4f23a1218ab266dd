"""What a picture's header promises, held against what a photo may take, before a decoder sees it.

A file of a few kilobytes can promise gigabytes, or hours: as pixels, as passes over them, as tags.
"""

import re
import struct
import zlib
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, BinaryIO

from ..errors import PhotoError

MOST_PIXELS = 60_000_000  # decoded at once; a JPEG is decoded smaller, whatever else is larger is refused by its header
MOST_BYTES = 400_000_000  # of a file: 60 megapixels of 16 bits in three colours
MOST_BYTES_HELD = 100_000_000  # of a file that its decoder takes into memory whole, twice or more
MOST_READS = 1_000_000  # of a file by Pillow: of 60 megapixels it takes 200,000 at the most
MOST_VALUES = 300_000_000  # of a JPEG that comes in several passes, 2 bytes each: all of them are held
MOST_PASSES = 100  # over a JPEG: encoders write about 10
MOST_EXIF = 4_000_000  # bytes: a camera's has 64 KB at the most
MOST_TAGS = 64_000_000  # bytes of a TIFF's tags
MOST_STRIPS = 800_000  # bytes that say where a TIFF's strips or tiles begin: 100,000 of them

MOST_HEAD = 2048  # bytes that say what a file is
MOST_PROFILE = 4_000_000  # bytes of a colour profile, unpacked
MOST_TEXT = 1_000_000  # bytes of a PNG's text that may hold how the picture is turned

FIRST, LAST = 0xD8, 0xD9  # markers of a JPEG: of its start and end
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
LOSSLESS = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF} - PROGRESSIVE
APP1, SCAN = 0xE1, 0xDA
BARE = {0x01, *range(0xD0, 0xDA)}  # markers without a segment

STRIP_OFFSETS, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS = 273, 322, 323, 324
# A PNG's chunks that shape its pixels; of its texts, the two that may say how it is turned.
PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"gAMA", b"cHRM", b"sRGB"}
TURNING_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
PNG_START = b"\x89PNG\r\n\x1a\n"
SUBFILE, DNG_VERSION = 254, 50_706  # tags of a TIFF
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


class PatientFile:
    """A file that can be read so many times: Pillow looks at some files byte by byte, or piece by empty piece, for hours."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._reads = file, 0

    def read(self, size: int = -1) -> bytes:
        """As a file's. Raises PhotoError where the patience ends."""
        self._reads += 1
        if self._reads > MOST_READS:
            raise PhotoError("damaged: it is in more pieces than any picture")
        return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Extract:
    """Pieces of a file, read as if they were a file of their own."""

    def __init__(self, file: PatientFile, pieces: list[tuple[int, int]]) -> None:
        """`pieces` are places and lengths in bytes, in their order."""
        self._file, self._pieces, self._place = file, pieces, 0
        self._starts = [0, *accumulate(length for _, length in pieces)]

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        wanted = self._starts[-1] - self._place if size is None or size < 0 else size
        parts = []
        while wanted > 0 and self._place < self._starts[-1]:
            number = bisect(self._starts, self._place) - 1
            (place, length), inside = self._pieces[number], self._place - self._starts[number]
            self._file.seek(place + inside)
            parts.append(self._file.read(min(wanted, length - inside)))
            self._place += len(parts[-1])
            wanted -= len(parts[-1])
            if not parts[-1]:
                break  # cut off while it is read
        return b"".join(parts)

    def seek(self, place: int, whence: int = 0) -> int:
        """As a file's."""
        self._place = max(0, place + (0, self._place, self._starts[-1])[whence])
        return self._place

    def tell(self) -> int:
        """As a file's."""
        return self._place


def pixels_of_png(file: PatientFile) -> Extract:
    """A PNG without what Pillow would read into memory, or refuse, though no pixel depends on it: texts, other programs' chunks,
    a profile or EXIF too large to be one."""
    file.seek(0, 2)
    end, place = file.tell(), len(PNG_START)
    pieces, once = [(0, place)], set()
    while place < end:
        file.seek(place)
        head = file.read(8)
        length = min(12 + int.from_bytes(head[:4], "big"), end - place)
        what = _what_is_kept(file, head[4:], length - 12)
        if what is not None and what not in once:
            before, size = pieces[-1]
            if before + size == place:
                pieces[-1] = (before, size + length)
            else:
                pieces.append((place, length))
            once |= {what} - PIXEL_CHUNKS
        place += length
        if head[4:] == b"IEND":
            break
    return Extract(file, pieces)


def _what_is_kept(file: PatientFile, name: bytes, length: int) -> bytes | None:
    """The name of the chunk whose content the file stands at, a text's keyword with it; None where it is left out."""
    if name in PIXEL_CHUNKS or len(name) < 4:
        return name
    if name == b"eXIf":
        return name if length <= MOST_EXIF else None
    if name == b"iCCP" and length <= MOST_PROFILE:
        packed = file.read(max(0, length)).partition(b"\0")[2]
        return name if packed[:1] == b"\0" and _unpacks_within(packed[1:], MOST_PROFILE) else None
    if name in (b"tEXt", b"zTXt", b"iTXt") and length <= MOST_TEXT:
        text = file.read(max(0, length))
        if text.startswith(TURNING_TEXTS) and _text_unpacks(name, text):
            return text.partition(b"\0")[0]
    return None


def _text_unpacks(name: bytes, text: bytes) -> bool:
    """Whether a text that is packed unpacks to no more than MOST_TEXT."""
    _, _, rest = text.partition(b"\0")
    if name == b"iTXt" and rest[:1] == b"\1":
        return _unpacks_within(rest[2:].partition(b"\0")[2].partition(b"\0")[2], MOST_TEXT)
    return name != b"zTXt" or _unpacks_within(rest[1:], MOST_TEXT)


def _unpacks_within(data: bytes, most: int) -> bool:
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(data, most)
    except zlib.error:
        return False
    return not unpacking.unconsumed_tail


def check_pixels(size: tuple[int, int], *, most: int = MOST_PIXELS) -> None:
    """Raises PhotoError where a picture of this size has too many pixels to be decoded."""
    if size[0] * size[1] > most:
        raise PhotoError(f"too large: {size[0]} × {size[1]} pixels, at most {most // 10**6} megapixels are read")


def check_jpeg(file: PatientFile) -> None:
    """Raises PhotoError where a JPEG's passes or its EXIF would take too much: `draft` does not make those smaller."""
    exif, frame = 0, b""
    for marker, segment in _segments(file):
        exif += len(segment) if marker == APP1 and segment.startswith(b"Exif") else 0
        if exif > MOST_EXIF:
            raise PhotoError(f"damaged: its EXIF has more than {MOST_EXIF // 10**6} MB")
        if marker in FRAMES and not frame:
            frame = bytes([marker]) + segment
            _check_frame(frame)
        if marker == SCAN and len(frame) > 6 and segment:
            in_passes = frame[0] in PROGRESSIVE or segment[0] < frame[6]
            if in_passes:
                _check_passes(file, frame)
            return


def _check_frame(frame: bytes) -> None:
    """Raises PhotoError for the kinds of JPEG that no decoder here reads."""
    if frame[0] in LOSSLESS or frame[1:2] not in (b"", b"\x08"):
        kind = "a lossless JPEG" if frame[0] in LOSSLESS else f"a JPEG of {frame[1]} bits"
        raise PhotoError(f"{kind}, which is not read: save it as an ordinary jpg or png")


def _segments(file: PatientFile) -> Iterator[tuple[int, bytes]]:
    """The markers of a JPEG up to its first scan, each with its segment."""
    file.seek(0)
    before = b""
    while byte := file.read(1):
        if before != b"\xff" or byte in b"\x00\xff":
            before = byte
            continue
        before, marker = b"", byte[0]
        if marker in BARE:
            yield marker, b""
            continue
        length = int.from_bytes(file.read(2), "big")
        yield marker, file.read(max(0, length - 2))
        if marker == SCAN:
            return


def _check_passes(file: PatientFile, frame: bytes) -> None:
    """Raises PhotoError where a JPEG that comes in passes has too many values, or too many passes."""
    height, width, count = struct.unpack(">HHB", frame[2:7])
    sampling = [(each >> 4, each & 15) for each in frame[8 : 7 + 3 * count : 3]]
    across, down = (max((pair[place] for pair in sampling), default=0) or 1 for place in (0, 1))
    values = width * height * sum(x * y for x, y in sampling) // (across * down)
    if values > MOST_VALUES:
        raise PhotoError(
            f"too large: {width} × {height} pixels in a progressive JPEG, which can't be read smaller than it is; "
            "save it as an ordinary one"
        )
    passes, before = 1, b""
    while chunk := file.read(1 << 20):
        for mark in re.finditer(rb"\xff([\xd9\xda])", before + chunk):
            if mark[1][0] == LAST:
                return
            passes += 1
            if passes > MOST_PASSES:
                raise PhotoError(f"damaged: a JPEG in more than {MOST_PASSES} passes")
        before = chunk[-1:] if chunk.endswith(b"\xff") else b""


def check_tiff(file: PatientFile) -> None:
    """Raises PhotoError where a TIFF's tags, strips or tiles would take too much."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    (version,) = struct.unpack(order + "H", head[2:4])
    start, counter, entry = ("Q", "Q", "HHQ8s") if version == 43 else ("L", "H", "HHL4s")
    (place,) = struct.unpack_from(order + start, head, 8 if version == 43 else 4)
    file.seek(place)
    (count,) = struct.unpack(order + counter, file.read(struct.calcsize(order + counter)))
    form = struct.Struct(order + entry)
    table = file.read(min(count, 65_535) * form.size)
    sizes: dict[int, int] = {}
    tile = {TILE_WIDTH: 0, TILE_LENGTH: 0}
    for tag, kind, number, value in form.iter_unpack(table[: len(table) // form.size * form.size]):
        sizes[tag] = number * TYPE_BYTES.get(kind, 0)
        if tag == DNG_VERSION or (tag == SUBFILE and value[:4] in (b"\1\0\0\0", b"\0\0\0\1")):
            # what comes first in a camera's raw file is its thumbnail
            raise PhotoError("a camera's raw file: save it as jpg first")
        if tag in tile:
            (tile[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "L"), value)
    if sum(sizes.values()) > MOST_TAGS:
        raise PhotoError(f"too large: its tags alone (layers, thumbnails) have more than {MOST_TAGS // 10**6} MB")
    if max(sizes.get(STRIP_OFFSETS, 0), sizes.get(TILE_OFFSETS, 0)) > MOST_STRIPS:
        raise PhotoError("damaged: it is in more pieces than any picture")
    check_pixels((tile[TILE_WIDTH], tile[TILE_LENGTH]))
