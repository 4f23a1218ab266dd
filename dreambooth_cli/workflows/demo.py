"""`demo`: everything in a few minutes on a CPU, offline: make a project from the example, train, draw.

Nothing is prepared beforehand except the pocket base. The project is like any other, and a second call continues it.
"""

import shlex
from typing import Any

from ..bases.base import Base, ask_for_base
from ..config import ask
from ..disk import disk_errors
from ..engine.hub.bases import obtain
from ..engine.images.sampling import draw
from ..events import CommandShown, Events, ImageSaved, Noted, PhaseStarted, StoryTold, Yielding
from ..paths import projects_folder
from ..photos.picture import read_picture, save_new
from ..photos.story import Column, story_page
from ..project import Project
from ..prompts import fill
from ..settings import GenerateSettings, SubjectSettings
from ..source import Source
from .example import CLASS_PROMPT, draw_example
from .generate import choose_drawing, generate, load_model
from .initialise import initialise
from .prepare import prepare, prepared_photos
from .train import train

NAME = "demo"
MODEL = "pocket"
SEED = 1
PROMPTS = (
    "a photo of a [identifier] dog on the moon",
    "a photo of a [identifier] dog in the ocean",
    "a photo of a [identifier] dog in a city at night",
    "a photo of a [identifier] dog in the forest",
    "a photo of a dog",  # the class alone: it must stay what it was
)


def demo() -> Events:
    """Make the example's project, prepare, train, draw; the last event is StoryTold. Raises DreamboothError of every kind."""
    project = yield from open_demo()
    asked = ask(project.settings())
    base = yield from obtain(ask_for_base(asked.subject.model))
    yield CommandShown(command=f"dreambooth prep {NAME}")
    yield from prepare(project, asked.prep, resolution=base.facts.resolution, source=asked.subject.photos)
    yield CommandShown(command=f"dreambooth train {NAME}")
    yield from train(project, asked)
    word = project.finished_run(None).record().prompts.identifier
    after = yield from draw_after(project)
    before = yield from draw_before(base, [fill(prompt, word) for prompt in PROMPTS])
    columns = [Column(*each) for each in zip((fill(prompt, word) for prompt in PROMPTS), before, after, strict=True)]
    photos = [read_picture(photo.path) for photo in prepared_photos(project)]
    with disk_errors(project.path):
        path = save_new(story_page(photos, columns), project.path, "story", {"Software": "dreambooth"})
    yield StoryTold(path=path)


def open_demo() -> Yielding[Project]:
    """The demo's project, made if it does not exist yet. Returns it."""
    project = Project(projects_folder() / NAME)
    if project.config.is_file():
        yield Noted(message=f"project {NAME} already exists, and continues where it stopped")
        return project
    yield CommandShown(command=f"dreambooth init {NAME} --example")
    subject = SubjectSettings(photos=draw_example(), class_prompt=CLASS_PROMPT, model=MODEL)
    yield from initialise(NAME, subject=subject, prep={}, train={})
    return project


def draw_after(project: Project) -> Yielding[list[Any]]:
    """Draw the prompts with the fine-tuned model, by `generate` as the user would call it. Returns the pictures."""
    pictures = []
    for prompt in PROMPTS:
        yield CommandShown(command=f"dreambooth generate {NAME} {shlex.quote(prompt)} --seed {SEED}")
        source = Source(project.finished_run(None).path)
        settings = GenerateSettings(seed=SEED)
        for event in generate(source, prompt, settings, output_dir=project.images):
            yield event
            if isinstance(event, ImageSaved):
                pictures.append(read_picture(event.path))
    return pictures


def draw_before(base: Base, prompts: list[str]) -> Yielding[list[Any]]:
    """Draw the same prompts from the same seed with the untrained base. Returns the pictures."""
    yield PhaseStarted(name="the base model's pictures, to compare", total=len(prompts), unit="images")
    family = yield from load_model(base, None, "auto")
    drawing = choose_drawing(GenerateSettings(), base, None)
    return [picture for prompt in prompts for picture in draw(family, [prompt], [SEED], drawing)]
