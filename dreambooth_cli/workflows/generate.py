"""`generate`: a fine-tuned model and prompts -> pictures, each with the way it was made in its text chunks."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from ..bases.base import Base, ask_for_base
from ..bases.catalog import guidance_of
from ..bases.facts import read_facts
from ..disk import check_folder, clear_leftovers, disk_errors, system_errors
from ..engine.device import as_torch_has_it
from ..engine.families.latent_diffusion import LatentDiffusion
from ..engine.families.loading import DTYPES, find_device, load_family
from ..engine.families.lora_file import check_lora, load_lora
from ..engine.hub.bases import obtain
from ..engine.images.sampling import Drawing, check_memory, check_sampler, check_steps, draw, is_black, use_scheduler
from ..engine.refusal import raise_if_out_of_memory
from ..engine.training.trained import add_trained, fill_trained
from ..errors import ModelUnavailable, UsageError
from ..events import Events, GridSaved, ImageSaved, Noted, PhaseStarted, Warned, Yielding
from ..families.family import Family
from ..gpu import find_gpu
from ..identifier import length_remarks, load_tokenizer
from ..machine import kept_when_freed
from ..memory.search import inference_precision
from ..model_card import Card
from ..photos.picture import Grid, save_new, stem_of, with_parameters
from ..project import clear_up, keep, project_of
from ..run import Run
from ..settings import GenerateSettings, Scheduler
from ..source import (
    ANOTHER_FOLDER,
    Source,
    card_for,
    denoiser_family,
    fill_negative,
    fill_prompt,
    is_whole,
    model_folder,
)
from .lora_base import obtain_base, obtain_twin
from .plan import check_side

BLACK_WORDS = (
    "is black: the model's output was not finite, or far too dark; "
    "try --scheduler ddim or another seed, and check whether the training went wrong"
)


class Picture(NamedTuple):
    """A drawn picture and its seed."""

    image: Any
    seed: int


@dataclass(frozen=True)
class Easel:
    """A loaded model, ready to draw the way these settings say."""

    source: Source
    card: Card | None
    base: Base
    family: LatentDiffusion
    drawing: Drawing


def generate(
    source: Source, prompts: str | Sequence[str], settings: GenerateSettings, *, output_dir: Path, grid: bool | None = False
) -> Events:
    """Draw pictures of each prompt. Each is saved before the next is begun, so any number of them needs only the memory of one batch.

    `grid`: also put them all on one sheet (None: if there are several). Raises UsageError, ModelUnavailable, ProjectError, DiskError.
    """
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    with kept_projects(source.path, output_dir):
        card = read_source(source)
        texts = yield from fill_prompts(texts, card, source)
        check_folder(output_dir, ANOTHER_FOLDER)
        settings = yield from with_seed(replace(settings, negative_prompt=fill_negative(settings.negative_prompt, card, source.identifier)))
        wanted = len(texts) * settings.num_images
        grid = wanted > 1 if grid is None else grid
        easel = yield from set_up(source, card, settings, texts, wanted if grid else 0)
        yield from draw_prompts(easel, texts, settings, output_dir, grid=grid)


def open_easel(source: Source, settings: GenerateSettings, into: list[Easel]) -> Events:
    """Load a model for prompts that come later, and append it to the list `into`. Raises UsageError, ModelUnavailable, ProjectError,
    DoesNotFit."""
    card = read_source(source)
    settings = replace(settings, negative_prompt=fill_negative(settings.negative_prompt, card, source.identifier))
    into.append((yield from set_up(source, card, settings, [], 0)))


def draw_one(easel: Easel, prompt: str, settings: GenerateSettings, output_dir: Path, *, grid: bool | None) -> Events:
    """Draw one more prompt with a loaded model. Raises UsageError, DiskError, DoesNotFit."""
    source, several = easel.source, settings.num_images > 1 if grid is None else grid
    with kept_projects(source.path, output_dir):
        texts = yield from fill_prompts([prompt], easel.card, source)
        yield from too_long(texts, easel.base)
        negative = fill_negative(settings.negative_prompt, easel.card, source.identifier)
        settings = yield from with_seed(replace(settings, negative_prompt=negative))
        yield from draw_prompts(easel, texts, settings, output_dir, grid=several)


@contextmanager
def kept_projects(*paths: Path) -> Iterator[None]:
    """Keep the projects that these paths are in from being removed meanwhile. Raises ProjectError."""
    with ExitStack() as held:
        for project in set(map(project_of, paths)):
            if project is not None:
                held.enter_context(keep(project))
        yield


def read_source(source: Source) -> Card | None:
    """The card of the model to draw with, after checking that it is a model. Raises ModelUnavailable, ProjectError."""
    card = card_for(source)
    if source.step is None and not is_whole(folder := model_folder(source.path)):
        with system_errors(ModelUnavailable, f"the model {source.path} can't be read", source.path):
            check_lora(folder)
    return card


def fill_prompts(prompts: Sequence[str], card: Card | None, source: Source) -> Yielding[list[str]]:
    """The prompts with the identifier filled in; each remark, such as a missing [identifier], comes once. Raises UsageError."""
    filled, said = [], set()
    for prompt in prompts:
        told = fill_prompt(prompt, card, source.identifier)
        while True:
            try:
                event = next(told)
            except StopIteration as done:
                filled.append(done.value)
                break
            if event not in said:
                said.add(event)
                yield event
    return filled


def with_seed(settings: GenerateSettings) -> Yielding[GenerateSettings]:
    """The settings with a seed: if none was given, a random one, which is shown."""
    if settings.seed != "auto":
        return settings
    seed = secrets.randbelow(2**31)
    yield Noted(message=f"seed {seed} (give --seed {seed} to draw these again)")
    return replace(settings, seed=seed)


def set_up(
    source: Source, card: Card | None, settings: GenerateSettings, texts: Sequence[str], on_sheet: int
) -> Yielding[Easel]:
    """Load a model for these prompts. `on_sheet`: how many pictures go on one sheet, 0 for no sheet. Raises UsageError, ModelUnavailable,
    DiskError, DoesNotFit."""
    folder = source.path if source.step is not None else model_folder(source.path)
    with system_errors(ModelUnavailable, f"the model {folder} can't be read", folder):
        if source.run is not None and source.step is None:
            source.run.check_model()
    clear_up()
    base = yield from find_model(folder, card, source.base, fast=settings.fast)
    yield from too_long([*texts, settings.negative_prompt], base)
    check_sampler(base.facts.family, settings.scheduler)
    drawing = choose_drawing(settings, base, card)
    if on_sheet:
        tile = Grid(on_sheet, (drawing.width, drawing.height)).tile
        if tile[0] < drawing.width:
            yield Noted(message=f"to fit on one sheet, each picture is shown there at {tile[0]} x {tile[1]} pixels")
    yield PhaseStarted(name="loading the model")
    family = yield from load_model(base, None if is_whole(folder) else folder, settings.scheduler, source)
    check_steps(family.pipe, drawing.steps, "--steps")
    check_memory(family.pipe, drawing, min(settings.batch_size, settings.num_images))
    return Easel(source, card, base, family, drawing)


def too_long(texts: Sequence[str], base: Base) -> Events:
    """A warning for each text that is too long for the base to read to its end."""
    of = base.facts.family
    for remark in length_remarks(texts, load_tokenizer(base.vocabulary), most=of.prompt_length, frame=of.prompt_frame):
        yield Warned(message=remark)


def draw_prompts(easel: Easel, texts: Sequence[str], settings: GenerateSettings, output_dir: Path, *, grid: bool) -> Events:
    """Draw the prompts, with seeds counted up from the settings' seed, and the sheet of them all."""
    total, source, seed = len(texts) * settings.num_images, easel.source, int(settings.seed)
    sheet = Grid(total, (easel.drawing.width, easel.drawing.height)) if grid else None
    with disk_errors(output_dir), kept_when_freed() if easel.family.pipe.device.type == "cpu" else nullcontext():
        clear_leftovers(output_dir)
        yield PhaseStarted(name="drawing", total=total, unit="images")
        for text in texts:
            record = describe(easel, text, settings)
            for picture in draw_all(easel.family, text, seed, settings, easel.drawing):
                stem = stem_of(text, picture.seed, label_of(source))
                path = save_new(picture.image, output_dir, stem, with_parameters({**record, "seed": str(picture.seed)}))
                if sheet is not None:
                    sheet.add(picture.image, text, ", ".join(filter(None, [f"seed {picture.seed}", model_words(source)])))
                yield ImageSaved(path=path, seed=picture.seed, prompt=text)
                if is_black(picture.image):
                    yield Warned(message=f"{path.name} {BLACK_WORDS}")
        if sheet is not None:
            record = describe(easel, "\n".join(texts), settings) | {"seed": str(seed)}
            stem = stem_of(texts[0], seed, label_of(source))
            yield GridSaved(path=save_new(sheet.sheet, output_dir, f"grid-{stem}", with_parameters(record)))


