"""Pictures of fixed prompts from one seed: drawn by the base before training, then during the run, and at its end."""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from math import ceil
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..bases.catalog import guidance_of
from ..captions import prompt_with
from ..disk import disk_errors
from ..engine.families.latent_diffusion import LatentDiffusion
from ..engine.families.loading import DTYPES, bring_back, find_device, let_go, place
from ..engine.images.sampling import Drawing, Embedded, draw_in_turn, scheduled
from ..engine.refusal import out_of_memory_words
from ..engine.training.loop import Training
from ..events import Events, PhaseStarted, SampleSaved, SamplesPutOff, Warned, Yielding
from ..families.family import VAE
from ..memory.plan import Plan
from ..photos.picture import save_new
from ..places import names_a_place
from ..prompts import fill, understood
from ..record import Prompts
from ..run import Run
from ..settings import AUTO, TrainSettings
from .networks import networks_of
from .recipe import Recipe

NEW_PLACE = "on the moon"  # where no photo was taken
ROUNDS = 4  # in a run, with --sample-every auto
MOST = 0.1  # of a run's time, which the samples may take
TRY = 50  # steps: a shorter run is only a try
BEFORE = "step-000000"  # how the file names of the base's pictures begin


def sample_prompts(prompts: Prompts, own: str | None) -> list[str]:
    """The instance prompt, the class prompt, and the user's own prompt, or else the subject in a new place if the prompt names none."""
    wanted = [prompts.instance, prompts.class_]
    if own:
        return [*wanted, fill(understood(own), prompts.identifier)]
    return wanted if names_a_place(prompts.class_) else [*wanted, prompt_with(prompts.instance, NEW_PLACE)]


def drawing_of(recipe: Recipe, steps: int) -> Drawing:
    """How a sample is drawn."""
    size, base = recipe.plan.resolution, recipe.base
    return Drawing(steps=steps, guidance_scale=guidance_of(base.name, base.facts.family), width=size, height=size)


def draw_before(
    family: LatentDiffusion, recipe: Recipe, folder: Path, *, embedded: Mapping[str, Embedded] = MappingProxyType({})
) -> Events:
    """Draw the samples' prompts with the base itself, once, as `step-000000-*.png`. `embedded`: the prompts encoded beforehand, if only
    the denoiser is loaded."""
    settings = recipe.settings
    lacking = [
        (number, prompt)
        for number, prompt in enumerate(sample_prompts(recipe.prompts, settings.sample_prompt), 1)
        if not (folder / f"{BEFORE}-{number}.png").exists()
    ]
    if not lacking:
        return
    yield PhaseStarted(name="the base model's pictures, to compare")
    remark = ""
    drawing, cpu = drawing_of(recipe, settings.sample_steps), find_device("cpu")
    brought = bring_back(family.pipe, recipe.base, dtype=DTYPES["fp32"], device=cpu, only=[VAE]) if embedded else []
    in_parts = lacks_room(recipe.plan) if embedded else recipe.plan.class_images_in_parts
    at_work = networks_of(family, recipe.plan, in_parts=in_parts)
    try:
        for number, prompt in lacking:
            with scheduled(family.pipe, family.record.class_sampler):
                picture = draw_in_turn(family, prompt, settings.seed, drawing, at_work, read=embedded.get(prompt))
            save_sample(picture, folder, f"{BEFORE}-{number}", {"prompt": prompt, "seed": str(settings.seed), "step": "0"})
    except (RuntimeError, MemoryError) as error:
        remark = memory_remark(error, 0)
    let_go(family.pipe, brought)
    if embedded:
        place(family.pipe, [family.record.denoiser], find_device(recipe.plan.device))
    if remark:
        yield Warned(message=remark)


def lacks_room(plan: Plan) -> bool:
    """Whether the networks must take turns on the card when a sample is drawn: if the plan has no room for samples on the way."""
    return plan.device == "cuda" and not plan.samples_on_the_way


def save_sample(picture: Any, folder: Path, stem: str, text: Mapping[str, str]) -> Path:
    """Write a sample with these text chunks, and return its path. Raises DiskError."""
    with disk_errors(folder):
        return save_new(picture, folder, stem, text)


def memory_remark(error: RuntimeError | MemoryError, step: int) -> str:
    """What to say if memory ran out while drawing samples, which does not end a run. Any other error is raised again."""
    words = out_of_memory_words(error)
    if words is None:
        raise error
    return f"not all samples of step {step} could be drawn: {words}"


