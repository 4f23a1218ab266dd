"""How a photo's file becomes upright RGB pixels, and a part of these a training picture. What is damaged is refused with a reason."""

import hashlib
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import BinaryIO, cast

from PIL import (
    ExifTags,
    Image,
    ImageChops,
    ImageCms,
    ImageStat,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)

from ..disk import sha256_of
from ..errors import PhotoError
from .crop import Box, Size, scaled_box, size_of, within
from .headers import (
    MOST_EXIF,
    MOST_PIXELS,
    MOST_PROFILE,
    PNG_START,
    PatientFile,
    check_jpeg,
    check_pixels,
    check_tiff,
    pixels_of_png,
)

# "JPEG" opens MPO too, a JPEG with a second picture, as phones write it
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")
TIFF = re.compile(rb"II[*+]\x00|MM\x00[*+]")
HEIF_MAGIC = re.compile(rb"....ftyp(he[iv][cxms]|m[is]f1)", re.DOTALL)
MOST_PIXELS_OF = {"WEBP": 50_000_000}  # whose decoder holds each pixel four times
MOST_TOGETHER = 16_000_000  # pixels of a photo that is read beside others
BAND = 1 << 22  # pixels that are converted at a time: copies of 60 megapixels would fill the memory
# what libraries say where a file ends too early
CUT_OFF = ("truncated", "not enough", "end of file", "unexpected end", "premature", "requires a buffer")
PLANAR, BITS = 284, 258  # tags of a TIFF
OF_PICTURES = ("scnr", "mntr", "prtr", "spac")  # the classes of profiles that say what a picture's numbers mean
FORMER_LEVEL = 6  # of compression, up to 0.2 and where files are still known by their bytes
ROUNDING = 3  # of 255, by which profiles of sRGB itself differ
WHITE, BLACK = (255, 255, 255, 255), (0, 0, 0, 255)
Colour = tuple[int, int, int, int]
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Photo:
    """A photo as upright RGB pixels. `size` is the photo's own upright size; a large JPEG is decoded to fewer pixels."""

    image: Image.Image
    size: Size


def read_photo(path: Path, side: int, *, under: Colour = WHITE) -> Photo:
    """A photo's first picture, upright, in RGB, `under` where it is transparent. A JPEG whose shorter side is far over `side` pixels is
    decoded smaller.

    Raises PhotoError, whose message is the reason alone: `cut off: the file is not whole`.
    """
    with _quiet:
        try:
            size, orientation, pixels = _decoded(path, side, under)
        except PhotoError:
            raise
        except UnidentifiedImageError as error:
            raise PhotoError("damaged: no picture can be found in it") from error
        except Exception as error:  # on a damaged file Pillow's decoders raise nearly anything
            raise PhotoError(_reason(error)) from error
    turn = TURNS.get(orientation)
    turned = size if orientation < 5 else (size[1], size[0])
    return Photo(pixels.transpose(turn) if turn is not None else pixels, turned)


def _decoded(path: Path, side: int, under: Colour) -> tuple[Size, int, Image.Image]:
    """The size that the header says, the EXIF orientation and the pixels in RGB; what was decoded has left memory."""
    with path.open("rb") as file, _open(PatientFile(file)) as image:
        size = _decode(image, side)
        return size, _orientation(image), to_rgb(image, under)


class _QuietPillow:
    """Pillow without its warnings and without its own limits of pixels, which would refuse a large JPEG that `draft` can read, and
    of a PNG's profile, which is held to ours: for as long as any thread is within."""

    def __init__(self) -> None:
        self._lock, self._within = threading.Lock(), 0
        self._limits: tuple[int | None, int] = (None, 0)
        self._warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._within += 1
            if self._within > 1:
                return
            self._limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, MOST_PROFILE + 1
            self._warnings = warnings.catch_warnings()
            self._warnings.__enter__()
            warnings.simplefilter("ignore")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._warnings.__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = self._limits


_quiet = _QuietPillow()


def takes_much(path: Path, side: int) -> bool:
    """Whether reading a photo takes so much memory that no other is to be read beside it, as far as its header tells; `side` as in
    `read_photo`."""
    with suppress(Exception), _quiet, path.open("rb") as file, _open(PatientFile(file)) as image:
        if not image.info.get("progressive"):  # all passes of which are held at full size
            _draft(image, side)
        return image.width * image.height > MOST_TOGETHER
    return True