def label_of(source: Source) -> str:
    """The part of a picture's file name that says which run drew it: `run2`, `run2-step600`; "" for a model without a run."""
    if source.run is None:
        return ""
    return f"run{source.path.name}" + (f"-step{source.step}" if source.step is not None else "")


def choose_drawing(settings: GenerateSettings, base: Base, card: Card | None) -> Drawing:
    """How the pictures are drawn, with every `auto` resolved: by the size that the model was trained at, and by its base. Raises
    UsageError for a size that its family can't draw."""
    side = card.resolution if card else base.facts.resolution
    name = card.base.name if card else base.name
    guidance, family = settings.guidance_scale, base.facts.family
    steps, scale = family.steps, guidance_of(name, family)
    if base.facts.distilled and family.fast:
        steps, scale = family.fast
    for flag in ("width", "height"):
        check_side(flag, getattr(settings, flag), family)
    return Drawing(
        steps=steps if settings.steps == "auto" else settings.steps,
        guidance_scale=scale if guidance == "auto" else guidance,
        width=side if settings.width == "auto" else settings.width,
        height=side if settings.height == "auto" else settings.height,
    )


def draw_all(family: LatentDiffusion, text: str, first: int, settings: GenerateSettings, drawing: Drawing) -> Iterator[Picture]:
    """Draw the pictures in batches, picture i from seed `first` + i. Raises DoesNotFit if memory runs out."""
    for start in range(0, settings.num_images, settings.batch_size):
        seeds = [first + number for number in range(start, min(start + settings.batch_size, settings.num_images))]
        try:
            drawn = draw(family, [text] * len(seeds), seeds, drawing, negative_prompt=settings.negative_prompt)
        except (RuntimeError, MemoryError) as error:
            raise_if_out_of_memory(error, "try --batch-size 1, or a smaller --width and --height")
            raise
        yield from (Picture(image, seed) for image, seed in zip(drawn, seeds, strict=True))


