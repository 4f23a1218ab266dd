"""The bottom of a terminal during a run, at 80 and 120 columns, drawn by a thread that takes no time from the work."""

import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from dreambooth_cli import stopping
from dreambooth_cli.cli import live, views
from dreambooth_cli.cli.live import Board, Chart, Foot, half_blocks, spark
from dreambooth_cli.cli.views import LiveBars, next_words
from dreambooth_cli.events import PhaseStarted, RunOpened, SampleSaved, SamplesPutOff, StepDone
from dreambooth_cli.photos.picture import save_new

SNAPSHOTS = Path(__file__).parent / "snapshots"
RUN = RunOpened(
    number=1,
    path=Path("/r"),
    step=0,
    steps=1000,
    instance_prompt="a sks dog",
    class_prompt="a dog",
    sample_every=250,
    checkpoint_every=250,
    memory_total=24_000_000_000,
)


def terminal(width: int, **options: Any) -> Console:
    """A terminal that writes into a string."""
    shown = {"no_color": False, **options}
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=40, markup=False, highlight=False, **shown)


def step(number: int) -> StepDone:
    return StepDone(step=number, steps=1000, loss=0.2 * 0.998**number, learning_rate=1e-6, seconds=1.5, memory_gb=9.84)


def at_work(console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, steps: int = 420) -> LiveBars:
    """A view in the middle of a run, with its thread not started."""
    monkeypatch.setattr(views, "messages", lambda: console)
    view = LiveBars(())
    view.show(RUN)
    view.show(PhaseStarted(name="training", total=1000, unit="steps"))
    for number in range(1, steps + 1):
        view.show(step(number))
    for number in range(3):
        path = save_new(Image.new("RGB", (64, 64), (80 * number, 120, 40)), tmp_path, f"sample-{number}", {})
        view.show(SampleSaved(step=250, path=path, prompt="x"))
    view.draw()
    return view


def lines_of(console: Console, board: Board, *, is_stopping: bool = False) -> str:
    with console.capture() as written:
        console.print(live.drawn(board, console, is_stopping=is_stopping))
    return "\n".join(line.rstrip() for line in written.get().splitlines()) + "\n"


@pytest.mark.parametrize("width", [80, 120])
def test_a_run_as_it_stands_on_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    console = terminal(width, no_color=True, color_system=None)
    board = at_work(console, monkeypatch, tmp_path).foot.board
    shown = lines_of(console, board) + "\nafter Ctrl-C:\n\n" + lines_of(console, board, is_stopping=True)
    assert all(len(line) <= width for line in shown.splitlines())
    snapshot = SNAPSHOTS / f"live-{width}.txt"
    if os.environ.get("REGENERATE_SNAPSHOTS"):
        snapshot.write_text(shown, encoding="utf-8")
    assert shown == snapshot.read_text(encoding="utf-8")


def test_the_last_samples_stand_below_where_there_are_colours_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    board = at_work(terminal(80, color_system="truecolor"), monkeypatch, tmp_path, steps=3).foot.board
    assert [picture.plain.count("▀") for picture in board.pictures] == [23 * 11] * 3
    assert "48;2;80;120;40" in lines_of(terminal(80, color_system="truecolor"), board)
    for poor in ({"color_system": "256"}, {"color_system": "truecolor", "no_color": True}):
        assert at_work(terminal(80, **poor), monkeypatch, tmp_path, steps=3).foot.board.pictures == ()
    assert live.small_picture(tmp_path / "sample-0.png", Console(width=20, height=10), 3) is None


def test_a_chart_goes_from_left_to_right_and_down_with_the_loss() -> None:
    chart = Chart(120)
    for number in range(1, 61):
        chart.take(number, 1 / number)
    columns = chart.columns()
    assert None not in columns[:30]
    assert set(columns[30:]) == {None}
    upper, lower = spark(columns)
    assert upper.startswith("█")
    assert upper[30:] == lower[30:] == " " * 30
    assert lower[29] == "▁"
    assert spark([0.0, None]) == ["  ", "▁ "]


def test_what_comes_next() -> None:
    assert next_words(RUN, 249) == "next: samples at step 250, a checkpoint at step 250"
    assert next_words(RUN, 250) == "next: samples at step 500, a checkpoint at step 500"
    assert next_words(RUN, 990) == "next: samples at step 1000, a checkpoint at step 1000"
    assert next_words(RUN, 1000) == ""


def test_samples_that_are_put_off_are_announced_for_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    view = at_work(terminal(80), monkeypatch, tmp_path)
    assert view.foot.board.coming == "next: samples at step 500, a checkpoint at step 500"
    view.show(SamplesPutOff(message="they wait"))
    view.draw()
    assert view.foot.board.coming == "next: samples at step 1000, a checkpoint at step 500"


class Watched(io.StringIO):
    """A stream that says when certain words come."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words, self.came = words, threading.Event()

    def write(self, text: str) -> int:
        if self.words in text:
            self.came.set()
        return super().write(text)


def test_a_key_is_answered_while_a_step_is_at_work() -> None:
    """No event comes; only the thread can show it."""
    stream = Watched("stopping after this step")
    foot = Foot(Console(file=stream, force_terminal=True, width=80))
    foot.start()
    try:
        foot.show(Board("training", 1, 10, "1 of 10 steps"))
        stopping._receive(2, None)
        assert stream.came.wait(20)
    finally:
        foot.stop()


def test_redraws_are_few_and_take_a_hundredth_of_the_time() -> None:
    assert live.pause_after(0.0) == live.FASTEST == 0.1
    assert live.pause_after(0.05) == pytest.approx(5.0)
    stream = Watched("799 of 800")
    console = Console(file=stream, force_terminal=True, width=120, color_system="truecolor", no_color=False)
    picture = half_blocks(Image.effect_noise((24, 24), 90).convert("RGB"))
    foot, began = Foot(console), time.perf_counter()
    foot.start()
    foot.show(Board("training", 799, 800, "799 of 800", "loss 0.1", "next", tuple([0.1] * 60), (picture,) * 3))
    assert stream.came.wait(20)
    foot.stop()
    assert 1 <= foot.redraws <= (time.perf_counter() - began) / live.FASTEST + 1
    assert stream.getvalue().count("\x1b[?25h") == 1, "the cursor is there again"
