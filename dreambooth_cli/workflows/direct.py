"""`train`, whatever it was called with: the direct form first makes its project, or brings it up to date with the photo folder."""

import os
from contextlib import closing
from pathlib import Path

from ..config import Asked
from ..events import Events, ModelSaved, Noted, ProjectSaved, Warned, Yielding
from ..export_order import export_beside
from ..formats import Format
from ..order import Order
from ..project import Project
from ..source import Source
from .export import export
from .initialise import add_photos, initialise
from .train import train
from .verify import verify_resume


def carry_out(order: Order, asked: Asked, *, restart: bool = False, replan: bool = False) -> Events:
    """Train what was ordered. Raises DreamboothError of every kind."""
    project = yield from project_of(order, asked)
    finished = None
    with closing(train(project, asked, output_dir=order.output_dir, restart=restart, replan=replan)) as events:
        for event in events:
            finished = event.path if isinstance(event, ModelSaved) else finished
            yield event
    if finished is not None and order.export is not None:
        yield from export_finished(order.export, finished, project.name)


def export_finished(format: Format, model: Path, project: str) -> Events:
    """Export a model that was just finished, unless the export is there already. Raises DreamboothError of every kind."""
    of_run = model.name == "model" and model.parent.parent.name == "runs"
    wanted = export_beside(format, model, project if of_run else model.name)
    if os.path.lexists(wanted.place):
        yield Noted(message=f"{wanted.place} already exists, so it was not exported again")
        return
    yield from export(Source(model.parent if of_run else model), wanted)


def try_resume(order: Order, asked: Asked) -> Events:
    """Try in a few steps whether a stopped run of this order continues exactly on this machine. Raises DreamboothError of every kind."""
    project = yield from project_of(order, asked)
    yield from verify_resume(project, asked)


def project_of(order: Order, asked: Asked) -> Yielding[Project]:
    """The project of an order: a new one for photos that have none yet, else the existing one, brought up to date with them."""
    for line in filter(None, (*order.passed_over, order.odd)):
        yield Warned(message=line)
    if order.project is None:
        return (yield from make_project(asked))
    if order.photos is not None:
        with order.project.lock():
            yield from add_photos(order.project, order.photos)
    return order.project


def make_project(asked: Asked) -> Yielding[Project]:
    """Make a project of the photos in question. Training settings hold for this call and are not stored in it."""
    made: Project | None = None
    for event in initialise(None, subject=asked.subject, prep={}, train={}):
        if isinstance(event, ProjectSaved):
            made = Project(event.path)
        yield event
    assert made is not None
    return made
