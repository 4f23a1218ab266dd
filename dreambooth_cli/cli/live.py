"""The foot of the terminal during a run: progress, loss, time, memory, the last samples, and what comes next."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.style import Style
from rich.table import Table
from rich.text import Text

from .. import stopping

FASTEST = 0.1  # seconds between two redraws, at least
SHARE = 0.01  # of the time, which redraws may take
A_SECOND = 1.0  # between redraws when nothing else has changed
COLUMNS = 60  # of the chart
LEVELS = " ▁▂▃▄▅▆▇█"
ROWS = 2  # of the chart, each with eight levels
SIDE = 24  # pixels of a sample at most, each one character wide
LEAST_SIDE = 8  # pixels; smaller samples are not shown
BESIDE = 12  # lines of the terminal left free for everything else
STOPPING = "stopping after this step: what is done is saved; Ctrl-C again ends at once"


@dataclass(frozen=True)
class Board:
    """What the foot shows: the phase's name, how much is done of what total (None: unknown), the count, words, what comes next, the losses
    of the chart from left to right (None: nothing there yet), and pictures."""

    name: str = ""
    done: int = 0
    total: int | None = None
    count: str = ""
    words: str = ""
    coming: str = ""
    losses: tuple[float | None, ...] = ()
    pictures: tuple[Text, ...] = ()


class Chart:
    """The course of the loss in COLUMNS columns, whatever the number of steps: each is the mean of its part of the run."""

    def __init__(self, total: int) -> None:
        self.total = max(total, 1)
        self.sums, self.counts = [0.0] * COLUMNS, [0] * COLUMNS

    def take(self, step: int, loss: float) -> None:
        """Add the loss of a step, counted from 1."""
        place = min((step - 1) * COLUMNS // self.total, COLUMNS - 1)
        self.sums[place] += loss
        self.counts[place] += 1

    def columns(self) -> tuple[float | None, ...]:
        """The means, smoothed over three columns; None where there are no steps yet."""
        found = []
        for place in range(COLUMNS):
            near = slice(max(place - 1, 0), place + 2)
            count = sum(self.counts[near])
            found.append(sum(self.sums[near]) / count if self.counts[place] else None)
        return tuple(found)


def spark(losses: Sequence[float | None]) -> list[str]:
    """A chart as two rows of block characters, upper row first, scaled from 0 to the largest loss."""
    most = max((loss for loss in losses if loss is not None), default=0.0) or 1.0
    heights = [None if loss is None else max(1, round(8 * ROWS * loss / most)) for loss in losses]
    rows = []
    for row in reversed(range(ROWS)):
        rows.append("".join(" " if height is None else LEVELS[min(8, max(0, height - 8 * row))] for height in heights))
    return rows


def half_blocks(image: Any) -> Text:
    """A picture (an RGB Pillow image) as text: each character shows two pixels, one above the other."""
    text, pixels = Text(), image.load()
    for row in range(0, image.height - 1, 2):
        for column in range(image.width):
            upper, lower = pixels[column, row], pixels[column, row + 1]
            text.append(
                "▀", Style(color="#{:02x}{:02x}{:02x}".format(*upper), bgcolor="#{:02x}{:02x}{:02x}".format(*lower))
            )
        text.append("\n")
    return text


def shows_pictures(console: Console) -> bool:
    """Whether a terminal has enough colours for pictures."""
    return console.is_terminal and not console.no_color and console.color_system == "truecolor"


def has_blocks(console: Console) -> bool:
    """Whether a terminal can write block characters."""
    return console.encoding.lower().startswith("utf")


def small_picture(path: Path, console: Console, count: int) -> Text | None:
    """A sample as text, small enough for `count` side by side; None if the terminal has no room."""
    from ..photos.picture import read_picture

    side = min(SIDE, (console.width - 4) // count - 2, 2 * (console.height - BESIDE))
    if side < LEAST_SIDE:
        return None
    image = read_picture(path)
    image.thumbnail((side, side))
    return half_blocks(image)


def drawn(board: Board, console: Console, *, is_stopping: bool) -> RenderableType:
    """The board as lines for this terminal, empty if there is nothing to show."""
    if not board.name:
        return Text()
    parts: list[RenderableType] = [_bar(board)]
    parts += [_line(board.words)] if board.words else []
    if any(loss is not None for loss in board.losses) and has_blocks(console):
        width = min(COLUMNS, console.width - 4)
        every = [board.losses[place * COLUMNS // width] for place in range(width)]
        parts += [Text(f"  {row}", style="cyan", no_wrap=True) for row in spark(every)]
    parts += [Text(f"  {STOPPING}", style="bold yellow")] if is_stopping else [_line(board.coming)] if board.coming else []
    if board.pictures:
        row = Table.grid(padding=(0, 2))
        row.add_row(*board.pictures)
        parts.append(row)
    return Group(*parts)


def _line(words: str) -> Text:
    return Text(f"  {words}", no_wrap=True, overflow="ellipsis")


def _bar(board: Board) -> RenderableType:
    """The line with the phase, its bar and its count."""
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True, justify="right")
    bar: RenderableType = Text() if board.total is None else ProgressBar(total=board.total, completed=board.done)
    share = f"{100 * board.done // board.total:d}% " if board.total else ""
    line.add_row(Text(board.name), bar, Text(f"{share}{board.count}"))
    return line


def pause_after(took: float) -> float:
    """Seconds until the next redraw, after one that took `took` seconds."""
    return max(FASTEST, took / SHARE)


class Foot:
    """The foot of a terminal, redrawn in a thread of its own so that Ctrl-C is answered even in the middle of a step: at most ten times a
    second, and never for more than a hundredth of the time. `spent`: seconds that its `redraws` have taken."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.board, self.spent, self.redraws = Board(), 0.0, 0
        self.told = 0.0  # when `show` was last called
        self.live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, get_renderable=self.render)
        self.ended, self.thread = threading.Event(), threading.Thread(target=self._keep_fresh, daemon=True)

    def start(self) -> None:
        """Start drawing."""
        self.live.start()
        self.thread.start()

    def stop(self) -> None:
        """Stop drawing and leave nothing behind."""
        self.ended.set()
        self.thread.join()
        self.board = Board()
        self.live.stop()

    def render(self) -> RenderableType:
        """What to show now."""
        return drawn(self.board, self.console, is_stopping=stopping.requested())

    def is_due(self) -> bool:
        """Whether the last `show` is long enough ago for another one to be worth while."""
        return self.clock() - self.told >= FASTEST

    def show(self, board: Board) -> None:
        """Show this from the next redraw on."""
        self.board, self.told = board, self.clock()

    def _keep_fresh(self) -> None:
        pause, shown, last = FASTEST, (Board(), False), self.clock()
        while not self.ended.wait(pause):
            now = (self.board, stopping.requested())
            if now == shown and self.clock() - last < A_SECOND:
                continue
            began = time.perf_counter()
            self.live.refresh()
            took = time.perf_counter() - began
            self.spent, self.redraws = self.spent + took, self.redraws + 1
            pause, shown, last = pause_after(took), now, self.clock()