class Samples:
    """The samples of a run in progress. `seconds`: how long a round of them takes, 0 if not known yet."""

    def __init__(self, training: Training, run: Run, recipe: Recipe, *, seconds: float) -> None:
        self.training, self.run, self.recipe, self.seconds = training, run, recipe, seconds
        self.wait_for_end = False

    def on_the_way(self, step_seconds: float) -> Events:
        """Draw a round if one is due after this step; steps take `step_seconds` each. The last round waits until the optimizer's state is
        gone, and once rounds would take too much of the run, all the others wait for it."""
        settings, step = self.recipe.settings, self.training.step
        if self.wait_for_end or not is_due(settings, step):
            return
        if settings.sample_every != AUTO:
            yield from self.draw()
        elif takes_too_much(self.seconds, step_seconds * settings.steps):
            self.wait_for_end = True
            yield SamplesPutOff(message=f"samples on the way would take more than {MOST:.0%} of the run, so they are drawn only at the end")
        elif self.recipe.plan.samples_on_the_way:
            yield from self.draw()

    def at_the_end(self) -> Yielding[dict[str, Path]]:
        """Draw the last round, with the final weights, after the optimizer's state is gone. Returns the pictures' paths by prompt."""
        paths = {}
        if self.recipe.settings.sample_every != 0:
            yield PhaseStarted(name="drawing samples")
            for event in self.draw(in_parts=lacks_room(self.recipe.plan)):
                if isinstance(event, SampleSaved):
                    paths[event.prompt] = event.path
                yield event
        return paths

    def draw(self, *, in_parts: bool = False) -> Events:
        """Draw a round. If memory runs out, a warning replaces the rest of it."""
        began, remark, settings, step = time.monotonic(), "", self.recipe.settings, self.training.step
        wanted = sample_prompts(self.recipe.prompts, settings.sample_prompt)
        try:
            with closing(drawn(self.training, self.recipe, wanted, steps=settings.sample_steps, in_parts=in_parts)) as pictures:
                for number, (prompt, picture) in enumerate(pictures, 1):
                    text = {"prompt": prompt, "seed": str(settings.seed), "step": str(step)}
                    path = save_sample(picture, self.run.samples, f"step-{step:06d}-{number}", text)
                    yield SampleSaved(step=step, path=path, prompt=prompt)
        except (RuntimeError, MemoryError) as error:
            remark = memory_remark(error, step)
        self.seconds = time.monotonic() - began
        if remark:
            yield Warned(message=remark)


def is_due(settings: TrainSettings, step: int) -> bool:
    """Whether a round is due after this step; never after the last one. With `auto`, a run too short to learn has none."""
    every, steps = settings.sample_every, settings.steps
    if step == steps:
        return False
    if isinstance(every, str):
        return is_quarter(settings, step)
    return every > 0 and step % every == 0


def is_quarter(settings: TrainSettings, step: int) -> bool:
    """Whether the first, second or third quarter of a run ends with this step; a run too short to learn has no quarters."""
    done, more = divmod(step, quarter_of(settings) or step + 1)
    return more == 0 and 0 < done < ROUNDS


def quarter_of(settings: TrainSettings) -> int:
    """The steps in a quarter of a run, rounded up, so that the fourth ends with it; 0 if it is too short to learn."""
    return ceil(settings.steps / ROUNDS) if settings.steps >= TRY else 0


def announced_every(settings: TrainSettings, plan: Plan) -> int:
    """The steps between two rounds, as far as is known before the first; all of them if a round comes only at the end, 0 if none comes."""
    if settings.sample_every != AUTO:
        return int(settings.sample_every)
    return (plan.samples_on_the_way and quarter_of(settings)) or settings.steps


def takes_too_much(round_seconds: float, run_seconds: float) -> bool:
    """Whether four rounds would take more than their share of a run's time."""
    return ROUNDS * round_seconds > MOST * run_seconds


def drawn(
    training: Training, recipe: Recipe, prompts: Sequence[str], *, steps: int, in_parts: bool = False
) -> Generator[tuple[str, Any], None, None]:
    """Draw a picture of each prompt, loading again the parts that were freed. `in_parts`: the networks take turns on the card."""
    base, pipe, drawing = recipe.base, training.family.pipe, drawing_of(recipe, steps)
    known = all(prompt in training.embedded for prompt in prompts)  # then only the VAE is needed
    held = [name for name in base.facts.family.networks if getattr(pipe, name) is not None]
    where = find_device("cpu") if in_parts else training.device
    brought = bring_back(pipe, base, dtype=DTYPES["fp32"], device=where, only=[VAE] if known else None)
    try:
        for prompt in prompts:
            with scheduled(pipe, training.family.record.class_sampler):  # for which few steps are enough
                picture = training.draw(prompt, recipe.settings.seed, drawing, in_parts=in_parts)
            yield prompt, picture
    finally:
        let_go(pipe, brought)
        if in_parts:
            place(pipe, held, training.device)
