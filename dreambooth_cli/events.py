"""Facts that a workflow yields while it runs. The CLI shows them, `--json` prints them, tests read them."""

from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar


@dataclass(frozen=True, kw_only=True)
class Event:
    """One fact. `event` is its name in the lines of `--json`."""

    event: ClassVar[str] = "event"


R = TypeVar("R")
Events = Generator[Event, None, None]
# part of a workflow that yields events and returns a result to its caller: `result = yield from part()`
Yielding = Generator[Event, None, R]


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """Always the first line. `schema` goes up when a field is renamed, removed or given another type."""

    event: ClassVar[str] = "start"
    schema: int
    version: str


@dataclass(frozen=True, kw_only=True)
class PhaseStarted(Event):
    """A longer piece of work begins: `total` units of it, None if that is not known."""

    event: ClassVar[str] = "phase"
    name: str
    total: int | None = None
    done: int = 0
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something that the user should know about, though the work goes on."""

    event: ClassVar[str] = "warning"
    message: str


@dataclass(frozen=True, kw_only=True)
class Noted(Event):
    """A line of information."""

    event: ClassVar[str] = "note"
    message: str


FindingKind = Literal[
    "duplicate", "near_duplicate", "blur", "dark", "burnt_out", "screenshot", "border", "tiny_subject", "cut_subject", "odd_one_out",
    "same_place", "few_views",
]  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What a photographer would say about a photo or a set: the kind of finding, the figure it is based on (each kind has its own unit),
    and a sentence that says what to do."""

    kind: FindingKind
    value: float
    words: str


@dataclass(frozen=True, kw_only=True)
class PhotoRead(Event):
    """One more file of the photo folder has been read; findings follow when all have been."""

    event: ClassVar[str] = "read"
    number: int
    total: int


@dataclass(frozen=True, kw_only=True)
class PhotoLooked(Event):
    """A file of the photo folder. `status`: kept, warned, skipped or refused. `findings` (`kind`, `value`, `words`) only inform.

    `path` is as the user gave it; `word` sums up the findings: good, soft, dark, ...; `size` is the upright photo's width and height,
    and `box` (left, top, right, bottom) the part of it that is kept, both in pixels; `unchanged`: all this was said before.
    """

    event: ClassVar[str] = "photo"
    path: str
    status: str
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    word: str = ""
    box: tuple[int, ...] | None = None
    size: tuple[int, ...] | None = None
    unchanged: bool = False


@dataclass(frozen=True, kw_only=True)
class PhotosPrepared(Event):
    """The photos are turned upright, cropped and saved. `findings` are about the set (`same_place`, `few_views`), `verdict` sums it up.

    `sizes` lists each size that occurs among the prepared photos: width and height in pixels; `unchanged`: all this was done and said
    before.
    """

    event: ClassVar[str] = "prepared"
    count: int
    resolution: int
    path: Path
    contact_sheet: Path
    report: Path
    sizes: tuple[tuple[int, int], ...] = ()
    findings: tuple[Finding, ...] = ()
    verdict: str = ""
    unchanged: bool = False


@dataclass(frozen=True, kw_only=True)
class ProjectSaved(Event):
    """A project was made or its settings were written."""

    event: ClassVar[str] = "project"
    name: str
    path: Path
    created: bool


@dataclass(frozen=True, kw_only=True)
class PlanMade(Event):
    """How the run will be done, what it needs and why. `plan` is what `plan.json` holds."""

    event: ClassVar[str] = "plan"
    plan: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunOpened(Event):
    """A run begins (`step` 0) or continues from `step`.

    `sample_every`, `checkpoint_every`: steps between two of them, 0 for none; `memory_total`: the GPU's memory in bytes, or the
    machine's if there is no GPU.
    """

    event: ClassVar[str] = "run"
    number: int
    path: Path
    step: int
    steps: int
    instance_prompt: str
    class_prompt: str
    sample_every: int = 0
    checkpoint_every: int = 0
    memory_total: int | None = None


@dataclass(frozen=True, kw_only=True)
class BytesFetched(Event):
    """How far a download has come. `file` is the one being fetched; `done` and `total` are bytes of the whole download."""

    event: ClassVar[str] = "download"
    file: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class BaseReady(Event):
    """A base model is on disk."""

    event: ClassVar[str] = "base"
    name: str
    path: Path
    revision: str


@dataclass(frozen=True, kw_only=True)
class ClassImageMade(Event):
    """One more class image is in the cache."""

    event: ClassVar[str] = "class_image"
    number: int
    total: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class PictureEncoded(Event):
    """One more photo or class image has been encoded to latents."""

    event: ClassVar[str] = "encoded"
    number: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Rehearsed(Event):
    """Every phase was tried once, in `seconds`. Judging by that, the run takes `expected` seconds and a step `step_seconds`.

    `memory` is the most that the process held, in bytes."""

    event: ClassVar[str] = "rehearsed"
    seconds: float
    expected: float
    step_seconds: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class StepDone(Event):
    """One training step. `memory_gb` is the most GPU memory the process has used so far, None without a GPU."""

    event: ClassVar[str] = "step"
    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float
    memory_gb: float | None = None


