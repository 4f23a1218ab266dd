"""Pictures that the tool makes: written with what made them in the PNG's text chunks, and never over another file."""

import itertools
import json
import math
import os
import re
from base64 import b64encode
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from ..disk import make_folder, sync, temporary
from ..errors import UsageError
from .crop import Size
from .sheet import FAINT, INK, drawable, font_for, shorten

MOST_GRID = 64_000_000  # pixels of a sheet, 3 bytes each in memory
SMALLEST_TILE, GAP = 32, 4  # pixels
READABLE, LABEL = 192, 42  # pixels: a tile of that side can be written beneath, in two lines
AS_IT_IS = 128  # pixels: up to here a PNG is small, and a JPEG would blur
# that a picture was made by a model, in the words of the IPTC (Photo Metadata Standard 2023.1), which Google and others read
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    'Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def save_new(image: Image.Image, folder: Path, stem: str, text: Mapping[str, str]) -> Path:
    """Write a PNG under a name that is still free, `stem.png`, `stem-2.png`, ..., and return its path. Its XMP says that a model made
    it."""
    make_folder(folder)
    info = PngInfo()
    for key, value in text.items():
        info.add_itxt(key, value)
    info.add_itxt("XML:com.adobe.xmp", XMP)
    with temporary(folder) as part:
        image.save(part, format="PNG", pnginfo=info)
        sync(part)
        return _take_free_name(part, folder, stem)


def _take_free_name(part: Path, folder: Path, stem: str) -> Path:
    """Give a finished picture the next name that is free, also where another process looks for one."""
    for number in itertools.count(1):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        try:
            os.link(part, path)
        except FileExistsError:
            continue
        except OSError:  # a file system that has no links
            if os.path.lexists(path):
                continue
            part.rename(path)
        break
    part.unlink(missing_ok=True)  # before the sync: the disk keeps one name or the other
    sync(folder)
    return path


def read_picture(path: Path) -> Image.Image:
    """A picture of ours from disk, as RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def stem_of(prompt: str, seed: int, label: str = "") -> str:
    """A file name that tells a picture: the prompt's words, cut short, a label (`run2-step600`), and its seed."""
    words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-")
    return "-".join(filter(None, [words.encode()[:60].decode(errors="ignore").strip("-") or "picture", label, f"seed{seed}"]))


# What others call the schedulers of diffusers.
SAMPLERS = {
    "PNDMScheduler": "PLMS",
    "DDIMScheduler": "DDIM",
    "DDPMScheduler": "DDPM",
    "EulerDiscreteScheduler": "Euler",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "UniPCMultistepScheduler": "UniPC",
    "LMSDiscreteScheduler": "LMS",
    "HeunDiscreteScheduler": "Heun",
}


def with_parameters(text: Mapping[str, str]) -> dict[str, str]:
    """A picture's text chunks with `parameters` before them: the same in the form of AUTOMATIC1111's web UI, which other tools read."""
    negative = f"\nNegative prompt: {text['negative_prompt']}" if text["negative_prompt"] else ""
    pairs = {
        "Steps": text["steps"],
        "Sampler": SAMPLERS.get(text["scheduler"], text["scheduler"]),
        "CFG scale": text["guidance_scale"],
        "Seed": text["seed"],
        "Size": text["size"],
        "Model": json.dumps(text["model"]) if re.search(r"[,:\n\"]", text["model"]) else text["model"],
        "Version": "dreambooth",
    }
    told = ", ".join(f"{name}: {value}" for name, value in pairs.items())
    return {"parameters": f"{text['prompt']}{negative}\n{told}", **text}


class Grid:
    """All pictures of a call on one sheet, as square as their number allows, white between them; what each is stands beneath it.

    Each is pasted when it comes, so that none need be kept. `tile` is the size that a picture has there: its own; a whole multiple, where
    that is too small to write beneath; or a smaller one, where all of them would have more than 64 megapixels. `columns`: how many in a
    row, if not as many as rows.
    """

    def __init__(self, count: int, size: Size, *, columns: int | None = None) -> None:
        """A sheet for `count` pictures of one size. Raises UsageError where there are too many for any sheet."""
        self._columns = columns or math.ceil(math.sqrt(count))
        rows = math.ceil(count / self._columns)
        times = max(1, math.ceil(READABLE / min(size))) if count * READABLE**2 <= MOST_GRID else 1
        self.tile = _tile_of((size[0] * times, size[1] * times), self._columns * rows)
        if min(self.tile) < min(SMALLEST_TILE, *size):
            raise UsageError(
                f"{count:,} pictures are too many for one grid", "leave out --grid, or draw fewer in one call: --num-images 1000"
            )
        width, height = self.tile
        self.label = LABEL if min(self.tile) >= READABLE else 0
        self.sheet = Image.new("RGB", (self._columns * (width + GAP) - GAP, rows * (height + self.label + GAP) - GAP), "white")
        self._pasted = 0

    def add(self, image: Image.Image, prompt: str = "", detail: str = "") -> None:
        """Put a picture in the next place, with its prompt and a line of detail beneath it where they can be read."""
        row, column = divmod(self._pasted, self._columns)
        width, height = self.tile
        how = Image.Resampling.NEAREST if image.width < width else Image.Resampling.LANCZOS
        small = image if image.size == self.tile else image.resize(self.tile, how)
        left, top = column * (width + GAP), row * (height + self.label + GAP)
        self.sheet.paste(small, (left, top))
        if self.label and (prompt or detail):
            pen = ImageDraw.Draw(self.sheet)
            for line, (text, ink) in enumerate(((drawable(prompt), INK), (drawable(detail), FAINT))):
                font = font_for(text, 14)
                pen.text((left + 2, top + height + 3 + 18 * line), shorten(text, width - 4, font), fill=ink, font=font)
        self._pasted += 1


def _tile_of(size: Size, places: int) -> Size:
    """The largest size in the shape of `size`, and no larger, of which so many with their gaps are within MOST_GRID."""
    width, height = size
    # (width s + GAP) (height s + GAP) places = MOST_GRID
    a, b, c = width * height, (width + height) * GAP, GAP * GAP - MOST_GRID / places
    scale = min(1.0, (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a))
    return max(0, math.floor(width * scale)), max(0, math.floor(height * scale))


def text_of(path: Path) -> dict[str, str]:
    """What a picture of ours says of its making; nothing where it is no PNG that can be read."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return {key: str(value) for key, value in getattr(image, "text", {}).items()}
    except (OSError, ValueError, SyntaxError):
        return {}


def data_uri(image: Image.Image, side: int) -> str:
    """A picture for a page that needs no file beside it, of at most `side` pixels: a small one as it is, a larger one as a JPEG."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    kind, data = "png" if max(small.size) <= AS_IT_IS else "jpeg", BytesIO()
    small.save(data, format=kind, quality=85)
    return f"data:image/{kind};base64,{b64encode(data.getvalue()).decode('ascii')}"
