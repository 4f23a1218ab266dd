"""Everything before a run's first step: load the base, gather class images, encode pictures and prompts, place the networks."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from ..bases.catalog import guidance_of
from ..captions import filled, prompt_with
from ..engine.families.latent_diffusion import (
    Conditioning,
    LatentDiffusion,
    LatentDistribution,
    autocast,
    encode_frozen,
)
from ..engine.families.loading import DTYPES, find_device, let_go, place
from ..engine.images.sampling import Embedded, check_steps, embed
from ..engine.training.examples import Example, encode_pictures, latent_mask
from ..engine.training.loop import Training
from ..engine.training.places import find_place
from ..engine.training.smallest_step import take_a_step
from ..events import Events, Noted, PhaseStarted, PictureEncoded, Warned, Yielding
from ..families.family import VAE
from ..frames import prompts_in
from ..identifier import length_remarks, load_tokenizer
from ..memory.ledger import takes_turns
from ..memory.plan import weights_of
from ..prompts import plain_class_prompt
from .class_images import class_image_prompts, gather_class_images
from .networks import bring, load_base
from .prepared import PreparedPhoto
from .recipe import Recipe
from .samples import draw_before, sample_prompts


def make_training(recipe: Recipe, *, cache: Path | None = None, samples: Path | None = None) -> Yielding[Training]:
    """Everything before the first step: load, class images, encode, place. Returns the training at step 0.

    `cache`: a folder for the class images that are drawn, in place of the cache that all projects share. `samples`: the folder for what
    the base itself draws for the samples' prompts, if that is wanted.
    """
    plan, settings = recipe.plan, recipe.settings
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
    turns = takes_turns(recipe.base.facts)
    wanted = samples if settings.sample_every != 0 else None
    if wanted is not None and not turns:
        yield from draw_before(family, recipe, wanted)
    pictures = yield from encode(family, recipe, class_paths)
    device, encoders = find_device(plan.device), list(recipe.base.facts.family.text_encoders)
    let_go(family.pipe, [VAE])
    bring(family, recipe.base, plan, encoders)
    place(family.pipe, encoders, find_device("cpu") if plan.text_off_card else device)
    places = (*recipe.prompts.places, "")
    captions = [filled(photo.caption, recipe.prompts.identifier) for photo in recipe.photos]
    in_places = [prompt_with(recipe.prompts.class_, one) for one in places]
    asked = encode_frozen(family, in_places) if len(places) > 1 and not all(captions) else None
    embedded: dict[str, Embedded] = {}
    possible, kept = prompts_of(recipe, [prompts_with(recipe, one) for one in dict.fromkeys([*places, *captions])]), None
    if not plan.train_text_encoder:  # before the denoiser comes: both at once may be too much for a small card
        kept = encode_frozen(family, possible).to(device)
        embedded = embed_samples(family, recipe, device) if turns and settings.sample_every != 0 else {}
        let_go(family.pipe, encoders)
    bring(family, recipe.base, plan, [family.record.denoiser])
    place(family.pipe, [family.record.denoiser, *encoders], device)
    if wanted is not None and turns:
        yield from draw_before(family, recipe, wanted, embedded=embedded)
    said = captions
    if asked is not None:
        untold = [number for number, caption in enumerate(captions) if not caption]
        told = yield from tell_places(family, recipe, [pictures.instance[number] for number in untold], places, asked)
        found = dict(zip(untold, told, strict=True))
        said = [found.get(number, caption) for number, caption in enumerate(captions)]
    examples, texts = make_examples(recipe, pictures, said)
    yield from tell_long(recipe, said)
    return Training(
        family,
        plan,
        settings,
        device=device,
        examples=examples,
        prompts=texts,
        conditioning=None if kept is None else kept.rows(list(map(possible.index, texts))),
        plain=plain_rows(recipe, texts) if settings.with_base_prior else (),
        embedded=embedded,
    )


def embed_samples(family: LatentDiffusion, recipe: Recipe, device: Any) -> dict[str, Embedded]:
    """The samples' prompts, encoded while the text encoder is still loaded; each on the device, beside the denoiser."""
    scale = guidance_of(recipe.base.name, family.record)
    wanted = sample_prompts(recipe.prompts, recipe.settings.sample_prompt)
    return {prompt: embed(family, prompt, guidance_scale=scale).to(device) for prompt in wanted}


@dataclass(frozen=True)
class Pictures:
    """The latents of the photos, of their mirrored twins (empty if not wanted) and of the class images."""

    instance: list[LatentDistribution]
    mirrored: list[LatentDistribution]
    prior: list[LatentDistribution]


def encode(family: LatentDiffusion, recipe: Recipe, class_paths: list[Path]) -> Yielding[Pictures]:
    """Photos and class images -> latents."""
    photos, settings = [photo.path for photo in recipe.photos], recipe.settings
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
    return Pictures(*found)


