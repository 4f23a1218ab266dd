"""`push`: upload a model with its card, its licence and its notice to a repository on the hub."""

from pathlib import Path

from ..disk import disk_errors, make_folder, temporary
from ..engine.hub.upload import check_token, upload
from ..events import Events, Exported, PhaseStarted, Pushed
from ..export_order import Export
from ..paths import cache_folder
from ..source import Source
from .export import export


def push(source: Source, repository: str, *, is_whole: bool, public: bool = False) -> Events:
    """Export a model in diffusers' form, read it back and compare, then upload it. Raises UsageError, ModelUnavailable, DiskError."""
    check_token()
    with disk_errors(cache_folder()):
        make_folder(cache_folder())
        with temporary(cache_folder()) as part:
            part.mkdir()
            place = part / repository.rpartition("/")[2]
            for event in export(source, Export("diffusers" if is_whole else "lora", place)):
                if not isinstance(event, Exported):
                    yield event
            yield PhaseStarted(name=f"uploading to {repository}")
            address = upload(Path(place), repository, public=public)
    yield Pushed(repository=repository, address=address, public=public)
