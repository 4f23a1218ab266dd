"""Projects made and trained as by the commands."""

from contextlib import closing
from itertools import takewhile

from dreambooth_cli.config import ask
from dreambooth_cli.events import ModelSaved, ProjectSaved, StepDone
from dreambooth_cli.project import Project
from dreambooth_cli.settings import PrepSettings, SubjectSettings, TrainSettings
from dreambooth_cli.workflows.initialise import initialise
from dreambooth_cli.workflows.train import train

QUICK = {"steps": 3, "class_images": 2, "class_image_steps": 2, "rank": 4, "learning_rate": 1e-3, "sample_every": 0}


def make_project(photos, model, *, name=None, class_prompt="a photo of a dog", identifier="sks", **train_settings):
    """A project with these photos on this base."""
    subject = SubjectSettings(photos=photos, class_prompt=class_prompt, identifier=identifier, model=str(model))
    events = list(initialise(name, subject=subject, prep={}, train=QUICK | train_settings))
    (saved,) = [event for event in events if isinstance(event, ProjectSaved)]
    return Project(saved.path)


def asked_of(stored, *, subject=None, prep=None, train=None):
    """What a project's settings and these flags ask for."""
    return ask(stored, {SubjectSettings: subject or {}, PrepSettings: prep or {}, TrainSettings: train or {}})


def start(project, *, output_dir=None, restart=False, replan=False, subject=None, prep=None, **flags):
    """The events of `train` with these flags, as a generator."""
    stored = project.settings()
    return train(
        project,
        asked_of(stored, subject=subject, prep=prep, train=flags),
        output_dir=output_dir,
        restart=restart,
        replan=replan,
    )


def run(project, **options):
    """Train to the end; all events."""
    return list(start(project, **options))


def begin(project, **options):
    """Train to the first step, when all is read, told and drawn; the events until then."""
    with closing(start(project, **options)) as events:
        return list(takewhile(lambda event: not isinstance(event, StepDone), events))


def model_of(events):
    """Where the events say the model is."""
    (saved,) = [event for event in events if isinstance(event, ModelSaved)]
    return saved.path


def of_kind(events, kind):
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]
