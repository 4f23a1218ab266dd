"""Facts that a workflow yields while it runs. The CLI draws them, `--json` prints them, a test reads them."""

from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar


@dataclass(frozen=True, kw_only=True)
class Event:
    """One fact. `event` is its name in the JSON lines."""

    event: ClassVar[str] = "event"


R = TypeVar("R")
Events = Generator[Event, None, None]
# a part of a workflow that yields events and hands its caller a result: `result = yield from part()`
Yielding = Generator[Event, None, R]


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """The first line, however the command ends. `schema` counts up where a field is renamed, removed or retyped."""

    event: ClassVar[str] = "start"
    schema: int
    version: str


@dataclass(frozen=True, kw_only=True)
class PhaseStarted(Event):
    """Something longer than a moment begins: `total` units of it, or None where that is unknown."""

    event: ClassVar[str] = "phase"
    name: str
    total: int | None = None
    done: int = 0
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something the user should know, though the work goes on."""

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
    """What a photographer would say of a photo or of a set: its kind, the figure that it rests on (each kind has its own unit), and a
    sentence with what to do."""

    kind: FindingKind
    value: float
    words: str


@dataclass(frozen=True, kw_only=True)
class PhotoRead(Event):
    """One more file of the photo folder is read; what is found is told when all of them are."""

    event: ClassVar[str] = "read"
    number: int
    total: int


@dataclass(frozen=True, kw_only=True)
class PhotoLooked(Event):
    """A file of the photo folder. `status`: kept, warned, skipped or refused. `findings` (`kind`, `value`, `words`) inform.

    `path` is as the user gave it; `word` sums the findings up: good, soft, dark, ...; `size` is its width and height, upright, and
    `box` (left, top, right, bottom) the part of it that is kept.
    """

    event: ClassVar[str] = "photo"
    path: str
    status: str
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    word: str = ""
    box: tuple[int, ...] | None = None
    size: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class PhotosPrepared(Event):
    """The photos are turned, cropped and written. `findings` are the set's (`same_place`, `few_views`), `verdict` a line about it.

    `sizes` are those that the pictures have: width and height.
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


@dataclass(frozen=True, kw_only=True)
class ProjectSaved(Event):
    """A project was made or its settings were written."""

    event: ClassVar[str] = "project"
    name: str
    path: Path
    created: bool


@dataclass(frozen=True, kw_only=True)
class PlanMade(Event):
    """How the run will be done, what it takes and why. `plan` is what `plan.json` holds."""

    event: ClassVar[str] = "plan"
    plan: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunOpened(Event):
    """A run begins (`step` 0) or goes on from `step`.

    `sample_every`, `checkpoint_every`: steps from one to the next, 0 for none; `memory_total`: bytes of the card, or of the machine
    without one.
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
    """A download has come this far. `file` is the one under way, `done` and `total` are bytes of the whole download."""

    event: ClassVar[str] = "download"
    file: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class BaseReady(Event):
    """A base model lies on disk."""

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
    """One more photo or class image is encoded to latents."""

    event: ClassVar[str] = "encoded"
    number: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Rehearsed(Event):
    """Every phase was gone through once, in `seconds`. By what was measured the run takes `expected` seconds, a step `step_seconds`;
    `memory` is the bytes that the process held at the most."""

    event: ClassVar[str] = "rehearsed"
    seconds: float
    expected: float
    step_seconds: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class StepDone(Event):
    """One optimizer step. `memory_gb` is the peak of the process's GPU memory so far, None without a GPU."""

    event: ClassVar[str] = "step"
    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float
    memory_gb: float | None = None


@dataclass(frozen=True, kw_only=True)
class StepsSlowed(Event):
    """Steps suddenly take three times as long as they did, and on; said once. `usual` is the seconds that they took before."""

    event: ClassVar[str] = "slow"
    step: int
    seconds: float
    usual: float
    cause: str


@dataclass(frozen=True, kw_only=True)
class SampleSaved(Event):
    """A picture of a fixed prompt and seed, drawn in the middle of training or at its end."""

    event: ClassVar[str] = "sample"
    step: int
    path: Path
    prompt: str


@dataclass(frozen=True, kw_only=True)
class FixedNoiseLoss(Event):
    """The photos' loss at noises that are the same each time, under the instance prompt (`loss`) and the class prompt (`class_loss`)."""

    event: ClassVar[str] = "fixed_noise"
    step: int
    loss: float
    class_loss: float


@dataclass(frozen=True, kw_only=True)
class VerdictTold(Event):
    """What the run has made of its base. `verdict`: learned, barely or copies; `of_class`: kept or drifting; `figures` are why."""

    event: ClassVar[str] = "verdict"
    verdict: str
    of_class: str
    sentences: tuple[str, ...]
    figures: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    """From here the run can go on."""

    event: ClassVar[str] = "checkpoint"
    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class ModelSaved(Event):
    """The fine-tuned model lies on disk."""

    event: ClassVar[str] = "model"
    path: Path
    step: int


@dataclass(frozen=True, kw_only=True)
class Exported(Event):
    """A model lies on disk in another program's format, read again: no channel of its picture is more than `largest_difference` of 1 off.

    The picture is drawn from the same seed before and after. `sha256` is the file's, or of a folder that of the list of its files
    as `sha256sum` prints it, by their names in order."""

    event: ClassVar[str] = "exported"
    path: Path
    format: str
    sha256: str
    largest_difference: float


@dataclass(frozen=True, kw_only=True)
class StepJudged(Event):
    """Pictures drawn with the weights of `step` were judged. `subject`, `prompt`, `copied`: 0 to 1; `nearest`: a photo that one copies."""

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
    """Which step of the run is `best`, and why, in words; `path` holds the figures of all."""

    event: ClassVar[str] = "judged"
    path: Path
    judge: str
    best: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunEnded(Event):
    """The run is done, in so many seconds of this call; `bytes`: what it takes on disk; `report`: its page; `command`: what draws with it.

    The verdict is that of the event `verdict`, "" for a run that 0.2 ended."""

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
    """A model lies in a repository on the hub, at this address."""

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
    """All pictures of a call on one sheet."""

    event: ClassVar[str] = "grid"
    path: Path


@dataclass(frozen=True, kw_only=True)
class PageWritten(Event):
    """A page that shows all of it in a browser."""

    event: ClassVar[str] = "page"
    path: Path


@dataclass(frozen=True, kw_only=True)
class CommandShown(Event):
    """What the user would type for what comes next."""

    event: ClassVar[str] = "command"
    command: str


@dataclass(frozen=True, kw_only=True)
class StoryTold(Event):
    """The demo's page: the photos, and the pictures before training and after."""

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