def _open(file: PatientFile) -> Image.Image:
    head = file.read(32)
    if head.startswith(b"\xff\xd8"):
        check_jpeg(file)
    elif TIFF.match(head):
        check_tiff(file)
    elif head.startswith(PNG_START):
        return Image.open(cast(BinaryIO, pixels_of_png(file)), formats=FORMATS)
    file.seek(0)
    if HEIF_MAGIC.match(head):
        import pi_heif  # a tenth of a second, and few photos need it

        pi_heif.register_heif_opener()
        return Image.open(file, formats=("HEIF", "AVIF"))
    return Image.open(file, formats=FORMATS)


def _decode(image: Image.Image, side: int) -> Size:
    """Decode the first frame, a JPEG to no fewer than twice `side` pixels; its size as the header says. Raises PhotoError."""
    size = image.size
    if _is_misread(image):
        raise PhotoError("a TIFF with each colour of 16 bits in a part of its own, which is not read: save it as png, or compressed")
    _draft(image, side)
    most = MOST_PIXELS_OF.get(image.format or "", MOST_PIXELS)
    if image.width * image.height > most:
        check_pixels(size, most=most)
    drafted = image.size != size
    image.load()
    # a TIFF is turned by Pillow as it is loaded
    return size if drafted else image.size


def _draft(image: Image.Image, side: int) -> None:
    """Have a JPEG decoded to no fewer than twice `side` pixels: twice, so that Lanczos has the last word on every pixel."""
    if image.format in ("JPEG", "MPO"):
        scale = min(1.0, 2 * side / min(image.size))
        image.draft(None, (max(1, int(image.width * scale)), max(1, int(image.height * scale))))


def _is_misread(image: Image.Image) -> bool:
    """Whether Pillow would take each byte of a colour for a pixel: uncompressed planes of a TIFF of more than 8 bits."""
    if image.format != "TIFF":
        return False
    tags = cast(TiffImagePlugin.TiffImageFile, image).tag_v2
    is_raw = any(tile[0] == "raw" for tile in cast(TiffImagePlugin.TiffImageFile, image).tile)
    return is_raw and tags.get(PLANAR) == 2 and max(tags.get(BITS, (8,))) > 8


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, of a decoded picture; 1 where it has none or its EXIF is damaged."""
    if len(image.info.get("exif", b"")) > MOST_EXIF:
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF is no reason to refuse a picture
        return 1
    return value if isinstance(value, int) and value in TURNS else 1


def _reason(error: Exception) -> str:
    words = str(error).lower()
    if any(word in words for word in CUT_OFF):
        return "cut off: the file is not whole"
    if isinstance(error, MemoryError):
        return "too large for this machine's memory"
    if isinstance(error, OSError) and error.strerror:
        return f"can't be read: {error.strerror}"
    return f"damaged: {error or type(error).__name__}"


def to_rgb(image: Image.Image, under: Colour = WHITE) -> Image.Image:
    """Any picture as 8-bit sRGB, what is transparent flattened on one colour. It carries no metadata."""
    scale = _grey_scale(image)
    mode = _eight_bits(image.crop((0, 0, 1, 1)), scale, under).mode
    transform = _srgb_transform(image.info.get("icc_profile"), mode)
    if transform is None and image.mode == "RGB" and not image.has_transparency_data:
        plain = image.crop((0, 0, *image.size))
        plain.info = {}
        return plain
    plain = Image.new("RGB", image.size)
    for box in _bands(image.size):
        band = _eight_bits(image.crop(box), scale, under)
        if transform is not None:
            band = ImageCms.applyTransform(band, transform) or band
        plain.paste(band.convert("RGB"), box[:2])
    return plain


def _bands(size: Size) -> Iterator[Box]:
    """The parts of a picture in which it is converted: whole rows of it, unless a row is longer than a band."""
    width, height = size
    across = min(width, BAND)
    down = max(1, BAND // across)
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield left, top, min(left + across, width), min(top + down, height)


def _eight_bits(image: Image.Image, scale: float | None, under: Colour) -> Image.Image:
    """A picture of any mode in 8 bits: RGB, L or CMYK. `scale` is that of deeper greys."""
    if scale is not None:
        # `convert` alone would clip 16 bits to white
        deep = image if image.mode == "F" else image.convert("I")
        return deep.point(lambda value: value * scale).convert("L")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, under), coloured).convert("RGB")
    return image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")


def _grey_scale(image: Image.Image) -> float | None:
    """By what greys of more than 8 bits are multiplied to have 8; None for any other picture."""
    if image.mode.startswith("I;16"):
        return 1 / 256
    if image.mode not in ("I", "F"):
        return None
    highest = float(cast(tuple[float, float], image.getextrema())[1])
    if image.mode == "F":
        return 255 if highest <= 1 else 1 if highest <= 255 else 255 / highest
    return 1 if highest <= 255 else 1 / 256 if highest <= 65535 else 255 / highest


def _srgb_transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours to sRGB; None where it can't be used, or does nothing: what it is called says neither."""
    if not profile or len(profile) > MOST_PROFILE:
        return None
    try:
        theirs = ImageCms.ImageCmsProfile(BytesIO(profile))
        if theirs.profile.device_class not in OF_PICTURES:
            return None
        transform = ImageCms.buildTransform(theirs, ImageCms.createProfile("sRGB"), mode, "RGB")
        colours = ImageCms.applyTransform(_samples(mode), transform)
        assert colours is not None  # it is None only where the picture is changed in place
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    flat = all(low == high for low, high in cast(list[tuple[int, int]], colours.getextrema()))
    return None if flat or (mode == "RGB" and _differ_by(colours, _samples(mode)) <= ROUNDING) else transform