@dataclass(frozen=True, kw_only=True)
class StepsSlowed(Event):
    """Steps suddenly take three times as long as before, and keep doing so; sent once. `usual` is what they took before, in seconds."""

    event: ClassVar[str] = "slow"
    step: int
    seconds: float
    usual: float
    cause: str


@dataclass(frozen=True, kw_only=True)
class SampleSaved(Event):
    """A picture of a fixed prompt and seed, drawn before, during or at the end of training."""

    event: ClassVar[str] = "sample"
    step: int
    path: Path
    prompt: str


@dataclass(frozen=True, kw_only=True)
class SamplesPutOff(Event):
    """The samples wait for the end of the run, because on the way they would take more than a tenth of it; sent once."""

    event: ClassVar[str] = "samples_put_off"
    message: str


@dataclass(frozen=True, kw_only=True)
class FixedNoiseLoss(Event):
    """The photos' loss at noise that is the same each time, with the instance prompt (`loss`) and with the class prompt (`class_loss`)."""

    event: ClassVar[str] = "fixed_noise"
    step: int
    loss: float
    class_loss: float


@dataclass(frozen=True, kw_only=True)
class VerdictTold(Event):
    """What the run has made of its base. `verdict`: learned, barely or copies; `of_class`: kept or drifting; `figures` give the reasons."""

    event: ClassVar[str] = "verdict"
    verdict: str
    of_class: str
    sentences: tuple[str, ...]
    figures: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    """The run can continue from here."""

    event: ClassVar[str] = "checkpoint"
    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class ModelSaved(Event):
    """The fine-tuned model is on disk."""

    event: ClassVar[str] = "model"
    path: Path
    step: int


@dataclass(frozen=True, kw_only=True)
class Exported(Event):
    """A model was exported and read back. No pixel value (0 to 1) of its test picture is off by more than `largest_difference`.

    The picture is drawn from the same seed before and after. `sha256` is the file's; for a folder it is that of the list of its files,
    sorted by name, as `sha256sum` prints it."""

    event: ClassVar[str] = "exported"
    path: Path
    format: str
    sha256: str
    largest_difference: float


@dataclass(frozen=True, kw_only=True)
class StepJudged(Event):
    """Pictures drawn with the weights of `step` were judged. `subject`, `prompt`, `copied`: 0 to 1; `nearest`: the photo being copied."""

    event: ClassVar[str] = "step_judged"
    number: int
    total: int
    step: int
    subject: float
    prompt: float
    copied: float
    nearest: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunJudged(Event):
    """Which step of the run is the `best`, and why, in words; `path` has the figures for all of them."""

    event: ClassVar[str] = "judged"
    path: Path
    judge: str
    best: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunEnded(Event):
    """The run is done. `seconds`: how long this call took; `bytes`: its size on disk; `report`: its page; `command`: draws with it.

    The verdict is that of the event `verdict`, "" for a run that version 0.2 finished."""

    event: ClassVar[str] = "done"
    number: int
    seconds: float
    bytes: int
    verdict: str
    of_class: str
    sentences: tuple[str, ...]
    report: Path
    command: str


@dataclass(frozen=True, kw_only=True)
class Pushed(Event):
    """A model is in a repository on the hub, at this address."""

    event: ClassVar[str] = "pushed"
    repository: str
    address: str
    public: bool


@dataclass(frozen=True, kw_only=True)
class ImageSaved(Event):
    """A picture that `generate` drew."""

    event: ClassVar[str] = "image"
    path: Path
    seed: int
    prompt: str


@dataclass(frozen=True, kw_only=True)
class GridSaved(Event):
    """All pictures of one call on a single sheet."""

    event: ClassVar[str] = "grid"
    path: Path


@dataclass(frozen=True, kw_only=True)
class PageWritten(Event):
    """A page for the browser that shows all of it."""

    event: ClassVar[str] = "page"
    path: Path


@dataclass(frozen=True, kw_only=True)
class CommandShown(Event):
    """The command that a user would type for the next part."""

    event: ClassVar[str] = "command"
    command: str


@dataclass(frozen=True, kw_only=True)
class StoryTold(Event):
    """The demo's page: the photos, and the pictures before and after training."""

    event: ClassVar[str] = "story"
    path: Path


def as_json(event: Event) -> dict[str, Any]:
    """An event as plain JSON values, `event` first; paths become strings."""
    fields = {name: _plain(value) for name, value in asdict(event).items()}
    return {"event": event.event, **fields}


def _plain(value: Any) -> Any:
    match value:
        case Path():
            return str(value)
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    return value
