"""`generate`: a fine-tuned model and a prompt -> pictures, each with what made it in its text chunks."""

import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from ..bases.base import Base
from ..bases.catalog import find_entry, guidance_of
from ..bases.facts import read_facts
from ..disk import check_folder, clear_leftovers, disk_errors, system_errors
from ..engine.device import as_torch_has_it
from ..engine.families.latent_diffusion import LatentDiffusion
from ..engine.families.loading import DTYPES, find_device, load_family
from ..engine.families.lora_file import check_lora, load_lora
from ..engine.images.sampling import Drawing, check_memory, check_sampler, check_steps, draw, is_black, use_scheduler
from ..engine.refusal import raise_if_out_of_memory
from ..engine.saving import LORA_FILE
from ..errors import ModelUnavailable, UsageError
from ..events import Events, GridSaved, ImageSaved, Noted, PhaseStarted, Warned, Yielding
from ..gpu import find_gpu
from ..identifier import length_remarks, load_tokenizer
from ..machine import kept_when_freed
from ..memory.search import inference_precision
from ..model_card import Card, read_card
from ..order import Source
from ..photos.picture import Grid, save_new, stem_of
from ..project import Project, keep, project_of
from ..prompts import PLACEHOLDER, check_identifier, check_placeholder, fill, prompt_remarks, understood
from ..run import CARD, Run
from ..settings import GenerateSettings, Scheduler, check_text
from .lora_base import obtain_base

BLACK_WORDS = (
    "is black: the model gave numbers that are not finite or far too dark; "
    "try --scheduler ddim or another seed, and look whether its training went wrong"
)


class Picture(NamedTuple):
    """A drawn picture and its seed."""

    image: Any
    seed: int


def generate(source: Source, prompt: str, settings: GenerateSettings, *, output_dir: Path, grid: bool = False) -> Events:
    """Draw pictures of a prompt, each on the disk before the next is begun: any number takes the memory of one batch.

    Raises UsageError, ModelUnavailable, ProjectError, DiskError.
    """
    with ExitStack() as held:
        for project in {project_of(source.path), project_of(output_dir)}:
            if project is not None:
                held.enter_context(keep(project))
        yield from _generate(source, prompt, settings, output_dir=output_dir, grid=grid)


def _generate(source: Source, prompt: str, settings: GenerateSettings, *, output_dir: Path, grid: bool = False) -> Events:
    with system_errors(ModelUnavailable, f"the model {source.path} can't be read", source.path):
        folder = model_folder(source.path)
        card = card_of(folder)
        if not is_whole(folder):
            check_lora(folder)
    text = yield from fill_prompt(prompt, card, source.identifier)
    check_folder(output_dir, "name another folder: --output-dir ./pictures")
    settings = replace(settings, negative_prompt=fill_negative(settings.negative_prompt, card, source.identifier))
    seed = settings.seed
    if seed == "auto":
        seed = secrets.randbelow(2**31)
        yield Noted(message=f"seed {seed} (give --seed {seed} to draw these again)")
    with system_errors(ModelUnavailable, f"the model {folder} can't be read", folder):
        if is_run(source.path):
            Run(source.path).check_model()
    base = yield from find_model(folder, card, source.base)
    for remark in length_remarks([text, settings.negative_prompt], load_tokenizer(base.vocabulary), most=base.facts.family.prompt_length):
        yield Warned(message=remark)
    check_sampler(base.facts.family, settings.scheduler)
    drawing = choose_drawing(settings, base, card)
    sheet = Grid(settings.num_images, (drawing.width, drawing.height)) if grid else None
    if sheet is not None and sheet.tile != (drawing.width, drawing.height):
        yield Noted(message=f"on the grid each picture has {sheet.tile[0]} x {sheet.tile[1]} pixels, so that it stays a sheet")
    yield PhaseStarted(name="loading the model")
    family = yield from load_model(base, None if folder == base.path else folder, settings.scheduler)
    check_steps(family.pipe, drawing.steps, "--steps")
    check_memory(family.pipe, drawing, min(settings.batch_size, settings.num_images))
    record = describe(source.path, text, settings, drawing, family.pipe)
    with disk_errors(output_dir), kept_when_freed() if family.pipe.device.type == "cpu" else nullcontext():
        clear_leftovers(output_dir)
        yield PhaseStarted(name="drawing", total=settings.num_images, unit="images")
        for picture in draw_all(family, text, seed, settings, drawing):
            stem, chunks = stem_of(text, picture.seed), record | {"seed": str(picture.seed)}
            path = save_new(picture.image, output_dir, stem, chunks)
            if sheet is not None:
                sheet.add(picture.image)
            yield ImageSaved(path=path, seed=picture.seed, prompt=text)
            if is_black(picture.image):
                yield Warned(message=f"{path.name} {BLACK_WORDS}")
        if sheet is not None:
            chunks = record | {"seed": str(seed)}
            yield GridSaved(path=save_new(sheet.sheet, output_dir, f"grid-{stem_of(text, seed)}", chunks))


def choose_drawing(settings: GenerateSettings, base: Base, card: Card | None) -> Drawing:
    """How the pictures are drawn, every `auto` resolved: by the size the model was trained at, and the base it was made of."""
    side = card.resolution if card else base.facts.resolution
    name = card.base.name if card else base.name
    guidance = settings.guidance_scale
    return Drawing(
        steps=settings.steps,
        guidance_scale=guidance_of(name, base.facts.family) if guidance == "auto" else guidance,
        width=side if settings.width == "auto" else settings.width,
        height=side if settings.height == "auto" else settings.height,
    )


