"""Damaged copies of real photos, each damage at three strengths (0, 1, 2), drawn from a seed.

Lengths are shares of the photo's shorter side, so that a strength means the same to a photo of any size.
"""

from collections.abc import Callable
from io import BytesIO
from math import log2
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

FEATHER = 0.12  # of a subject that is set into another place
LARGEST = 0.8  # of that place's side
GREY = 0.18  # of the light, that a well exposed photo has on average
SIDE = 1024  # pixels of a photo's longer side before it is damaged
Shares = tuple[float, float, float, float]  # a box: left, top, right, bottom as shares of the sides
Damage = Callable[[Image.Image, Shares, int, Random], Image.Image]


def opened(data: bytes | Image.Image) -> Image.Image:
    """A photo in RGB, no longer than SIDE."""
    image = ImageOps.exif_transpose(Image.open(BytesIO(data)) if isinstance(data, bytes) else data).convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return image


def as_jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """A photo as a file."""
    file = BytesIO()
    image.save(file, format="JPEG", quality=quality)
    return file.getvalue()


def defocus(image: Image.Image, box: Shares, strength: int, random: Random) -> Image.Image:
    """All of it out of focus: at 512 pixels by 1.5, 3 or 6 (the sigma of a Gaussian)."""
    return image.filter(ImageFilter.GaussianBlur(min(image.size) * (0.003, 0.006, 0.012)[strength]))


def motion(image: Image.Image, box: Shares, strength: int, random: Random) -> Image.Image:
    """The camera moved along a line of any direction, by 1.5, 3 or 6% of the side."""
    length = min(image.size) * (0.015, 0.03, 0.06)[strength]
    angle, steps = random.uniform(0, np.pi), max(3, round(length))
    pixels, total = np.asarray(image, np.float32), np.zeros((image.height, image.width, 3), np.float32)
    for part in np.linspace(-0.5, 0.5, steps):
        across, down = (round(float(part * length * way)) for way in (np.cos(angle), np.sin(angle)))
        total += _shifted(pixels, across, down)
    return _picture(total / steps)


def _shifted(pixels: np.ndarray, across: int, down: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    rows = np.clip(np.arange(height) + down, 0, height - 1)
    return pixels[rows][:, np.clip(np.arange(width) + across, 0, width - 1)]


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def dark(image: Image.Image, box: Shares, strength: int, random: Random) -> Image.Image:
    """Underexposed by 2, 3 or 4 stops."""
    return _exposed(image, -(2, 3, 4)[strength])


def burnt_out(image: Image.Image, box: Shares, strength: int, random: Random) -> Image.Image:
    """Overexposed by 1, 2 or 3 stops; a dark photo, which so many would only set right, is brought to middle grey first."""
    light = float(np.mean((np.asarray(image, np.float32) / 255) ** 2.2))
    return _exposed(image, (1, 2, 3)[strength] + max(0.0, log2(GREY / light)))


def _exposed(image: Image.Image, stops: float) -> Image.Image:
    return image.point([min(255, round(255 * ((value / 255) ** 2.2 * 2.0**stops) ** (1 / 2.2))) for value in range(256)] * 3)


def near_duplicate(image: Image.Image, box: Shares, strength: int, random: Random) -> Image.Image:
    """Nearly the same picture: mirrored, cut at its edges, resized, brightened, written again; the strongest is all of it at once."""
    ways = ["mirror", "crop", "resize", "light", "write"]
    chosen = {random.choice(ways)} if strength == 0 else set(random.sample(ways, 2)) if strength == 1 else set(ways)
    if "mirror" in chosen:
        image = ImageOps.mirror(image)
    if "crop" in chosen:
        kept = (0.97, 0.94, 0.9)[strength]
        width, height = round(image.width * kept), round(image.height * kept)
        left, top = random.randint(0, image.width - width), random.randint(0, image.height - height)
        image = image.crop((left, top, left + width, top + height))
    if "resize" in chosen:
        scale = (0.8, 0.6, 0.5)[strength]
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    if "light" in chosen:
        gain = random.choice((1 - 0.08 * (strength + 1), 1 + 0.08 * (strength + 1)))
        image = image.point([min(255, round(value * gain)) for value in range(256)] * 3)
    if "write" in chosen:
        image = Image.open(BytesIO(as_jpeg(image, (70, 45, 25)[strength]))).convert("RGB")
    return image


def screenshot(image: Image.Image, box: Shares, strength: int, random: Random) -> Image.Image:
    """A phone's screen round it: its bars alone, an app's bars with buttons, or half of a page with a text below the photo."""
    is_dark = random.random() < 0.5
    paper, ink = ((18, 18, 20), (235, 235, 235)) if is_dark else ((250, 250, 250), (25, 25, 25))
    width = 720
    photo = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    above, below = ((60, 70), (150, 200), (170, 620))[strength]
    screen = Image.new("RGB", (width, above + photo.height + below), paper)
    screen.paste(photo, (0, above))
    pen = ImageDraw.Draw(screen)
    _write(pen, (30, 16), f"{random.randint(0, 23)}:{random.randint(0, 59):02}", ink, 26)
    pen.rectangle((width - 80, 20, width - 40, 38), outline=ink, width=2)
    pen.rectangle((width - 78, 22, width - 78 + random.randint(6, 34), 36), fill=ink)
    _write(pen, (width - 180, 16), "LTE", ink, 26)
    if strength:
        _write(pen, (90, above - 76), random.choice(("holiday", "for you", "marie.photo", "Album 3")), ink, 34)
        pen.ellipse((24, above - 82, 74, above - 32), outline=ink, width=3)
    bottom = above + photo.height
    for place in range(4 if strength else 1):
        x = 60 + place * 110 if strength else width // 2 - 100
        shape = (x, bottom + 24, x + 44, bottom + 68) if strength else (x, bottom + 40, x + 200, bottom + 47)
        pen.rounded_rectangle(shape, 8, outline=ink, fill=None if strength else ink, width=3)
    for line in range(8 if strength == 2 else 0):
        words = " ".join(random.choice(("so", "nice", "where", "is", "this", "look", "at", "him", "lovely", "today")) for _ in range(7))
        _write(pen, (40, bottom + 110 + 56 * line), words, ink, 28)
    return screen


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], words: str, ink: tuple[int, int, int], size: int) -> None:
    pen.text(place, words, fill=ink, font=ImageFont.load_default(size))


