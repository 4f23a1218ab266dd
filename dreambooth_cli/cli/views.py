"""What a run looks like: `format_*` make the words, and three views show them (moving bars, plain lines, JSON lines)."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, Protocol, TypeVar, cast

from rich.cells import cell_len, set_cell_size
from rich.table import Table
from rich.text import Text

from .. import stopping
from ..errors import Interrupted
from ..events import (
    BaseReady,
    BytesFetched,
    CheckpointSaved,
    ClassImageMade,
    CommandShown,
    Event,
    Events,
    Exported,
    GridSaved,
    ImageSaved,
    ModelSaved,
    Noted,
    PageWritten,
    PhaseStarted,
    PhotoLooked,
    PhotoRead,
    PhotosPrepared,
    PictureEncoded,
    PlanMade,
    ProjectSaved,
    Pushed,
    Rehearsed,
    RunEnded,
    RunJudged,
    RunOpened,
    SampleSaved,
    SamplesPutOff,
    StepDone,
    StepJudged,
    StepsSlowed,
    StoryTold,
    Warned,
    as_json,
)
from ..machine import resident_memory
from ..memory.survey import Row, ledger_lines
from ..text import listed, shortened
from .console import is_live, messages, say, visible
from .lines import print_line
from .live import Board, Chart, Foot, shows_pictures, small_picture

E = TypeVar("E", bound=Event)

WINDOW = 50  # steps over which loss and rate are averaged
LINES = 10  # plain lines about the progress of one phase, at most
PAUSE = 1.0  # seconds between two of them, at least
SAMPLES = 3  # pictures of one round of samples, side by side


def format_event(event: Event) -> str | None:
    """An event as words for a person; None if it only moves a bar."""
    match event:
        case Warned():
            return f"warning: {event.message}"
        case Noted() | SamplesPutOff():
            return event.message
        case PhotoLooked():
            return None if event.unchanged else format_photo(event)
        case PhotosPrepared():
            photos = "1 photo" if event.count == 1 else f"{event.count} photos"
            if event.unchanged:
                verdict = f" ({event.verdict})" if event.verdict else ""
                return f"{photos} ready at {format_sizes(event)}, as before{verdict}: {event.contact_sheet}"
            told = ([event.verdict] if event.verdict else []) + [finding.words for finding in event.findings]
            return "\n".join([*told, f"{photos} ready at {format_sizes(event)}; look them over: {event.contact_sheet}"])
        case ProjectSaved():
            return f"project {event.name} {'made' if event.created else 'saved'}: {event.path}"
        case PlanMade():
            return format_plan_line(event.plan)
        case RunOpened():
            return format_run(event)
        case Rehearsed():
            took, expected = format_duration(event.seconds), format_duration(event.expected)
            return f"rehearsed every phase in {took}: the run will take about {expected}, {format_rate(event.step_seconds)}"
        case StepsSlowed():
            return f"step {event.step} took {event.seconds:.1f} s, earlier ones {event.usual:.1f} s: {event.cause}"
        case SampleSaved():
            return f"sample at step {event.step}: {event.path}"
        case CheckpointSaved():
            return f"checkpoint at step {event.step}: {event.path}"
        case RunJudged():
            return f"best: {event.reason} (judged by {event.judge})"
        case ModelSaved():
            return f"the model is ready: {event.path}"
        case Pushed():
            return f"the model is at {event.address}, {'for everybody to see' if event.public else 'for only you to see'}"
        case Exported():
            return f"exported and read back, {format_difference(event.largest_difference)}: {event.path}"
        case BaseReady():
            return f"{event.name} is on disk: {event.path}"
        case ImageSaved():
            return f"seed {event.seed}: {event.path}"
        case GridSaved():
            return f"all on one sheet: {event.path}"
        case RunEnded():
            return format_end(event)
        case PageWritten():
            return f"the page: {event.path}"
        case CommandShown():
            return f"\n$ {event.command}"
        case StoryTold():
            return f"the whole story on one page: {event.path}"
    return None


def result_of(event: Event) -> Path | None:
    """The path that an event puts on stdout as a result."""
    match event:
        case ProjectSaved() | PhotosPrepared() | BaseReady() | ModelSaved() | Exported():
            return event.path
        case ImageSaved() | GridSaved() | PageWritten() | StoryTold():
            return event.path
    return None


def format_difference(largest: float) -> str:
    """How far the picture of an exported model, read back, is from the model's own, in levels of 255."""
    return "and it draws the very same picture" if largest == 0 else f"and its picture is within {255 * largest:.2g} of 255 levels"


