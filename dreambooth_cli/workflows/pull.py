"""`dreambooth models pull`: fetch a base model before it is needed."""

from ..bases.base import ask_for_base
from ..engine.hub.bases import obtain
from ..events import BaseReady, Events


def pull(model: str) -> Events:
    """Fetch the files of a base that training needs, continuing an interrupted download. The last event says where it is."""
    base = yield from obtain(ask_for_base(model))
    yield BaseReady(name=base.name, path=base.path, revision=base.identity)
