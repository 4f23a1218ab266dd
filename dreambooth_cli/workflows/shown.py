"""What a run has to show of a model that leaves: the pictures that it has drawn with its weights, and its verdict."""

from pathlib import Path

from ..photos.picture import data_uri, read_picture, save_new, text_of
from ..source import Source
from ..verdict import sentences_of

THUMBNAIL = 256  # pixels
FOLDER = "samples"
PUBLIC = ("prompt", "seed", "step")  # of what a picture says of its making


def thumbnail_of(source: Source) -> dict[str, str]:
    """The sample that a run has drawn of its subject with these weights, small, for the header of a file."""
    samples = source.run.samples_of(source.step) if source.run is not None else []
    return {"modelspec.thumbnail": data_uri(read_picture(samples[0]), THUMBNAIL)} if samples else {}


def copy_samples(source: Source, folder: Path) -> dict[str, str]:
    """Put what a run has drawn with these weights into a model's folder, its prompt, seed and step inside and nothing else, and return
    the prompts by the pictures' names. Raises OSError."""
    found = {}
    for number, path in enumerate(source.run.samples_of(source.step) if source.run is not None else [], 1):
        text = {key: value for key, value in text_of(path).items() if key in PUBLIC}
        made = save_new(read_picture(path), folder / FOLDER, str(number), text)
        found[made.relative_to(folder).as_posix()] = text.get("prompt", "")
    return found


def verdict_of(source: Source) -> tuple[str, ...]:
    """What a run has made of its base, in sentences; of a step before its last nothing was measured."""
    record = None if source.run is None else source.run.record()
    if record is None or not record.figures or source.step not in (None, record.asked["train"]["steps"]):
        return ()
    return sentences_of(record.figures)