def format_photo(photo: PhotoLooked) -> str | None:
    """A photo that has something to report: its name and a word, or why it is not used, and below it a line for each finding."""
    # a duplicate's reason and its finding say the same
    findings = [finding.words for finding in photo.findings if finding.kind != "duplicate"]
    if photo.status == "kept" and not findings:
        return None
    said = [photo.word] if photo.status == "kept" else [photo.status, *photo.reasons]
    lines = [f"{photo.path}: {'; '.join(said)}", *(f"  {words}" for words in findings)]
    return "\n".join(visible(line) for line in lines)


def format_sizes(photos: PhotosPrepared) -> str:
    """The sizes of prepared photos: `512 px`, `640 x 448 and 448 x 640 px`."""
    sizes = photos.sizes or ((photos.resolution, photos.resolution),)
    if sizes == ((photos.resolution, photos.resolution),):
        return f"{photos.resolution} px"
    return f"{listed([f'{width} x {height}' for width, height in sizes])} px"


def format_run(run: RunOpened) -> str:
    """`run 1: 1000 steps, "a sks dog" for the photos, "a dog" for the class`."""
    start = f"continues from step {run.step} of {run.steps}" if run.step else f"{run.steps} steps"
    photos, class_ = (visible(shortened(prompt)) for prompt in (run.instance_prompt, run.class_prompt))
    return f'run {run.number}: {start}, "{photos}" for the photos, "{class_}" for the class'


def format_end(run: RunEnded) -> str:
    """The end of a run: how long it took, its size on disk, its verdict, its page, and what to type next."""
    took = f" in {format_duration(run.seconds)}" if run.seconds >= 1 else ""
    words = ", ".join(filter(None, [run.verdict, f"the class {run.of_class}" if run.of_class else ""]))
    lines = [
        f"run {run.number} is done{took}, and uses {format_bytes(run.bytes)} of disk{f': {words}' if words else ''}",
        *run.sentences,
        f"all of it on one page: {run.report}",
        f"draw with it:\n  {run.command}",
    ]
    return "\n".join(lines)


def format_plan_line(plan: Mapping[str, Any]) -> str:
    """A plan in a line: why it was chosen and how much GPU memory it needs."""
    takes = "" if plan["device"] == "cpu" else f" (needs about {plan['needed'] / 1e9:.1f} GB)"
    return f"plan: {plan['why']}{takes}"


def format_ram(ram: Mapping[str, int]) -> str:
    """The machine's memory when a run needs most: `4.31 GB (loading)`; "" for a plan of version 0.1."""
    return "" if not ram else f"{max(ram.values()) / 1e9:.2f} GB ({max(ram, key=lambda moment: ram[moment])})"


def format_plan(plan: Mapping[str, Any]) -> str:
    """A plan in full, for `--dry-run` and the end of the interview: what is done, how, and what the memory goes to."""
    free = plan["free"]
    lines = [
        ("method", "all layers (full)" if plan["method"] == "full" else "LoRA"),
        ("text encoder", "trained too" if plan["train_text_encoder"] else "not trained"),
        ("resolution", f"{plan['resolution']} px"),
        ("largest photo", f"{plan['largest'] / 1e6:.2f} megapixels: each keeps its shape" if plan.get("largest") else ""),
        ("precision", plan["precision"]),
        ("optimizer", plan["optimizer"]),
        ("learning rate", f"{plan['learning_rate']:g}"),
        ("to save memory", ", ".join(plan["means"]) or "nothing needed"),
        ("device", plan["device"]),
        *((group, size) for group, size in ledger_lines(plan["ledger"])),
        ("needs at most", f"{plan['needed'] / 1e9:.2f} GB"),
        ("machine's memory", format_ram(plan.get("ram", {}))),
        ("writes at most", ", ".join(f"{what} {format_bytes(size)}" for what, size in plan["disk"].items() if size)),
        ("free", "" if free is None else f"{free / 1e9:.2f} GB"),  # None without a GPU
        ("fits", "yes" if plan["fits"] else "no"),
        ("why", plan["why"]),
        ("what would fit", plan.get("remedy", "")),
    ]
    return format_pairs([(what, words) for what, words in lines if words])


