"""The end of a run: its steps are judged by pictures drawn with their weights, and only the weights to be kept stay, without the
optimizer's state. Training is over by then, so nothing disturbs it."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from ..bases.base import Base
from ..bases.catalog import find_entry, guidance_of
from ..captions import prompt_with
from ..disk import disk_errors
from ..engine.families.latent_diffusion import LatentDiffusion
from ..engine.families.loading import forget_failed_attempt
from ..engine.hub.eyes import obtain_eyes
from ..engine.images.sampling import Drawing, draw
from ..engine.judges import Judge, by_clip_and_dino, likeness, nearest_copy
from ..engine.refusal import out_of_memory_words, refused
from ..engine.training.checkpoint import checkpoints, has_weights, keep_weights, step_of
from ..engine.training.trained import add_trained, fill_trained
from ..errors import DreamboothError, Interrupted
from ..events import Events, Noted, PhaseStarted, RunJudged, StepJudged, Yielding
from ..frames import other_frames
from ..identifier import load_tokenizer
from ..judged import MOST, Judged, JudgedStep, best_of, due_steps, read_judged, reason_for, write_judged
from ..photos.picture import read_picture
from ..places import PLACES, names_a_place, places_known
from ..pocket.eyes import PocketJudge
from ..run import Run
from ..verdict import COPY
from .generate import load_model
from .recipe import Recipe

# denoising steps of a picture, and of a small one: there the judge sees no difference, and twice as many are drawn in the same time
# (tests/benchmarks/best_step.md)
STEPS, FEW_STEPS = 25, 12
PICTURES, MOST_PICTURES = 8, 24  # drawn for each step; on a base whose pictures are small
SMALL = 128  # pixels a side: pictures up to this size are small
FIRST_SEED = 7_000_000  # of the pictures: far from the seeds that people choose
PATIENCE = 60.0  # seconds that judging may take, or a tenth of the run's time if that is longer
FEWEST = 2  # pictures for each step: fewer say nothing
TOO_LONG = "it would take more than a tenth of the run's time"


@dataclass(frozen=True)
class Sitting:
    """What every step has to draw: prompts with the subject, the same prompts with only the class, and their seeds."""

    named: tuple[str, ...]
    plain: tuple[str, ...]
    seeds: tuple[int, ...]
    batch: int

    def first(self, count: int) -> "Sitting":
        """The same with fewer pictures."""
        return Sitting(self.named[:count], self.plain[:count], self.seeds[:count], self.batch)


def conclude(run: Run, recipe: Recipe, seconds: float = 0.0) -> Events:
    """Judge the steps of a finished run, if asked for and not done yet, then delete the checkpoints and optimizer state it need not keep.
    `seconds`: how long it trained. Raises Interrupted, DiskError."""
    settings = recipe.settings
    judged = read_judged(run.judged)
    with disk_errors(run.checkpoints):
        steps = [step_of(path) for path in checkpoints(run.checkpoints) if has_weights(path, run.id)]
        due = [step for step in steps if step in due_steps(settings)]
        if judged is None and settings.judge == "auto" and len(due) > 1:
            judged = yield from judge(run, recipe, evenly(due), seconds)
        if settings.keep == "all":
            keep = set(steps)
        else:
            keep = {max(steps, default=0), *([judged.best] if judged is not None and settings.keep == "best" else [])}
        keep_weights(run.checkpoints, keep)


def evenly(steps: Sequence[int]) -> list[int]:
    """At most MOST of these steps, evenly spread, always with the last."""
    return list(steps[:: -math.ceil(len(steps) / MOST)][::-1])


def judge(run: Run, recipe: Recipe, steps: Sequence[int], seconds: float) -> Yielding[Judged | None]:
    """The judgement on a run's steps, also saved in the run; None, with a note saying why, if it can't be made. Raises Interrupted,
    DiskError."""
    found, why = None, ""
    forget_failed_attempt()  # free the card's memory for drawing
    try:
        found = yield from judge_steps(run, recipe, steps, max(PATIENCE, seconds / 10))
    except Interrupted:
        raise
    except DreamboothError as error:
        why = error.message
    except (RuntimeError, MemoryError) as error:
        if (words := out_of_memory_words(error)) is None:
            raise
        why = words
    forget_failed_attempt()  # only here: until the `except` ends, the traceback holds on to memory
    if found is None:
        yield Noted(message=f"the steps were not judged: {why or TOO_LONG}; the last one is kept")
        return None
    write_judged(run.judged, found)
    yield RunJudged(path=run.judged, judge=found.judge, best=found.best, reason=found.reason)
    return found


def judge_steps(run: Run, recipe: Recipe, steps: Sequence[int], patience: float) -> Yielding[Judged | None]:
    """Draw with each step's weights from the same noises, and judge the pictures; None if that would take too long. Raises
    DreamboothError of many kinds."""
    eyes = yield from find_judge(recipe.base)
    yield PhaseStarted(name="judging the steps", total=len(steps), unit="steps")
    # PNDM, which Stable Diffusion comes with, needs twice as many steps: with these its pictures of a well trained subject are wrong
    family = yield from load_model(recipe.base, None, recipe.base.facts.family.class_sampler)
    side = recipe.plan.resolution
    guidance = guidance_of(recipe.base.name, recipe.base.facts.family)
    drawing = Drawing(steps=FEW_STEPS if side <= SMALL else STEPS, guidance_scale=guidance, width=side, height=side)
    sitting, began = sit(recipe), time.monotonic()
    base = draw_all(family, sitting.first(sitting.batch), sitting.plain, drawing)
    a_picture = (time.monotonic() - began) / len(base)
    sitting = sitting.first(int(patience / a_picture / (len(steps) + 1)))
    if len(sitting.seeds) < FEWEST:
        return None
    base = draw_all(family, sitting, sitting.plain, drawing)
    photos, record = [read_picture(photo.path) for photo in recipe.photos], run.record()
    trained = add_trained(family, record.plan, record.train_settings())
    scores, told = [], []
    for step in steps:
        fill_trained(trained, run.checkpoint(step), run.id)
        pictures = draw_all(family, sitting, sitting.named, drawing)
        like, follow = likeness(eyes, pictures, photos, base), eyes.follow(pictures, sitting.plain, base)
        copied, place = nearest_copy(pictures, photos)
        scores.append([one * other for one, other in zip(like, follow, strict=True)])
        nearest = recipe.photos[place].name if copied >= COPY else None
        told.append(JudgedStep(step=step, subject=mean(like), prompt=mean(follow), copied=copied, nearest=nearest))
        yield StepJudged(number=len(told), total=len(steps), **asdict(told[-1]))
    best = best_of(scores)
    return Judged(judge=eyes.name, steps=tuple(told), best=steps[best], reason=reason_for(told, best))


def find_judge(base: Base) -> Yielding[Judge]:
    """The judge of a base's pictures: pocket's own, or else DINO and CLIP, fetched once. Raises ModelUnavailable, DiskError."""
    entry = find_entry(base.name)
    if entry is not None and entry.folder is not None:
        return PocketJudge()
    clip, dino = yield from obtain_eyes()
    with refused("the models that judge pictures can't be loaded", f"remove {clip.parent} and {dino.parent}: they will be fetched again"):
        return by_clip_and_dino(clip, dino)


def sit(recipe: Recipe) -> Sitting:
    """What every step of a run has to draw: its subject in various places, in a sentence it was not trained with if there is one."""
    prompts, is_small = recipe.prompts, recipe.plan.resolution <= SMALL
    count = MOST_PICTURES if is_small else PICTURES
    others = other_frames(prompts.instance, prompts.identifier)
    known = places_known(load_tokenizer(recipe.base.vocabulary)) or PLACES
    places = [""] if names_a_place(prompts.class_) else known[:: max(1, len(known) // count)]
    asked = [places[number % len(places)] for number in range(count)]
    return Sitting(
        named=tuple(prompt_with((others or (prompts.instance,))[0], place) for place in asked),
        plain=tuple(prompt_with(prompts.class_, place) for place in asked),
        seeds=tuple(range(FIRST_SEED, FIRST_SEED + count)),
        batch=count // 2 if is_small else 1,
    )


def draw_all(family: LatentDiffusion, sitting: Sitting, prompts: Sequence[str], drawing: Drawing) -> list[Any]:
    """Draw the pictures of a sitting, one for each of its seeds, with the first of these prompts. Raises Interrupted."""
    pictures = []
    for start in range(0, len(sitting.seeds), sitting.batch):
        seeds = sitting.seeds[start : start + sitting.batch]
        pictures += draw(family, list(prompts[start : start + len(seeds)]), list(seeds), drawing)
    return pictures
