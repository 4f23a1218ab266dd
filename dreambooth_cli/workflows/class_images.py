"""A run's class images: the user's own, those in the cache, and new ones that the base draws."""

from contextlib import closing
from pathlib import Path

from ..disk import clear_leftovers
from ..engine.families.latent_diffusion import LatentDiffusion
from ..engine.families.loading import let_go
from ..engine.images.class_cache import (
    adopt_images,
    cache_key,
    class_image_paths,
    make_images,
    missing_batches,
)
from ..engine.images.sampling import Drawing
from ..events import ClassImageMade, PhaseStarted, Yielding
from ..frames import class_prompts_in
from ..identity import content_of
from ..locks import hold, is_held
from ..memory.ledger import takes_turns
from ..memory.plan import weights_of
from ..paths import cache_folder
from .networks import networks_in_turn, networks_of
from .recipe import Recipe

CLASS_IMAGES = "class images"  # the phase
IN_A_TURN = 16  # class images drawn between two swaps of networks; also the most that an interrupted run has to draw again


def gather_class_images(family: LatentDiffusion, recipe: Recipe, cache: Path | None = None) -> Yielding[list[Path]]:
    """The user's own class images, then as many from the cache as are still wanted, drawing those that it lacks. Returns their paths."""
    plan, settings, own = recipe.plan, recipe.settings, list(recipe.own_class_images)
    wanted = max(0, settings.class_images - len(own))
    folder, drawing = class_image_folder(recipe)
    folder = folder if cache is None else cache
    adopt_images(folder)
    if not missing_batches(folder, wanted, plan.class_image_batch):
        return own + class_image_paths(folder, wanted)  # works with a read-only cache too
    if is_held(folder):
        yield PhaseStarted(name="waiting for another run that makes these class images")
    with hold(folder):
        clear_leftovers(folder, old=r"[0-9]{6}\.part")
        missing = missing_batches(folder, wanted, plan.class_image_batch)
        if missing:
            done = wanted - sum(number < wanted for batch in missing for number in batch)
            yield PhaseStarted(name=CLASS_IMAGES, total=wanted, done=done, unit="images")
            numbers = [number for batch in missing for number in batch]
            turns, in_parts = takes_turns(recipe.base.facts), plan.class_images_in_parts
            images = make_images(
                family,
                folder,
                missing,
                prompts=class_prompts(recipe),
                drawing=drawing,
                seed=settings.seed,
                at_work=networks_in_turn(family, recipe.base, plan) if turns else networks_of(family, plan, in_parts=in_parts),
                turn=IN_A_TURN if in_parts else 1,
            )
            with closing(images):
                for number, path in zip(numbers, images, strict=True):
                    if number < wanted:
                        yield ClassImageMade(number=number + 1, total=wanted, path=path)
            if turns:
                let_go(family.pipe, [family.record.denoiser])
    return own + class_image_paths(folder, wanted)


def class_prompts(recipe: Recipe) -> tuple[str, ...]:
    """The prompts of the class images in the cache, taken in turn."""
    return class_prompts_in(recipe.prompts.class_, recipe.prompts.places, every=recipe.settings.class_place_every)


def class_image_prompts(recipe: Recipe) -> list[str]:
    """The prompt of each class image of a run, in order; the user's own have the class prompt."""
    own, in_turn = [recipe.prompts.class_] * len(recipe.own_class_images), class_prompts(recipe)
    drawn = max(0, recipe.settings.class_images - len(own))
    return own + [in_turn[number % len(in_turn)] for number in range(drawn)]


def class_images_of(recipe: Recipe) -> list[Path]:
    """The class images of a run, in order: the user's own, then the cache's."""
    own, (folder, _) = list(recipe.own_class_images), class_image_folder(recipe)
    return own + class_image_paths(folder, max(0, recipe.settings.class_images - len(own)))


def class_image_folder(recipe: Recipe) -> tuple[Path, Drawing]:
    """Where these class images are in the cache, or will be, and how they are drawn. Those made by 0.1 are under the base's revision."""
    base, plan, settings = recipe.base, recipe.plan, recipe.settings
    family = base.facts.family
    drawing = Drawing(
        steps=settings.class_image_steps,
        guidance_scale=family.guidance_of_class_images(settings.class_guidance_scale),
        width=plan.resolution,
        height=plan.resolution,
    )
    folders = [
        cache_folder()
        / "class-images"
        / cache_key(
            base=known,
            prompts=class_prompts(recipe),
            sampler=family.class_sampler,
            drawing=drawing,
            seed=settings.seed,
            dtype=f"{'4-bit' if plan.quantized else 'fp8' if plan.fp8 else weights_of(plan)} weights, {plan.precision}",
        )
        for known in (content_of(base), base.identity)
    ]
    return next((folder for folder in folders if folder.is_dir()), folders[0]), drawing
