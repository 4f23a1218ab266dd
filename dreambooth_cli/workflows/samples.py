"""Pictures drawn in the middle of training, by the weights as they stand."""

from collections.abc import Generator, Iterable
from contextlib import closing
from typing import Any

from ..bases.catalog import guidance_of
from ..disk import disk_errors
from ..engine.families.loading import DTYPES, bring_back, let_go
from ..engine.images.sampling import Drawing
from ..engine.training.loop import Training
from ..events import Events, SampleSaved
from ..photos.picture import save_new
from ..prompts import fill, understood
from ..run import Run
from .recipe import Recipe


def draw_samples(training: Training, run: Run, recipe: Recipe) -> Events:
    """Pictures of the identifier prompt, the class prompt and the user's own, from a fixed seed."""
    settings, prompts = recipe.settings, recipe.prompts
    wanted = [prompts.instance, prompts.class_]
    if settings.sample_prompt:
        wanted.append(fill(understood(settings.sample_prompt), prompts.identifier))
    with closing(drawn(training, recipe, wanted, steps=settings.sample_steps)) as pictures:
        for place, (prompt, picture) in enumerate(pictures):
            text = {"prompt": prompt, "seed": str(settings.seed), "step": str(training.step)}
            with disk_errors(run.samples):
                path = save_new(picture, run.samples, f"step-{training.step:06d}-{place + 1}", text)
            yield SampleSaved(step=training.step, path=path, prompt=prompt)


def drawn(training: Training, recipe: Recipe, prompts: Iterable[str], *, steps: int) -> Generator[tuple[str, Any], None, None]:
    """A picture of each prompt; the parts that were let go come back for it."""
    size, base, pipe = recipe.plan.resolution, recipe.base, training.family.pipe
    drawing = Drawing(steps=steps, guidance_scale=guidance_of(base.name, base.facts.family), width=size, height=size)
    brought = bring_back(pipe, base, dtype=DTYPES["fp32"], device=training.device)
    try:
        for prompt in prompts:
            yield prompt, training.draw(prompt, recipe.settings.seed, drawing)
    finally:
        let_go(pipe, brought)