def _samples(mode: str) -> Image.Image:
    """Colours from all over a mode's space, each a pixel."""
    steps = range(0, 256, 51)
    size = len(steps)
    if mode == "L":
        return Image.frombytes(mode, (256, 1), bytes(range(256)))
    values = bytes(value for colour in product(steps, repeat=len(mode)) for value in colour)
    return Image.frombytes(mode, (size, size ** (len(mode) - 1)), values)


def _differ_by(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of any value of two pictures."""
    return max(high for _, high in cast(list[tuple[int, int]], ImageChops.difference(one, other).getextrema()))


def training_picture(photo: Photo, box: Box, into: Size, *, by: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """A box of a photo, given in the photo's own pixels, as a picture of the size `into`. Where it reaches beyond the photo, there is the
    mean colour of the photo's rim, the quietest there is: a sharp or striped border would be learned; beyond a mask nothing counts."""
    inside = within(box, photo.size)
    scaled = scaled_box(inside, photo.size, photo.image.size)
    if inside == box:
        return photo.image.resize(into, by, box=scaled)
    size = size_of(box)
    left, top, right, bottom = (round((edge - box[axis % 2]) * into[axis % 2] / size[axis % 2]) for axis, edge in enumerate(inside))
    padded = Image.new(photo.image.mode, into, 0 if photo.image.mode == "L" else _rim_colour(photo.image))
    padded.paste(photo.image.resize((max(1, right - left), max(1, bottom - top)), by, box=scaled), (left, top))
    return padded


def _rim_colour(image: Image.Image) -> tuple[int, ...]:
    """The mean colour of a picture's outermost pixels, as they are in a copy of at most 64 pixels."""
    small = image.copy()
    small.thumbnail((64, 64), reducing_gap=2)
    inner = Image.new("L", small.size, 255)
    inner.paste(0, (1, 1, max(1, small.width - 1), max(1, small.height - 1)))
    return tuple(round(value) for value in ImageStat.Stat(small, inner).mean)


def save_png(image: Image.Image, path: Path, level: int = FORMER_LEVEL) -> str:
    """Write a picture without any metadata, so hard compressed (1 to 9); the file's sha256."""
    image.save(path, format="PNG", compress_level=level)
    return sha256_of(path)


def pixels_digest(image: Image.Image) -> str:
    """sha256 of what a picture shows, however it is written."""
    return hashlib.sha256(f"{image.mode} {image.width} {image.height} ".encode() + image.tobytes()).hexdigest()


def former_digest(path: Path) -> str:
    """sha256 of a picture as the versions up to 0.2 wrote it, by which their runs know it."""
    written = BytesIO()
    with Image.open(path) as image:
        image.load()
        image.copy().save(written, format="PNG", compress_level=FORMER_LEVEL)
    return hashlib.sha256(written.getvalue()).hexdigest()
