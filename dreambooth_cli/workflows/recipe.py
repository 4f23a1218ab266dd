"""What a run is made of: what was asked for, the base, the user's photos and class images; and the plan and prompts it is done with."""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..bases.base import Base, ask_for_base
from ..bases.cache import find_cached
from ..captions import filled, prompt_with
from ..config import Asked
from ..engine.device import as_torch_has_it
from ..engine.families.loading import find_device
from ..engine.hub.bases import obtain
from ..errors import PhotoError
from ..events import Events, Noted, PhaseStarted, PhotoLooked, PhotosPrepared, Warned, Yielding
from ..families.family import Family
from ..frames import other_frames
from ..gpu import Gpu, find_gpu
from ..identifier import choose_identifier, identifier_remarks, length_remarks, load_tokenizer, unread_part
from ..memory.plan import Plan
from ..memory.search import check_trainable, device_of
from ..places import names_a_place, places_known
from ..project import Project
from ..prompts import check_class_prompt, check_placeholder, fill, instance_prompt, plain_class_prompt, understood
from ..record import Prompts
from ..settings import TrainSettings
from ..text import shortened
from .plan import choose_resolution, known_facts, plan_with
from .prepare import prepare, prepare_class_photos, prepared_photos
from .prepared import PreparedPhoto


@dataclass(frozen=True, kw_only=True)
class Ingredients:
    """What a run is made of before it is planned: a base on disk, the prepared photos, and the user's own class images, also prepared."""

    asked: Asked
    base: Base
    photos: tuple[PreparedPhoto, ...]
    own_class_images: tuple[Path, ...]

    @property
    def settings(self) -> TrainSettings:
        """How the base is fine-tuned: as asked for, with its family's prior filled in."""
        return self.asked.train.of_family(self.base.facts.family)


@dataclass(frozen=True, kw_only=True)
class Recipe(Ingredients):
    """What a run is made of, how it is done, and the prompts that it trains on. Apart from the class images in the cache, nothing
    else shapes its weights."""

    plan: Plan
    prompts: Prompts


def gather(project: Project, asked: Asked) -> Yielding[Ingredients]:
    """Prepare the photos, obtain the base, prepare the user's own class images. The photos come first if their size is known, so that
    bad ones are reported before a download. Raises PhotoError, ModelUnavailable, UsageError, DiskError."""
    request = ask_for_base(asked.subject.model)
    facts = known_facts(request)
    if facts is not None:
        check_trainable(facts, asked.train.of_family(facts.family))
        resolution = choose_resolution(asked.prep, facts)
        step = facts.family.size_step
        yield from marked(prepare(project, asked.prep, resolution=resolution, step=step, source=asked.subject.photos))
    if request.path is None and find_cached(request) is None:
        check_card()
    base = yield from obtain(request, lambda facts: check_trainable(facts, asked.train.of_family(facts.family)))
    check_trainable(base.facts, asked.train.of_family(base.facts.family))
    if base.facts.distilled:
        yield Warned(message=f"{base.name} is distilled to draw in a few steps: the trained model will need more steps")
    resolution = choose_resolution(asked.prep, base.facts)
    if facts is None or choose_resolution(asked.prep, facts) != resolution:
        step = base.facts.family.size_step
        yield from marked(prepare(project, asked.prep, resolution=resolution, step=step, source=asked.subject.photos))
    own: list[Path] = []
    if asked.train.class_data_dir is not None and asked.train.with_prior:
        own = yield from prepare_class_photos(asked.train.class_data_dir, asked.prep, resolution=resolution)
    return Ingredients(asked=asked, base=base, photos=tuple(prepared_photos(project)), own_class_images=tuple(own))


def marked(events: Events) -> Events:
    """What `prepare` says; where there was nothing to do, it is marked as said before."""
    is_news = False
    with closing(events):
        for event in events:
            is_news = is_news or isinstance(event, PhaseStarted)
            if isinstance(event, PhotoLooked | PhotosPrepared) and not is_news:
                event = replace(event, unchanged=True)
            yield event


def check_card() -> None:
    """Refuse a GPU that torch can't use before a base is fetched for it. Raises UsageError."""
    find_device(device_of(as_torch_has_it(find_gpu())))


def plan_for(made_of: Ingredients, gpu: Gpu | None) -> Plan:
    """The plan of a run as it would be made now."""
    return plan_with(made_of.base.facts, made_of.base.name, made_of.asked.prep, made_of.settings, gpu=gpu)


def with_plan(made_of: Ingredients, plan: Plan, prompts: Prompts) -> Recipe:
    """The recipe made from ingredients, a plan and prompts."""
    return Recipe(
        asked=made_of.asked,
        base=made_of.base,
        photos=made_of.photos,
        own_class_images=made_of.own_class_images,
        plan=plan,
        prompts=prompts,
    )


def choose_prompts(made_of: Ingredients) -> Yielding[Prompts]:
    """The identifier, chosen from or checked against the base's own vocabulary, and the prompts made with it.

    Raises UsageError if it is unclear what the class prompt means.
    """
    asked = made_of.asked
    wanted, identifier, sample = asked.subject.class_prompt or "", asked.subject.identifier, asked.train.sample_prompt or ""
    settings = made_of.settings
    check_class_prompt(wanted, identifier, with_class_images=settings.with_prior or settings.with_base_prior)
    check_placeholder(sample)
    tokenizer, family = load_tokenizer(made_of.base.vocabulary), made_of.base.facts.family
    if identifier == "auto":
        identifier, note = choose_identifier(tokenizer, by_rarity=family.rare_words)
        if note:
            yield Noted(message=note)
    else:
        for remark in identifier_remarks(identifier, tokenizer, by_rarity=family.rare_words):
            yield Warned(message=remark)
    instance = instance_prompt(wanted, identifier)
    others = other_frames(instance, identifier) if asked.train.frames == "varied" else ()
    class_ = plain_class_prompt(wanted, identifier)
    places = places_known(tokenizer) if asked.train.frames == "varied" and not names_a_place(class_) else ()
    prompts = Prompts(identifier, instance, class_, instance_frames=others, places=places)
    said = [prompts.instance, *prompts.instance_frames, prompts.class_, fill(understood(sample), identifier)]
    for remark in length_remarks(said, tokenizer, most=family.prompt_length, frame=family.prompt_frame):
        yield Warned(message=remark)
    if tokenizer is not None:
        for photo in made_of.photos:
            check_caption(photo, prompts, tokenizer, family)
    return prompts


def check_caption(photo: PreparedPhoto, prompts: Prompts, tokenizer: Any, family: Family) -> None:
    """Refuse a caption that makes a prompt longer than its family can read. Raises PhotoError."""
    if not photo.caption:
        return
    for prompt in (prompts.instance, *prompts.instance_frames):
        text = prompt_with(prompt, filled(photo.caption, prompts.identifier))
        if part := unread_part(text, tokenizer, most=family.prompt_length, frame=family.prompt_frame):
            raise PhotoError(
                f'the caption of {photo.name} is too long: the model reads only {family.prompt_length} tokens of "{shortened(text, 80)}", '
                f'which leaves out "{shortened(part)}"',
                "say it in fewer words",
            )