def tell_places(
    family: LatentDiffusion, recipe: Recipe, photos: list[LatentDistribution], places: Sequence[str], asked: Conditioning
) -> Yielding[list[str]]:
    """The place that each photo shows, as the base sees it; `asked`: the class prompt with each of `places`, encoded."""
    yield PhaseStarted(name="the photos' places", total=len(photos), unit="photos")
    found = []
    for number, photo in enumerate(photos, 1):
        with autocast(recipe.plan.precision, find_device(recipe.plan.device)):
            found.append(places[find_place(family, photo, asked, batch=recipe.settings.batch_size)])
        yield PictureEncoded(number=number, total=len(photos))
    told = ", ".join(f"{one} ({count})" for one, count in Counter(filter(None, found)).items())
    if told:
        yield Noted(message=f"the photos' prompts will name the place that the base sees in each photo: {told}")
    return found


def tell_long(recipe: Recipe, said: Sequence[str]) -> Events:
    """A warning for each place that makes a prompt longer than the model reads; the other prompts were checked before."""
    longest = [max(prompts_with(recipe, one), key=len) for one in dict.fromkeys(filter(None, said))]
    family = recipe.base.facts.family
    tokenizer = load_tokenizer(recipe.base.vocabulary)
    for remark in length_remarks(longest, tokenizer, most=family.prompt_length, frame=family.prompt_frame):
        yield Warned(message=remark)


def make_examples(recipe: Recipe, pictures: Pictures, said: Sequence[str]) -> tuple[dict[str, list[Example]], list[str]]:
    """The examples by kind ("instance", "class"), each with the rows of its prompts, and these prompts. `said`: each photo's caption or
    place."""
    of_photos = [prompts_with(recipe, one) for one in said]
    texts = prompts_of(recipe, of_photos)
    row = {text: number for number, text in enumerate(texts)}
    rows = [tuple(row[text] for text in several) for several in of_photos]
    twins, side = pictures.mirrored or repeat(None), recipe.plan.resolution
    photos = zip(pictures.instance, rows, twins, recipe.photos, strict=bool(pictures.mirrored))
    examples = {"instance": [example_of(recipe, *photo) for photo in photos]}
    if pictures.prior:
        whole = (side, side, 0, 0, side, side) if is_told_sizes(recipe) else ()
        of_class = zip(pictures.prior, class_image_prompts(recipe), strict=True)
        examples["class"] = [Example(one, (row[prompt],), sizes=whole) for one, prompt in of_class]
    return examples, texts


def example_of(
    recipe: Recipe, latents: LatentDistribution, prompts: tuple[int, ...], twin: LatentDistribution | None, photo: PreparedPhoto
) -> Example:
    """A photo as an example, with its mask, and with its sizes if its family takes them."""
    mask = None if photo.mask is None else latent_mask(photo.mask, latents.mean.shape[1:])
    told = is_told_sizes(recipe)
    return Example(
        latents,
        prompts,
        twin,
        mask,
        sizes=photo.sizes() if told else (),
        mirrored_sizes=photo.sizes(mirrored=True) if told else (),
    )


def is_told_sizes(recipe: Recipe) -> bool:
    """Whether the network is told each picture's sizes, as SDXL's is; not in a run that 0.2 began, which did not record them."""
    return recipe.base.facts.family.size_numbers > 0 and all(photo.sizes() for photo in recipe.photos)


def prompts_with(recipe: Recipe, said: str) -> tuple[str, ...]:
    """The prompts of a photo with this caption or place, each repeated in proportion to how often it is used."""
    prompts = recipe.prompts
    return prompts_in(prompts.instance, prompts.instance_frames, said, dropout=recipe.settings.caption_dropout)


def prompts_of(recipe: Recipe, of_photos: Sequence[Sequence[str]]) -> list[str]:
    """All prompts of a run, each once: the instance prompt first, then those of its photos, the class prompt, those of its class images;
    with --prior base, each of them without the identifier too."""
    of_class = class_image_prompts(recipe) if recipe.settings.with_prior else []
    said = [recipe.prompts.instance, *chain(*of_photos), recipe.prompts.class_, *of_class]
    plain = [without_identifier(recipe, text) for text in said] if recipe.settings.with_base_prior else []
    return list(dict.fromkeys([*said, *plain]))


def plain_rows(recipe: Recipe, texts: Sequence[str]) -> list[int]:
    """For each of a run's prompts, the row of the same prompt without the identifier; its own row if it has none."""
    twins = [without_identifier(recipe, text) for text in texts]
    return [texts.index(twin) if twin in texts else row for row, twin in enumerate(twins)]


def without_identifier(recipe: Recipe, text: str) -> str:
    """A prompt of a run, as it would be for any subject of the class."""
    return plain_class_prompt(text, recipe.prompts.identifier)
