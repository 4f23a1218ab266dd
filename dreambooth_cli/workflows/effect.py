"""What a run has made of its base: measured before its first step, at each quarter and at its end, then told as a verdict."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..engine.evaluation import copy_scores
from ..engine.training.effect import Answer, compare
from ..engine.training.loop import Training
from ..events import Events, FixedNoiseLoss, VerdictTold, Warned, Yielding
from ..photos.picture import read_picture
from ..run import Run
from ..verdict import Figures, judge
from .recipe import Recipe
from .samples import TRY

# Of a run, of a try: times and noises that a loss is the mean of; denoising steps of the picture that is compared.
ROWS, ROWS_OF_A_TRY = 16, 2
STEPS, STEPS_OF_A_TRY = 10, 2


def is_try(recipe: Recipe) -> bool:
    """Whether a run is too short to learn: measured at full length it would take longer before and after than in between."""
    return recipe.settings.steps < TRY


def rows_of(recipe: Recipe) -> int:
    """How many noises the losses of a run are measured at."""
    return ROWS_OF_A_TRY if is_try(recipe) else ROWS


def answer_of(training: Training, recipe: Recipe) -> Answer:
    """What the weights answer as they stand."""
    return training.answer(prompts_of(recipe), rows=rows_of(recipe), steps=STEPS_OF_A_TRY if is_try(recipe) else STEPS)


def prompts_of(recipe: Recipe) -> tuple[str, str]:
    """The prompts that are asked about: of the photos, of the class."""
    return recipe.prompts.instance, recipe.prompts.class_


def first_answer(training: Training, recipe: Recipe) -> Yielding[Answer]:
    """What the base answers. Returns it, for the end of the run."""
    answer = answer_of(training, recipe)
    yield FixedNoiseLoss(step=0, loss=answer.loss, class_loss=answer.class_loss)
    return answer


def loss_now(training: Training, recipe: Recipe) -> FixedNoiseLoss:
    """The losses at the same noises by the weights as they stand."""
    loss, class_loss = training.losses(prompts_of(recipe), rows=rows_of(recipe))
    return FixedNoiseLoss(step=training.step, loss=loss, class_loss=class_loss)


def tell_verdict(training: Training, before: Answer, run: Run, recipe: Recipe, samples: Mapping[str, Path]) -> Events:
    """The verdict of a run whose weights are finished, kept in its record; `samples` are its last pictures, by their prompts."""
    after = answer_of(training, recipe)
    figures = with_copies(compare(before, after), recipe, samples)
    verdict, measured = judge(figures), figures.told()
    yield FixedNoiseLoss(step=training.step, loss=after.loss, class_loss=after.class_loss)
    if verdict.word == "barely" and not is_try(recipe):
        yield Warned(message=verdict.sentences[0])
    run.write_record(run.record().with_verdict(verdict, measured))
    yield VerdictTold(verdict=verdict.word, of_class=verdict.of_class, sentences=verdict.sentences, figures=measured)


def with_copies(figures: Figures, recipe: Recipe, samples: Mapping[str, Path]) -> Figures:
    """The same with the photo that a sample is most like: one of the subject in another place, where there is one, since asked for in its
    own sentence it may well stand as in a photo."""
    prompts = recipe.prompts
    others = [prompt for prompt in samples if prompt not in (prompts.instance, prompts.class_)] or [prompts.instance]
    drawn = [read_picture(samples[prompt]) for prompt in others if prompt in samples]
    if not drawn:
        return figures
    scores = {photo.name: max(copy_scores(drawn, [read_picture(photo.path)])) for photo in recipe.photos}
    nearest = max(scores, key=lambda name: scores[name])
    return replace(figures, copied=scores[nearest], nearest=nearest)