def format_pairs(pairs: list[tuple[str, str]]) -> str:
    """Pairs of name and words in two columns."""
    width = max((cell_len(what) for what, _ in pairs), default=0)
    return "\n".join(f"{set_cell_size(what, width)}  {words}" for what, words in pairs)


def format_bytes(count: float) -> str:
    """`4.3 GB`, `12 MB`, `3 kB`, `80 B`; GB is 1e9 bytes."""
    if count >= 1e9 or not count:
        return f"{count / 1e9:.1f} GB" if count else "0 MB"
    value, unit = next((value, unit) for value, unit in ((count / 1e6, "MB"), (count / 1e3, "kB"), (count, "B")) if value >= 1)
    return f"{value:.0f} {unit}"


def format_duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def format_rate(seconds: float) -> str:
    """The speed of steps that take so many seconds: `1.25 s/step`, `3.1 steps/s`."""
    return f"{seconds:.2f} s/step" if seconds >= 1 or seconds <= 0 else f"{1 / seconds:.1f} steps/s"


def format_models(rows: list[Row]) -> Table:
    """The table of `dreambooth models`, within 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("model", no_wrap=True)
    table.add_column("good for", max_width=18)
    table.add_column("advised\nGPU", no_wrap=True)
    table.add_column("a run here needs", max_width=23)
    table.add_column("verdict", max_width=13)
    table.add_column("on\ndisk", no_wrap=True)
    for row in rows:
        entry = row.entry
        colour = "green" if row.plan.fits and row.plan.device != "cpu" else "yellow"
        table.add_row(
            entry.name,
            entry.good_for,
            f"{entry.recommended_gb} GB" if entry.recommended_gb else "none",
            row.takes,
            Text(row.verdict, style=colour),
            "yes" if row.on_disk else "no",
        )
    return table


class Meter:
    """How far the current phase has come and how fast it goes. The time left is claimed only once something was measured."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.begin(PhaseStarted(name=""))

    def begin(self, phase: PhaseStarted) -> None:
        """A phase starts."""
        self.name, self.unit, self.total = phase.name, phase.unit, phase.total
        self.first = self.done = phase.done
        self.started = self.clock()
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.seconds: deque[float] = deque(maxlen=WINDOW)
        self.memory_gb: float | None = None

    def advance(self, event: Event) -> bool:
        """Take an event in. Returns whether it moved the phase forward."""
        match event:
            case StepDone():
                self.done, self.memory_gb = event.step, event.memory_gb
                self.losses.append(event.loss)
                self.seconds.append(event.seconds)
            case BytesFetched():
                self.done, self.total = event.done, event.total
            case ClassImageMade() | PictureEncoded() | PhotoRead() | StepJudged():
                self.done = event.number
            case ImageSaved():
                self.done += 1
            case _:
                return False
        return True

    def seconds_left(self) -> float | None:
        """Seconds until the phase is done, judging by its speed so far; None before anything was measured."""
        if self.total is None or self.done <= self.first:
            return None
        each = mean(self.seconds) if self.seconds else (self.clock() - self.started) / (self.done - self.first)
        return each * (self.total - self.done)

    def count(self) -> str:
        """`120 of 1000 steps`; without the unit where the phase's name ends with it, as in `class images: 3 of 40`."""
        if self.unit == "B" and self.total is not None:
            return f"{format_bytes(self.done)} of {format_bytes(self.total)}"
        unit = "" if self.name.endswith(self.unit) else f" {self.unit.removesuffix('s') if self.total == 1 else self.unit}"
        if self.total is None:
            return f"{self.done}{unit}" if self.done else ""
        return f"{self.done} of {self.total}{unit}"

    def words(self) -> str:
        """`120 of 1000 steps, loss 0.1234, 1.25 s/step, 18 min left, 9.8 GB`."""
        return ", ".join(filter(None, [self.count(), self.rest()]))

    def rest(self, memory: str = "") -> str:
        """The same without the count; `memory`, if given, replaces the figure that was measured."""
        left = self.seconds_left()
        parts = [
            f"loss {mean(self.losses):.4f}" if self.losses else "",
            format_rate(mean(self.seconds)) if self.seconds else "",
            f"{format_duration(left)} left" if left is not None and self.total and self.done < self.total else "",
            memory or (f"{self.memory_gb:.1f} GB" if self.memory_gb is not None else ""),
        ]
        return ", ".join(filter(None, parts))

    def line(self) -> str:
        """`training: 120 of 1000 steps, ...`."""
        return ": ".join(filter(None, [self.name, self.words()]))


