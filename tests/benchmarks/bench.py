"""Training and measuring one subject under one variant of the settings; measurements are kept in a folder."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.bases.catalog import advice_of, guidance_of
from dreambooth_cli.config import Resolved, ask, merge
from dreambooth_cli.engine import evaluation
from dreambooth_cli.engine.families.latent_diffusion import LatentDiffusion, encode_frozen
from dreambooth_cli.engine.families.loading import load_family
from dreambooth_cli.engine.families.lora_file import load_lora
from dreambooth_cli.engine.hub.bases import obtain
from dreambooth_cli.engine.images.sampling import Drawing, draw, use_scheduler
from dreambooth_cli.engine.training.effect import loss_at_fixed_noises
from dreambooth_cli.engine.training.examples import Example, encode_pictures
from dreambooth_cli.engine.training.places import STEPS, TIMES
from dreambooth_cli.events import Event, ModelSaved
from dreambooth_cli.families.stable_diffusion import STABLE_DIFFUSION
from dreambooth_cli.identifier import load_tokenizer
from dreambooth_cli.paths import projects_folder
from dreambooth_cli.places import places_known
from dreambooth_cli.pocket import eyes, world
from dreambooth_cli.pocket.build import JUDGE, MODEL
from dreambooth_cli.pocket.card import sheet_of
from dreambooth_cli.project import Project
from dreambooth_cli.prompts import instance_prompt
from dreambooth_cli.run import Run
from dreambooth_cli.settings import AUTO, SubjectSettings, TrainSettings, shaping
from dreambooth_cli.workflows.initialise import initialise
from dreambooth_cli.workflows.prepare import prepared_photos
from dreambooth_cli.workflows.train import train

from .subjects import Study, ceiling_of

BASE = "pocket"
DRAWING = Drawing(steps=25, guidance_scale=guidance_of(BASE, STABLE_DIFFUSION), width=64, height=64)
WRONG = dict(zip(world.CLASSES, [*list(world.CLASSES)[5:], *list(world.CLASSES)[:5]], strict=True))


@dataclass(frozen=True)
class Variant:
    """A way to train: the settings that differ from pocket's defaults; `noun` replaces the class noun ("" for none); `captioned`: each
    photo has a caption that names the place where it was drawn."""

    name: str
    train: dict[str, Any] = field(default_factory=dict)
    noun: str | None = None
    captioned: bool = False


PASTED = Variant("a photo pasted")


@dataclass(frozen=True)
class Measured:
    """One subject under one variant. S, the floor and the ceiling are mean cosines; shares are 0..1; losses at fixed noises.

    `copied` and `nearest` are those of the generated picture that is most like a photo: the correlation of pixels, and the cosine in
    the judge's space.
    """

    fidelity: float
    floor: float
    ceiling: float
    retrieved: float
    place: float
    base_place: float
    class_right: float
    base_class_right: float
    clip_text: float
    base_clip_text: float
    preservation: float
    base_preservation: float
    diversity: float
    base_diversity: float
    copied: float
    base_copied: float
    nearest: float
    base_nearest: float
    identifier_loss: tuple[float, ...]
    unrelated_loss: tuple[float, ...]
    seconds: float
    any_frame: float
    any_frame_retrieved: float
    any_frame_place: float
    base_any_frame_place: float
    passes: int

    @property
    def scaled(self) -> float:
        """S on the scale from floor (0) to ceiling (1)."""
        return (self.fidelity - self.floor) / (self.ceiling - self.floor)

    @property
    def any_frame_scaled(self) -> float:
        """S in frames that no training uses, on the same scale."""
        return (self.any_frame - self.floor) / (self.ceiling - self.floor)

    @property
    def any_frame_share(self) -> float:
        """S in frames that no training uses, as a share of S in the trained frame."""
        return self.any_frame_scaled / self.scaled


@dataclass(frozen=True)
class Made:
    """What a variant made of a subject: pictures from the prompts with the identifier and from the class prompt, and the losses of the
    photos at fixed noises, before and after."""

    drawn: list[Image.Image]
    of_class: list[Image.Image]
    identifier_loss: tuple[float, ...]
    unrelated_loss: tuple[float, ...]
    in_any_frame: list[Image.Image]
    passes: int = 0


class Bench:
    """What all runs share: the eyes, the base's own pictures, each subject's project. Everything is in `work`."""

    def __init__(
        self, work: Path, *, seeds: Sequence[int] = (0, 1), class_seeds: Sequence[int] = range(100, 120), drawing: Drawing = DRAWING
    ) -> None:
        self.seeds, self.class_seeds, self.drawing = list(seeds), list(class_seeds), drawing
        os.environ["DREAMBOOTH_HOME"] = str(work)
        self.work = work
        self.judge = eyes.pocket_judge()
        self.individuals = eyes.PocketIndividuals(self.judge)
        self.clip = eyes.PocketClip()
        self.base = last_of(obtain(ask_for_base(BASE)))
        self.family = load_family(self.base, dtype=torch.float32, device=torch.device("cpu"))
        use_scheduler(self.family.pipe, "dpm++")
        self._base_pictures: dict[str, list[Image.Image]] = {}
        self.weights = digest_of_weights()
        asked = len(places_known(load_tokenizer(self.base.vocabulary))) + 1  # each place that the base knows, and none
        # after each time the worse half is left out
        self.passes_of_a_photo = sum(-(-asked // 2**number) for number in range(len(self.family.noising.spread(STEPS)[TIMES])))

    def measure(self, study: Study, variant: Variant) -> Measured:
        """Measure a subject under a variant, from the kept file or by training and drawing now."""
        path = self.path_of(study.name, variant)
        found = self.kept(path)
        if found is not None:
            return found
        began = time.monotonic()
        made = self.paste(study) if variant is PASTED else self.train_and_draw(study, variant)
        measured = self.score(study, made, time.monotonic() - began)
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet = sheet_of([*study.photos, *made.drawn, *made.of_class], columns=10)
        sheet.save(path.with_name(f"{study.name} {variant.name}.png"))
        path.write_text(json.dumps(asdict(measured)))
        return measured

    def kept(self, path: Path) -> Measured | None:
        """What was measured before."""
        return measured_of(json.loads(path.read_text())) if path.exists() else None

    def path_of(self, subject: str, variant: Variant) -> Path:
        """Where a subject's measurements are kept: by these weights and whatever shapes a model, not by the variant's name."""
        shape = dict(shaping(settings_of(variant, {}).values))
        how = f"{shape} {variant.noun} {variant is PASTED} {self.seeds} {self.class_seeds} {self.drawing}"
        how += " captioned" if variant.captioned else ""
        name = f"{subject} {hashlib.sha256(how.encode()).hexdigest()[:12]}.json"
        return self.work / f"results-{self.weights}" / name

    def train_and_draw(self, study: Study, variant: Variant) -> Made:
        """Train a subject under a variant and draw the pictures that are asked for."""
        project = self.project(study)
        noun = {None: study.noun, "wrong": WRONG.get(study.noun, "teapot")}.get(variant.noun, "")
        for number, place in enumerate(study.shown):
            caption = project.photos / f"{number}.txt"
            caption.write_text(place, encoding="utf-8") if variant.captioned else caption.unlink(missing_ok=True)
        run = self.train(project, noun, variant)
        family = load_family(self.base, dtype=torch.float32, device=torch.device("cpu"))
        use_scheduler(family.pipe, "dpm++")
        load_trained(family.pipe, run)
        shutil.rmtree(run.path)
        named = study.named_prompts(noun)
        photos = [photo.path for photo in prepared_photos(project)]
        examples = [Example(one, (0,)) for one in encode_pictures(self.family, photos)]

        def losses(prompt: str) -> tuple[float, ...]:
            return tuple(
                loss_at_fixed_noises(one, examples, encode_frozen(one, [prompt])) for one in (self.family, family)
            )

        return Made(
            drawn=self.draw(family, named, study.seeds),
            of_class=self.draw(family, study.plain_prompts, study.class_seeds),
            identifier_loss=losses(instance_prompt(f"a photo of a {noun}".strip(), study.identifier)),
            unrelated_loss=losses(f"a photo of a {WRONG.get(study.noun, 'teapot')}"),
            in_any_frame=self.draw(family, study.framed_prompts(f"{study.identifier} {noun}".strip()), study.seeds),
            passes=passes_of(settings_of(variant, {}).values, 0 if variant.captioned else len(study.photos) * self.passes_of_a_photo),
        )

    def paste(self, study: Study) -> Made:
        """The control that copies: a training photo for every prompt, with the class left as it was."""
        drawn = [study.photos[place % len(study.photos)] for place in range(len(study.places))]
        return Made(drawn, self.base_pictures(study.plain_prompts, study.class_seeds), (1.0, 1.0), (1.0, 1.0), drawn)

    def score(self, study: Study, made: Made, seconds: float) -> Measured:
        """The measurements of what was made, with the base's own from the same prompts and seeds."""
        eye, photos, asked = study.eye, study.photos, study.class_prompts
        base_drawn = self.base_pictures(asked, study.seeds)
        base_class = self.base_pictures(study.plain_prompts, study.class_seeds)
        base_named = self.base_pictures(study.named_prompts(study.noun), study.seeds)
        base_framed = self.base_pictures(study.framed_prompts(study.noun), study.seeds)
        pictures = (made.drawn, base_drawn, made.in_any_frame, base_framed)
        reading, base_reading, framed, framed_base = (self.judge.read(evaluation.to_pixels(one, 64)) for one in pictures)
        return Measured(
            fidelity=evaluation.subject_fidelity(eye, made.drawn, photos),
            floor=evaluation.subject_fidelity(eye, base_drawn, photos),
            ceiling=ceiling_of(study),
            retrieved=share(evaluation.closest(eye, made.drawn, [photos, *study.others]), 0),
            place=agreement(reading.answers("place"), study.places),
            base_place=agreement(base_reading.answers("place"), study.places),
            class_right=share(reading.answers("class"), study.noun),
            base_class_right=share(base_reading.answers("class"), study.noun),
            clip_text=evaluation.prompt_fidelity(self.clip, made.drawn, asked),
            base_clip_text=evaluation.prompt_fidelity(self.clip, base_drawn, asked),
            preservation=evaluation.subject_fidelity(eye, made.of_class, photos),
            base_preservation=evaluation.subject_fidelity(eye, base_class, photos),
            diversity=evaluation.diversity(eye, made.of_class),
            base_diversity=evaluation.diversity(eye, base_class),
            copied=max(evaluation.copy_scores(made.drawn, photos)),
            base_copied=max(evaluation.copy_scores(base_named, photos)),
            nearest=max(evaluation.nearest_cosines(self.clip, made.drawn, photos)),
            base_nearest=max(evaluation.nearest_cosines(self.clip, base_named, photos)),
            identifier_loss=made.identifier_loss,
            unrelated_loss=made.unrelated_loss,
            seconds=seconds,
            any_frame=evaluation.subject_fidelity(eye, made.in_any_frame, photos),
            any_frame_retrieved=share(evaluation.closest(eye, made.in_any_frame, [photos, *study.others]), 0),
            any_frame_place=agreement(framed.answers("place"), study.places),
            base_any_frame_place=agreement(framed_base.answers("place"), study.places),
            passes=made.passes,
        )

    def project(self, study: Study) -> Project:
        """The subject's project, with its photos."""
        project = Project(projects_folder() / study.name)
        if not project.config.is_file():
            folder = self.work / "photos" / study.name
            folder.mkdir(parents=True, exist_ok=True)
            for place, photo in enumerate(study.photos):
                photo.save(folder / f"{place}.png")
            prompt = f"a photo of a {study.noun}"
            subject = SubjectSettings(photos=folder, class_prompt=prompt, identifier=study.identifier, model=BASE)
            list(initialise(project.name, subject=subject, prep={}, train={"checkpoint_every": 0}))
        return project

    def train(self, project: Project, noun: str, variant: Variant) -> Run:
        """Train the project under a variant, as the command does."""
        stored = project.settings()
        words = f"a photo of a {noun}" if noun else "a photo of a [identifier]"
        events = train(
            project,
            ask(stored, {SubjectSettings: {"class_prompt": words}}).with_train(settings_of(variant, stored["train"]).values),
        )
        saved = [event for event in events if isinstance(event, ModelSaved)]
        return Run(saved[-1].path.parent)

    def base_pictures(self, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        """What the base draws; kept, since it is the same for every variant."""
        key = json.dumps([prompts, seeds])
        if key not in self._base_pictures:
            self._base_pictures[key] = self.draw(self.family, prompts, seeds)
        return self._base_pictures[key]

    def draw(self, family: LatentDiffusion, prompts: list[str], seeds: list[int], batch: int = 10) -> list[Image.Image]:
        """One picture for each prompt and seed."""
        return [
            picture
            for start in range(0, len(prompts), batch)
            for picture in draw(family, prompts[start : start + batch], seeds[start : start + batch], self.drawing)
        ]


def measured_of(found: dict[str, Any]) -> Measured:
    """What was measured, from its JSON."""
    return Measured(**found | {name: tuple(found[name]) for name in ("identifier_loss", "unrelated_loss")})


# The pictures are drawn here, of the last step alone; the weights are the same to the bit.
UNWATCHED: dict[str, Any] = {"sample_every": 0, "judge": "none", "keep": "last"}


def settings_of(variant: Variant, stored: dict[str, Any]) -> Resolved[TrainSettings]:
    """A variant's settings: its own, then the project's, then pocket's defaults."""
    return merge(TrainSettings, stored, UNWATCHED | variant.train, advised=advice_of(BASE, "train", variant.train.get("method", AUTO)))


def passes_of(settings: TrainSettings, places: int) -> int:
    """What a run costs in passes of one row through the denoiser, where backward and guidance count as two: its class images, finding the
    `places` of its photos, if they are found, and its steps."""
    rows = sum(settings.rows) * settings.gradient_accumulation
    told = places if settings.frames == "varied" else 0
    guided = STABLE_DIFFUSION.guidance_of_class_images(settings.class_guidance_scale) > STABLE_DIFFUSION.no_guidance
    drawn = settings.class_images * settings.class_image_steps * (2 if guided else 1) if settings.with_prior else 0
    return told + settings.steps * rows * 3 + drawn


def digest_of_weights() -> str:
    """A short name for the pocket's weights and its judge's."""
    found = hashlib.sha256()
    for path in sorted([*MODEL.rglob("*.safetensors"), *JUDGE.rglob("*.safetensors")]):
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def load_trained(pipe: Any, run: Run) -> None:
    """Put a run's weights into the base's pipeline."""
    if (run.model / "pytorch_lora_weights.safetensors").is_file():
        load_lora(pipe, run.model)
        return
    for name in ("unet", "text_encoder"):
        part = getattr(pipe, name)
        fresh = type(part).from_pretrained(run.model / name)
        part.load_state_dict(fresh.state_dict())


def share(found: Sequence[Any], wanted: Any) -> float:
    """How much of what was found is what was wanted."""
    return sum(bool(one == wanted) for one in found) / len(found)


def agreement(found: Sequence[str], wanted: Sequence[str]) -> float:
    """How often two lists say the same."""
    return sum(one == other for one, other in zip(found, wanted, strict=True)) / len(wanted)


def last_of(events: Iterator[Event]) -> Any:
    """What a workflow returns, its events passed over."""
    try:
        while True:
            next(events)
    except StopIteration as stop:
        return stop.value
