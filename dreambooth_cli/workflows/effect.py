"""What a run has made of its base: measured before the first step, at each quarter and at the end, then put into a verdict."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..bases.catalog import find_entry
from ..engine.evaluation import copy_scores
from ..engine.training.effect import Answer, compare
from ..engine.training.loop import Training
from ..events import Events, FixedNoiseLoss, VerdictTold, Warned, Yielding
from ..photos.picture import read_picture
from ..run import Run
from ..verdict import Figures, judge
from .recipe import Recipe
from .samples import TRY

# For a run, and for a try: how many times and noises a loss is the mean of; denoising steps of the picture that is compared.
ROWS, ROWS_OF_A_TRY = 16, 2
STEPS, STEPS_OF_A_TRY = 10, 2


def is_try(recipe: Recipe) -> bool:
    """Whether a run is too short to learn anything: measuring it in full would take longer than the run."""
    return recipe.settings.steps < TRY


def rows_of(recipe: Recipe) -> int:
    """At how many noises the losses of a run are measured."""
    return ROWS_OF_A_TRY if is_try(recipe) and foreign_loss(recipe) is None else ROWS


def foreign_loss(recipe: Recipe) -> float | None:
    """The loss from which on photos show nothing that the base knows; None for a base that knows more than a few things."""
    entry = find_entry(recipe.base.name)
    return entry.foreign_loss if entry is not None else None


def answer_of(training: Training, recipe: Recipe) -> Answer:
    """What the model with its present weights makes of the two prompts."""
    return training.answer(prompts_of(recipe), rows=rows_of(recipe), steps=STEPS_OF_A_TRY if is_try(recipe) else STEPS)


def prompts_of(recipe: Recipe) -> tuple[str, str]:
    """The two prompts that are measured: the instance prompt and the class prompt."""
    return recipe.prompts.instance, recipe.prompts.class_


def first_answer(training: Training, recipe: Recipe) -> Yielding[Answer]:
    """What the base makes of the two prompts. Returns it, for the end of the run."""
    answer = answer_of(training, recipe)
    yield FixedNoiseLoss(step=0, loss=answer.loss, class_loss=answer.class_loss)
    return answer


def loss_now(training: Training, recipe: Recipe) -> FixedNoiseLoss:
    """The losses of the present weights at the same noises as before."""
    loss, class_loss = training.losses(prompts_of(recipe), rows=rows_of(recipe))
    return FixedNoiseLoss(step=training.step, loss=loss, class_loss=class_loss)


def tell_verdict(training: Training, before: Answer, run: Run, recipe: Recipe, samples: Mapping[str, Path]) -> Events:
    """The verdict on a run with its final weights, which is also stored in its record; `samples`: its last pictures, by prompt."""
    after = answer_of(training, recipe)
    figures = with_copies(replace(compare(before, after), foreign=foreign_loss(recipe)), recipe, samples)
    verdict, measured = judge(figures), figures.told()
    yield FixedNoiseLoss(step=training.step, loss=after.loss, class_loss=after.class_loss)
    if verdict.word == "barely" and not is_try(recipe):
        yield Warned(message=verdict.sentences[0])
    run.write_record(run.record().with_verdict(verdict, measured))
    yield VerdictTold(verdict=verdict.word, of_class=verdict.of_class, sentences=verdict.sentences, figures=measured)


def with_copies(figures: Figures, recipe: Recipe, samples: Mapping[str, Path]) -> Figures:
    """The same figures with the photo that a sample is most like. If there is one, this looks at a sample in another place: with the
    trained prompt, a picture may rightly resemble a photo."""
    prompts = recipe.prompts
    others = [prompt for prompt in samples if prompt not in (prompts.instance, prompts.class_)] or [prompts.instance]
    drawn = [read_picture(samples[prompt]) for prompt in others if prompt in samples]
    if not drawn:
        return figures
    scores = {photo.name: max(copy_scores(drawn, [read_picture(photo.path)])) for photo in recipe.photos}
    nearest = max(scores, key=lambda name: scores[name])
    return replace(figures, copied=scores[nearest], nearest=nearest)