class View(Protocol):
    """Something that shows events: entered before the first and left after the last."""

    def __enter__(self) -> "View":
        """Begin."""

    def __exit__(self, *error: object) -> None:
        """End."""

    def show(self, event: Event) -> None:
        """Show one event."""


class JsonLines:
    """One JSON object a line on stdout."""

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, event: Event) -> None:
        """Print the event."""
        print_line(as_json(event))


class PlainLines:
    """Occasional lines on stderr, results on stdout: for files, pipes, CI and plain terminals."""

    def __init__(self, results: tuple[type[Event], ...], clock: Callable[[], float] = time.monotonic) -> None:
        self.results, self.console, self.meter = results, messages(), Meter(clock)
        self.shown, self.spoke = 0, clock()

    def __enter__(self) -> "PlainLines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, event: Event) -> None:
        """Print what an event says; about ten lines of progress for each phase."""
        if isinstance(event, PhaseStarted):
            self.begin(event)
        elif self.meter.advance(event):
            self.tell_progress()
        if isinstance(event, self.results):
            print(result_of(event), flush=True)
        if (line := spoken(event, self.results)) is not None:
            say(self.console, line)

    def begin(self, phase: PhaseStarted) -> None:
        """Announce a phase."""
        self.meter.begin(phase)
        self.shown, self.spoke = part_of(self.meter), self.meter.clock()
        say(self.console, self.meter.line())

    def tell_progress(self) -> None:
        """Print how far the phase is, if another tenth is done and the last line is not too recent."""
        part, now = part_of(self.meter), self.meter.clock()
        if part == self.shown or (now - self.spoke < PAUSE and self.meter.done != self.meter.total):
            return
        self.shown, self.spoke = part, now
        say(self.console, self.meter.line())


def spoken(event: Event, results: tuple[type[Event], ...]) -> str | None:
    """The line for an event, None for a result, whose path on stdout says it all; but for photos the contact sheet is named too."""
    return format_event(event) if isinstance(event, PhotosPrepared) or not isinstance(event, results) else None


def part_of(meter: Meter) -> int:
    """How many tenths of the phase are done."""
    return LINES * meter.done // meter.total if meter.total else 0


