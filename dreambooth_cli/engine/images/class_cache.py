"""Class images: the frozen base model's own pictures of the class, made once and kept in a cache that projects share.

The cache's key depends on all that shapes the images, so a changed prompt, base or size never reuses old ones. Their number is not part
of the key: 100 images are the first 100 of 200. Image i has a seed of its own; images are made in fixed batches (0-3, 4-7, ...), and a
batch is kept whole or made again. `images.json` beside them has the sha256 of each as it was made: an image that has changed since is
made again. Where that file is missing (0.1 wrote none), the images there are taken as they are, once.
"""

import hashlib
import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from PIL import Image

from ...disk import disk_errors, make_folder, read_text, settle, sha256_of, temporary, write_json
from ...errors import TrainingFailed
from ...families.family import VAE
from ..families.latent_diffusion import LatentDiffusion, denoiser_of
from ..seeds import seed_of
from .sampling import AtWork, Drawing, decode, draw_latents, embed, is_black, scheduled

MANIFEST = "images.json"
IMAGE = re.compile(r"[0-9]{6,}\.png")
ATTEMPTS = 5  # how many more seeds are tried where one gives a black picture


def cache_key(*, base: str, prompts: Sequence[str], sampler: str, drawing: Drawing, seed: int, dtype: str) -> str:
    """The name of the folder that these class images are kept in: a hash of all that shapes them."""
    parts = {
        "base": base,
        "prompt": list(prompts) if len(prompts) > 1 else prompts[0],
        "sampler": sampler,
        "steps": drawing.steps,
        "guidance_scale": drawing.guidance_scale,
        "size": [drawing.width, drawing.height],
        "seed": seed,
        "dtype": dtype,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def class_image_paths(folder: Path, count: int) -> list[Path]:
    """The paths of the first `count` class images of a cache folder, whether they are there yet or not."""
    return [folder / f"{index:06d}.png" for index in range(count)]


def hold_images(paths: list[Path]) -> str:
    """One sha256 over the hashes of these pictures, in their order. Raises OSError."""
    return hashlib.sha256("".join(sha256_of(path) for path in paths).encode()).hexdigest()


def known_images(folder: Path) -> dict[str, str]:
    """The sha256 that each class image in a folder had when it was made, by name; empty if `images.json` is damaged."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        found = (path for path in folder.glob("*.png") if IMAGE.fullmatch(path.name) and is_usable(path))
        return {path.name: sha256_of(path) for path in found}
    try:
        held = json.loads(read_text(manifest))["images"]
        return {name: digest for name, digest in held.items() if isinstance(digest, str)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def adopt_images(folder: Path) -> None:
    """Write `images.json` for a folder that 0.1 made, from the images as they are now."""
    if folder.is_dir() and not (folder / MANIFEST).exists():
        with suppress(OSError):  # the cache may be read-only
            write_json(folder / MANIFEST, {"images": known_images(folder)})


def is_usable(path: Path) -> bool:
    """Whether a class image is there, can be opened and is not black."""
    if not path.is_file():
        return False
    try:
        with Image.open(path) as image:
            return not is_black(image)
    except (OSError, ValueError, SyntaxError):
        return False


def missing_batches(folder: Path, count: int, batch: int) -> list[list[int]]:
    """The batches, as lists of image numbers, in which one of the first `count` images is missing or not as it was made."""
    known = known_images(folder)
    lacking = {place // batch for place, path in enumerate(class_image_paths(folder, count)) if not is_as_made(path, known)}
    return [list(range(place * batch, (place + 1) * batch)) for place in sorted(lacking)]


def is_as_made(path: Path, known: Mapping[str, str]) -> bool:
    """Whether a class image is there and as it was made."""
    try:
        return path.is_file() and known.get(path.name) == sha256_of(path)
    except OSError:
        return False


def make_images(
    family: LatentDiffusion,
    folder: Path,
    batches: list[list[int]],
    *,
    prompts: Sequence[str],
    drawing: Drawing,
    seed: int,
    at_work: AtWork,
    turn: int = 1,
) -> Generator[Path, None, None]:
    """Draw the class images of these batches, write those that are missing, and yield the paths of all.

    Image i is of `prompts[i % len(prompts)]`. `at_work` has the named networks ready inside its context. Each prompt is encoded once, and
    at least `turn` pictures are drawn before they are decoded together. A black picture is never used but drawn again from another seed.
    Raises TrainingFailed if every seed gives a black one, or DiskError.
    """
    record, pipe = family.record, family.pipe
    with at_work(record.text_encoders):
        read = {prompt: embed(family, prompt, guidance_scale=drawing.guidance_scale) for prompt in prompts}

    def prompt_of(number: int) -> str:
        return prompts[number % len(prompts)]

    def paint(group: list[list[int]], attempt: int) -> list[list[Image.Image]]:
        seeds = [[seed_of(seed, "class image", number, attempt) for number in numbers] for numbers in group]
        with at_work((record.denoiser,)):
            device = next(denoiser_of(family).parameters()).device
            latents = [
                draw_latents(family, [read[prompt_of(number)].to(device) for number in numbers], each, drawing)
                for numbers, each in zip(group, seeds, strict=True)
            ]
        with at_work((VAE,)):
            return [decode(family, each) for each in latents]

    with scheduled(pipe, record.class_sampler):
        for group in _groups(batches, turn):
            for numbers, pictures in zip(group, paint(group, 0), strict=True):
                good = [_not_black(one, number, paint, prompt_of(number)) for one, number in zip(pictures, numbers, strict=True)]
                yield from _keep(folder, numbers, good)


def _not_black(
    picture: Image.Image, number: int, paint: Callable[[list[list[int]], int], list[list[Image.Image]]], prompt: str
) -> Image.Image:
    for attempt in range(1, ATTEMPTS + 1):
        if not is_black(picture):
            return picture
        ((picture,),) = paint([[number]], attempt)
    if is_black(picture):
        raise TrainingFailed(
            f"the base model draws only black class images for {prompt!r}",
            "use --precision fp32 or bf16, or give class images of your own with --class-data-dir",
        )
    return picture


def _groups(batches: list[list[int]], least: int) -> Iterator[list[list[int]]]:
    """Batches in groups of at least `least` pictures; the last group may have fewer."""
    group: list[list[int]] = []
    for numbers in batches:
        group.append(numbers)
        if sum(map(len, group)) >= least:
            yield group
            group = []
    if group:
        yield group


def _keep(folder: Path, numbers: list[int], pictures: list[Image.Image]) -> Iterator[Path]:
    known = known_images(folder)
    with disk_errors(folder):
        make_folder(folder)
        adopt_images(folder)
    for number, picture in zip(numbers, pictures, strict=True):
        path = folder / f"{number:06d}.png"
        if not is_as_made(path, known):
            with disk_errors(path), temporary(folder) as part:
                picture.save(part, format="PNG")
                known[path.name] = sha256_of(part)
                settle(part, path)
        yield path
    with disk_errors(folder / MANIFEST):
        write_json(folder / MANIFEST, {"images": dict(sorted(known.items()))})