def border(image: Image.Image, box: Shares, strength: int, random: Random) -> Image.Image:
    """A frame of 1.5, 3 or 6% of the side in a colour that the photo's own edge does not have."""
    edge = np.asarray(image, np.float32)
    mean = np.concatenate([edge[:8].reshape(-1, 3), edge[-8:].reshape(-1, 3), edge[:, :8].reshape(-1, 3), edge[:, -8:].reshape(-1, 3)])
    colours = [(255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 30, 40), (240, 225, 190)]
    far = [colour for colour in colours if np.abs(mean.mean(axis=0) - colour).max() > 60]
    return ImageOps.expand(image, round(min(image.size) * (0.015, 0.03, 0.06)[strength]), random.choice(far))


def tiny_subject(image: Image.Image, box: Shares, strength: int, random: Random) -> Image.Image:
    """Taken from far away: the subject's box has 15, 10 or 6% of the side (the root of its share of the area)."""
    share = (box[2] - box[0]) * (box[3] - box[1])
    scale = (0.15, 0.10, 0.06)[strength] / share**0.5
    if scale >= 1:
        return image
    side = SIDE
    small = image.resize((max(8, round(side * scale)),) * 2, Image.Resampling.LANCZOS)
    ground = _ground(image, box, side, random)
    left, top = (random.randint(round(0.1 * (side - small.width)), round(0.9 * (side - small.width))) for _ in "xy")
    ground.paste(small, (left, top), _feather(small.size, 0.15))
    return ground


def _cleared(image: Image.Image, box: Shares, random: Random) -> Image.Image:
    """The photo without its subject, in the place of which is what lies round it."""
    edges = [round(edge * image.size[axis % 2]) for axis, edge in enumerate(box)]
    margin = round(0.04 * min(image.size))
    mask = Image.new("L", image.size)
    mask.paste(255, (edges[0] - margin, edges[1] - margin, edges[2] + margin, edges[3] + margin))
    ground = _ground(image, box, max(image.size), random).resize(image.size)
    return Image.composite(ground, image, mask.filter(ImageFilter.GaussianBlur(margin / 2)))


def _ground(image: Image.Image, box: Shares, side: int, random: Random) -> Image.Image:
    """The photo's surroundings, out of focus, its subject painted over by what lies round it."""
    cells = 48
    pixels = np.asarray(image.resize((cells, cells), Image.Resampling.BOX), np.float32)
    hole = np.zeros((cells, cells), bool)
    hole[int(box[1] * cells) : int(box[3] * cells) + 2, int(box[0] * cells) : int(box[2] * cells) + 2] = True
    if hole.all():
        hole[1:-1, 1:-1] = False
    filled = np.where(hole[..., None], pixels[~hole].mean(axis=0), pixels)
    for _ in range(400):
        near = sum(_shifted(filled, *way) for way in ((1, 0), (-1, 0), (0, 1), (0, -1))) / 4
        filled = np.where(hole[..., None], near, pixels)
    ground = np.asarray(_picture(filled).resize((side, side), Image.Resampling.BICUBIC), np.float32)
    return _picture(ground + np.random.default_rng(random.getrandbits(32)).normal(0, 3, ground.shape))


