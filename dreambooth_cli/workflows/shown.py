"""What goes with a model that is exported or pushed: the samples that its run drew with these weights, and the run's verdict."""

from pathlib import Path

from ..photos.picture import data_uri, read_picture, save_new, text_of
from ..source import Source
from ..verdict import sentences_of

THUMBNAIL = 256  # pixels
FOLDER = "samples"
PUBLIC = ("prompt", "seed", "step")  # the text chunks that are copied


def thumbnail_of(source: Source) -> dict[str, str]:
    """The first sample drawn with these weights, as a small data URI for a file's header: key -> value; empty if there is none."""
    samples = source.run.samples_of(source.step) if source.run is not None else []
    return {"modelspec.thumbnail": data_uri(read_picture(samples[0]), THUMBNAIL)} if samples else {}


def copy_samples(source: Source, folder: Path) -> dict[str, str]:
    """Copy the samples drawn with these weights into a model's folder, with prompt, seed and step as their only text chunks. Returns
    each copy's name, relative to the folder, with its prompt. Raises OSError."""
    found = {}
    for number, path in enumerate(source.run.samples_of(source.step) if source.run is not None else [], 1):
        text = {key: value for key, value in text_of(path).items() if key in PUBLIC}
        made = save_new(read_picture(path), folder / FOLDER, str(number), text)
        found[made.relative_to(folder).as_posix()] = text.get("prompt", "")
    return found


def verdict_of(source: Source) -> tuple[str, ...]:
    """The run's verdict in sentences; empty for a step before its last, since nothing was measured there."""
    record = None if source.run is None else source.run.record()
    if record is None or not record.figures or source.step not in (None, record.asked["train"]["steps"]):
        return ()
    return sentences_of(record.figures)