def draw_all(family: LatentDiffusion, text: str, first: int, settings: GenerateSettings, drawing: Drawing) -> Iterator[Picture]:
    """The pictures in batches, image i from seed `first` + i. Raises DoesNotFit where memory runs out."""
    for start in range(0, settings.num_images, settings.batch_size):
        seeds = [first + number for number in range(start, min(start + settings.batch_size, settings.num_images))]
        try:
            drawn = draw(family, [text] * len(seeds), seeds, drawing, negative_prompt=settings.negative_prompt)
        except (RuntimeError, MemoryError) as error:
            raise_if_out_of_memory(error, "try --batch-size 1, or a smaller --width and --height")
            raise
        yield from (Picture(image, seed) for image, seed in zip(drawn, seeds, strict=True))


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a run."""
    return Run(path).plan.is_file()


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a whole model and not a LoRA."""
    return (folder / "model_index.json").is_file()


def model_folder(path: Path) -> Path:
    """The model that a path means: one of our run folders, a model's folder or a LoRA file. Raises ModelUnavailable."""
    if path.name in ("model_index.json", CARD) and path.is_file():
        return path.parent
    if Project(path).config.is_file():
        raise ModelUnavailable(f"{path} is a project's folder", f'name the project: dreambooth generate {path.name} "a {PLACEHOLDER} dog"')
    if is_run(path):
        if not (path / "model").is_dir():
            raise ModelUnavailable(f"the run {path} has no finished model", "run its train command again to finish it")
        return path / "model"
    if not path.exists():
        raise ModelUnavailable(f"there is no model at {path}", _where_models_are(path))
    return path


def _where_models_are(path: Path) -> str:
    """What to do where a path holds no model: it may be meant for a base of the hub, or for an address."""
    words = str(path)
    if (address := re.match(r"file:/+(?:localhost/+)?(.+)", words)) is not None:
        return f"give the path itself: --model-path '/{unquote(address[1])}'"
    if words.startswith(("https:/", "http:/", "hf:/")):
        return "nothing is fetched from there: download it, then name the file or folder"
    if find_entry(words):
        return f"{words} is a base: fetch it with `dreambooth models pull {words}`, then name the folder that is printed"
    return "name a model's folder: --model-path ./output, or a project"


def card_of(model: Path) -> Card | None:
    """The card of a model's folder, or the one beside a LoRA file that is still called as we called it."""
    if model.is_dir():
        return read_card(model)
    return read_card(model.parent) if model.name == LORA_FILE else None


def fill_prompt(prompt: str, card: Card | None, identifier: str | None) -> Yielding[str]:
    """The prompt with its identifier; what looks forgotten is said. Raises UsageError where nobody knows the identifier."""
    check_text("the prompt", prompt)
    check_text("--identifier", identifier or "")
    check_identifier(identifier or "")
    word = identifier or (card.identifier if card else None)
    text = _with_identifier(prompt, word)
    if word is not None:
        for remark in prompt_remarks(prompt, word, card.class_prompt if card else ""):
            yield Noted(message=remark)
    return text


def fill_negative(prompt: str, card: Card | None, identifier: str | None) -> str:
    """The negative prompt with its identifier. Raises UsageError where nobody knows the identifier."""
    return _with_identifier(prompt, identifier or (card.identifier if card else None))


def _with_identifier(prompt: str, word: str | None) -> str:
    check_placeholder(prompt)
    text = understood(prompt)
    if word is None and PLACEHOLDER in text:
        raise UsageError(
            f"the model has no card, so {PLACEHOLDER} stands for nothing", "name the word: --identifier sks"
        )
    return text if word is None else fill(text, word)


def find_model(folder: Path, card: Card | None, base: str | None) -> Yielding[Base]:
    """The base that is loaded: the folder itself where it is a whole model, else the base of the LoRA. Returns it."""
    if is_whole(folder):
        if base is not None:
            yield Warned(message=f"{folder} is a whole model, which needs no base: --model {base} is left out")
        return Base(name=folder.name, path=folder, repository=None, identity="", facts=read_facts(folder))
    return (yield from obtain_base(folder, card, base))


def load_model(base: Base, lora: Path | None, scheduler: Scheduler) -> Yielding[LatentDiffusion]:
    """A model on the best device here, ready to draw, in half precision where the GPU has it. Returns it."""
    device, precision = inference_precision(as_torch_has_it(find_gpu()))
    family = load_family(base, dtype=DTYPES[precision], device=find_device(device))
    if lora is not None:
        for remark in load_lora(family.pipe, lora):
            yield Warned(message=remark)
    use_scheduler(family.pipe, scheduler)
    return family


def describe(model: Path, prompt: str, settings: GenerateSettings, drawing: Drawing, pipe: Any) -> dict[str, str]:
    """What goes into a picture's text chunks."""
    return {
        "prompt": prompt,
        "negative_prompt": settings.negative_prompt,
        "model": f"{model.parents[1].name} run {model.name}" if model.parent.name == "runs" else model.name,
        "steps": str(drawing.steps),
        "guidance_scale": str(drawing.guidance_scale),
        "size": f"{drawing.width}x{drawing.height}",
        "scheduler": type(pipe.scheduler).__name__,
        "Software": "dreambooth",
    }