def _feather(size: tuple[int, int], share: float) -> Image.Image:
    """A mask whose edges run out over a share of the side."""
    ramps = [np.clip(np.minimum(np.arange(length), np.arange(length)[::-1]) / max(1, share * length), 0, 1) for length in size]
    return _picture(255 * np.minimum(ramps[1][:, None], ramps[0][None, :])).convert("L")


def cut_subject(image: Image.Image, box: Shares, strength: int, random: Random) -> Image.Image:
    """The photo ends within the subject: 15, 30 or 50% of its box lie outside, at one of its sides."""
    part = (0.15, 0.3, 0.5)[strength]
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    cuts = {
        "left": (left + part * wide, 0.0, 1.0, 1.0),
        "right": (0.0, 0.0, right - part * wide, 1.0),
        "top": (0.0, top + part * high, 1.0, 1.0),
        "bottom": (0.0, 0.0, 1.0, bottom - part * high),
    }
    # what is left must still look like a photo
    return _cut(image, random.choice([cut for cut in cuts.values() if cut[2] - cut[0] >= 0.35 and cut[3] - cut[1] >= 0.35]))


def _cut(image: Image.Image, box: Shares) -> Image.Image:
    width, height = image.size
    left, top, right, bottom = (min(1.0, max(0.0, value)) for value in box)
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def other_subject(image: Image.Image, own: Image.Image, strength: int) -> Image.Image:
    """A photo of something else; the weaker, the more it has the colours of one of the set's own photos."""
    share = (1.0, 0.5, 0.0)[strength]
    pixels, wanted = (np.asarray(one, np.float32) for one in (image, own))
    mean, spread = pixels.mean(axis=(0, 1)), pixels.std(axis=(0, 1)) + 1
    moved = (pixels - mean) / spread * wanted.std(axis=(0, 1)) + wanted.mean(axis=(0, 1))
    return _picture(share * moved + (1 - share) * pixels)


def in_place(image: Image.Image, box: Shares, place: Image.Image, hidden: Shares, random: Random) -> Image.Image:
    """The photo's subject, whole, in another photo's place, whose own subject has gone, the camera moved a little between two shots."""
    size = place.size
    shift = [random.uniform(0, 0.06) for _ in range(4)]
    seen = _cut(_cleared(place, hidden, random), (shift[0], shift[1], 1 - shift[2], 1 - shift[3]))
    gain = random.uniform(0.93, 1.07)
    ground = seen.resize(size, Image.Resampling.LANCZOS).point([min(255, round(value * gain)) for value in range(256)] * 3)
    wide, high = (box[2] - box[0]) * FEATHER, (box[3] - box[1]) * FEATHER
    subject = _cut(image, (box[0] - wide, box[1] - high, box[2] + wide, box[3] + high))
    scale = 1.25 * max((hidden[2] - hidden[0]) * size[0] / subject.width, (hidden[3] - hidden[1]) * size[1] / subject.height)
    scale = max(scale, 0.4 * min(size) / max(subject.size))
    scale = min(scale, LARGEST * min(size[0] / subject.width, size[1] / subject.height))
    subject = subject.resize((round(subject.width * scale), round(subject.height * scale)), Image.Resampling.LANCZOS)
    middle = (hidden[0] + hidden[2]) / 2 * size[0], (hidden[1] + hidden[3]) / 2 * size[1]
    left, top = (min(max(0, round(middle[axis] - subject.size[axis] / 2)), size[axis] - subject.size[axis]) for axis in (0, 1))
    ground.paste(subject, (left, top), _feather(subject.size, FEATHER))
    return ground


ALONE: dict[str, tuple[str, Damage]] = {
    "defocus": ("blur", defocus),
    "motion blur": ("blur", motion),
    "dark": ("dark", dark),
    "burnt out": ("burnt_out", burnt_out),
    "screenshot": ("screenshot", screenshot),
    "border": ("border", border),
    "tiny subject": ("tiny_subject", tiny_subject),
    "cut subject": ("cut_subject", cut_subject),
}  # damage -> the kind of finding that it asks for, and how it is done to a photo alone
