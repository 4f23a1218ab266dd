"""All that comes before a run's first step: the base loaded, class images, pictures and prompts encoded, the networks placed."""

from pathlib import Path

from ..bases.base import Base
from ..engine.families.latent_diffusion import LatentDiffusion, denoiser_of, encode_frozen
from ..engine.families.loading import DTYPES, bring_back, find_device, let_go, load_family, place, text_encoders_of
from ..engine.families.lora import quantize
from ..engine.images.sampling import check_steps
from ..engine.training.examples import Example, encode_pictures, examples_of
from ..engine.training.loop import Training
from ..engine.training.smallest_step import take_a_step
from ..events import PhaseStarted, PictureEncoded, Yielding
from ..families.family import VAE
from ..frames import OWN_SHARE
from ..memory.plan import Plan, weights_of
from .class_images import gather_class_images
from .recipe import Recipe


def make_training(recipe: Recipe, *, cache: Path | None = None) -> Yielding[Training]:
    """All that comes before the first step: load, class images, encode, place. Returns the training at step 0.

    `cache` holds the class images that are drawn, if not all projects' own does.
    """
    plan, settings, prompts = recipe.plan, recipe.settings, recipe.prompts
    yield PhaseStarted(name="loading the base model")
    take_a_step(recipe.base.facts.family, plan, settings, DTYPES[weights_of(plan)])
    family = load_base(recipe.base, plan)
    if settings.with_prior:
        check_steps(family.pipe, settings.class_image_steps, "--class-image-steps")
    if settings.sample_every:
        check_steps(family.pipe, settings.sample_steps, "--sample-steps")
    class_paths: list[Path] = []
    if settings.with_prior:
        class_paths = yield from gather_class_images(family, recipe, cache)
    examples = yield from encode(family, recipe, class_paths)
    texts = [*prompts.of_photos, prompts.class_] if "class" in examples else list(prompts.of_photos)
    device, encoders = find_device(plan.device), list(text_encoders_of(family.pipe))
    let_go(family.pipe, [VAE])
    conditioning = None
    if not plan.train_text_encoder:
        place(family.pipe, encoders, device)
        conditioning = encode_frozen(family, texts)
        let_go(family.pipe, encoders)
    place(family.pipe, [family.record.denoiser, *encoders], device)
    return Training(
        family,
        plan,
        settings,
        device=device,
        examples=examples,
        prompts=texts,
        conditioning=conditioning,
    )


def load_base(base: Base, plan: Plan) -> LatentDiffusion:
    """The base in the machine's memory, ready to draw and encode, in the number format that its weights have in training."""
    find_device(plan.device)  # asked now, before minutes of loading
    family = load_family(base, dtype=DTYPES[weights_of(plan)], device=find_device("cpu"))
    if plan.quantized:
        quantize(denoiser_of(family), DTYPES[plan.precision])
        # where its 4 bits are made: always there, so always the same
        place(family.pipe, [family.record.denoiser], find_device(plan.device))
    if DTYPES[weights_of(plan)] != DTYPES["fp32"]:
        # the VAE encodes once, so its half-precision faults are not worth their speed
        let_go(family.pipe, [VAE])
        bring_back(family.pipe, base, dtype=DTYPES["fp32"], device=find_device("cpu"))
    return family


def encode(
    family: LatentDiffusion, recipe: Recipe, class_paths: list[Path]
) -> Yielding[dict[str, list[Example]]]:
    """Photos and class images -> latents. Returns the examples by kind: the photos with the rows of their prompts, the user's own
    OWN_SHARE times as often as all other frames together, the class images with the last row."""
    photos, settings = list(recipe.photos), recipe.settings
    place(family.pipe, [VAE], find_device(recipe.plan.device))
    total = len(photos) * (2 if settings.mirror else 1) + len(class_paths)
    yield PhaseStarted(name="encoding", total=total, unit="pictures")
    done, found = 0, []
    for paths, mirror in ((photos, False), (photos if settings.mirror else [], True), (class_paths, False)):
        encoded = []
        for one in encode_pictures(family, paths, mirror=mirror):
            encoded.append(one)
            done += 1
            yield PictureEncoded(number=done, total=total)
        found.append(encoded)
    instance, mirrored, prior = found
    frames = len(recipe.prompts.instance_frames)
    rows = [0] * max(1, OWN_SHARE * frames) + list(range(1, frames + 1))
    examples = {"instance": examples_of(instance, prompts=rows, mirrored=mirrored or None)}
    return examples | {"class": examples_of(prior, prompts=[frames + 1])} if prior else examples