class LiveBars:
    """A live foot on a terminal, and a line for each finished phase; results go to stdout once the foot is gone."""

    def __init__(self, results: tuple[type[Event], ...]) -> None:
        self.results, self.console, self.meter = results, messages(), Meter()
        self.found: list[Path] = []
        self.foot = Foot(self.console)
        self.run: RunOpened | None = None
        self.chart, self.sampled, self.pictures = Chart(0), 0, list[Text]()

    def __enter__(self) -> "LiveBars":
        self.foot.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()
        self.foot.stop()
        for path in self.found:
            print(path)

    def show(self, event: Event) -> None:
        """Move the foot, or print a line above it."""
        match event:
            case PhaseStarted():
                self.finish()
                self.meter.begin(event)
                self.chart = Chart(event.total or 0)
                self.draw()
            case PhotosPrepared():
                self.finish()  # what it says comes last
            case RunOpened():
                self.run = event
            case SamplesPutOff() if self.run is not None:
                self.run = replace(self.run, sample_every=self.run.steps)
            case StepDone():
                self.chart.take(event.step, event.loss)
            case SampleSaved() if shows_pictures(self.console):
                self.take_picture(event)
        if self.meter.advance(event) and (self.foot.is_due() or self.meter.done == self.meter.total):
            self.draw()
        if isinstance(event, self.results):
            self.found.append(cast(Path, result_of(event)))
        if (line := spoken(event, self.results)) is not None:
            if self.meter.done == self.meter.total:
                self.finish()  # what comes after a phase stands below it
            say(self.console, line, "yellow" if isinstance(event, Warned) else "")

    def draw(self) -> None:
        """Make the foot show what the meter says."""
        meter, run = self.meter, self.run
        board = Board(meter.name, meter.done, meter.total, meter.count(), meter.rest())
        if meter.losses and run is not None:
            held = meter.memory_gb if meter.memory_gb is not None else resident_memory() / 1e9
            words = meter.rest(memory=f"{held:.1f} of {run.memory_total / 1e9:.1f} GB" if run.memory_total else "")
            coming, losses = next_words(run, meter.done), self.chart.columns()
            board = replace(board, words=words, coming=coming, losses=losses, pictures=tuple(self.pictures))
        self.foot.show(board)

    def take_picture(self, sample: SampleSaved) -> None:
        """Keep the pictures of the last round of samples."""
        if sample.step != self.sampled:
            self.sampled, self.pictures = sample.step, []
        with suppress(OSError):  # somebody moved the file: no reason to end a run
            if (picture := small_picture(sample.path, self.console, SAMPLES)) is not None:
                self.pictures.append(picture)

    def finish(self) -> None:
        """Replace the phase by a line; a phase without a total just disappears."""
        named, self.meter.name = self.meter.line(), ""
        self.foot.show(Board())
        if self.meter.total is not None:
            self.meter.total = None
            say(self.console, named)


def next_words(run: RunOpened, step: int) -> str:
    """What comes next in a run after a step: `next: samples at step 500, a checkpoint at step 500`."""
    coming = []
    for what, every in (("samples", run.sample_every), ("a checkpoint", run.checkpoint_every)):
        if every and step < run.steps:
            coming.append(f"{what} at step {min((step // every + 1) * every, run.steps)}")
    return f"next: {', '.join(coming)}" if coming else ""


def open_view(*results: type[Event], json: bool) -> View:
    """The right view: JSON lines if asked for, bars on a terminal, else plain lines.

    `results` are the events whose paths are the command's results, for stdout.
    """
    if json:
        return JsonLines()
    return LiveBars(results) if is_live(messages()) else PlainLines(results)


class Seen:
    """The last event of each kind that went by."""

    def __init__(self) -> None:
        self.last: dict[type[Event], Event] = {}

    def take(self, event: Event) -> None:
        """Remember one event."""
        self.last[type(event)] = event

    def get(self, kind: type[E]) -> E | None:
        """The last event of a kind, None if there was none."""
        return cast(E | None, self.last.get(kind))


def follow(events: Events, view: View, *, kept: str | Callable[[Seen], str] = "", again: str = "") -> Seen:
    """Show a workflow's events until they end or a signal comes; the workflow is then closed at a point where its state is whole.

    Returns what went by. Raises Interrupted, Terminated or HangUp after a signal; `kept` says how much of the work is kept, `again` how
    to continue.
    """
    seen = Seen()
    try:
        with view, closing(events):
            for event in events:
                seen.take(event)
                view.show(event)
                stopping.check()
    except Interrupted as stop:
        words = kept if isinstance(kept, str) else kept(seen)
        raise type(stop)("; ".join(filter(None, [stop.message, words])), again or stop.hint) from stop
    return seen