def find_model(folder: Path, card: Card | None, base: str | None, *, fast: bool = False) -> Yielding[Base]:
    """The base to load: the folder itself if it is a whole model, else the base of the LoRA or of the run, or that base's distilled twin.
    Raises UsageError if no base is known, or no twin with `fast`."""
    if fast and not is_whole(folder):
        return (yield from obtain_twin(card, base))
    if (family := denoiser_family(folder)) is not None:
        if fast:
            raise UsageError(f"--fast draws with a LoRA, and {folder} is none", "leave --fast out")
        return (yield from with_denoiser(folder, family, card, base))
    if is_whole(folder):
        if base is not None:
            yield Warned(message=f"{folder} is a whole model, which needs no base: --model {base} is ignored")
        if folder.is_file():
            return replace((yield from obtain(ask_for_base(str(folder)))), path=folder, identity="")
        facts = read_facts(folder)
        if fast and not facts.distilled:
            raise UsageError(f"{folder} is not a distilled model, so it can't draw in a few steps", "leave --fast out")
        return Base(name=folder.name, path=folder, repository=None, identity="", facts=facts)
    return (yield from obtain_base(folder, card, base))


def with_denoiser(file: Path, family: Family, card: Card | None, named: str | None) -> Yielding[Base]:
    """The base of a file that is a denoiser alone, with that in the place of its own. Returns it. Raises UsageError where nothing names
    it, ModelUnavailable where it is of another family."""
    if card is None and named is None:
        told = f"{file} is {family.title}'s {family.denoiser_title} alone, without text encoder and VAE"
        raise UsageError(told, f"name the base that has these: --model {family.name}")
    found = yield from obtain_base(file, card, named)
    if found.facts.family is not family:
        told = f"{file} is {family.title}'s {family.denoiser_title}, and {found.name} is {found.facts.family.title}"
        raise ModelUnavailable(told, f"name its own base: --model {family.name}")
    return replace(found, denoiser_path=file, identity="")


def load_model(base: Base, lora: Path | None, scheduler: Scheduler, source: Source | None = None) -> Yielding[LatentDiffusion]:
    """A model on the best device here, ready to draw, in half precision if the GPU supports it: a base as it is, with a LoRA, or with the
    weights of a run's step. Raises DiskError if those are damaged."""
    device, precision = inference_precision(as_torch_has_it(find_gpu()), base.facts.family)
    family = load_family(base, dtype=DTYPES[precision], device=find_device(device))
    if source is not None and source.step is not None:
        put_step(family, Run(source.path), source.step)
    elif lora is not None:
        for remark in load_lora(family.pipe, lora):
            yield Warned(message=remark)
    use_scheduler(family.pipe, scheduler)
    return family


def put_step(family: LatentDiffusion, run: Run, step: int) -> None:
    """Put the weights of a run's step into its base. Raises DiskError if they are not as they were saved."""
    record = run.record()
    fill_trained(add_trained(family, record.plan, record.train_settings()), run.checkpoint(step), run.id)


def describe(easel: Easel, prompt: str, settings: GenerateSettings) -> dict[str, str]:
    """What goes into a picture's text chunks, by name."""
    source, drawing = easel.source, easel.drawing
    record = {
        "prompt": prompt,
        "negative_prompt": settings.negative_prompt,
        "model": model_words(source),
        "steps": str(drawing.steps),
        "guidance_scale": str(drawing.guidance_scale),
        "size": f"{drawing.width}x{drawing.height}",
        "scheduler": type(easel.family.pipe.scheduler).__name__,
        "Software": "dreambooth",
    }
    if source.run is not None:
        record["run"] = source.path.name
    if source.step is not None:
        record["run_step"] = str(source.step)
    return record


def model_words(source: Source) -> str:
    """What a picture was drawn with: `my-dog run 2`, `my-dog run 2 step 600`, or a model's name."""
    run = source.path
    if run.parent.name != "runs":
        return run.name
    return f"{run.parents[1].name} run {run.name}" + (f" step {source.step}" if source.step is not None else "")
