"""What a run looks like: the words, the meter, the three views."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from dreambooth_cli import events as happened
from dreambooth_cli import stopping
from dreambooth_cli.cli import views
from dreambooth_cli.cli.console import between_words, visible
from dreambooth_cli.cli.views import JsonLines, LiveBars, Meter, PlainLines, follow, format_event, open_view
from dreambooth_cli.errors import HangUp, Interrupted, Terminated
from dreambooth_cli.events import Event, PhaseStarted, PhotoLooked, RunOpened, StepDone, Warned
from dreambooth_cli.project import open_project
from dreambooth_cli.settings import PrepSettings, SubjectSettings
from dreambooth_cli.workflows.initialise import initialise
from dreambooth_cli.workflows.prepare import prepare

DARK = happened.Finding("dark", 0.2, "Too dark: brighten it.")
TWIN = happened.Finding("duplicate", 1.0, "The same file as b.jpg: it is used once.")
SHEET = Path("/p/contact-sheet.jpg")


def step(number: int, *, loss: float = 0.5, seconds: float = 2.0, memory_gb: float | None = None) -> StepDone:
    return StepDone(step=number, steps=100, loss=loss, learning_rate=1e-6, seconds=seconds, memory_gb=memory_gb)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (happened.Warned(message="a [red] flag"), "warning: a [red] flag"),
        (happened.Noted(message="so be it"), "so be it"),
        (happened.PhotoLooked(path="a.jpg", status="kept"), None),
        (happened.PhotoLooked(path="a.jpg", status="kept", word="dark", findings=(DARK,)), "a.jpg: dark\n  Too dark: brighten it."),
        (
            happened.PhotoLooked(path="a.jpg", status="warned", reasons=("small",), findings=(DARK,)),
            "a.jpg: warned; small\n  Too dark: brighten it.",
        ),
        (
            happened.PhotoLooked(path="a.jpg", status="skipped", reasons=("the same as b.jpg",), word="twice", findings=(TWIN,)),
            "a.jpg: skipped; the same as b.jpg",
        ),
        (
            happened.PhotoLooked(path="a.jpg", status="refused", reasons=("cut off", "small")),
            "a.jpg: refused; cut off; small",
        ),
        (
            happened.PhotosPrepared(count=5, resolution=512, path=Path("/p"), contact_sheet=SHEET, report=Path("/p/r")),
            "5 photos ready at 512 px; look them over: /p/contact-sheet.jpg",
        ),
        (
            happened.PhotosPrepared(
                count=5, resolution=512, path=Path("/p"), contact_sheet=SHEET, report=Path("/p/r"), verdict="a good set", unchanged=True
            ),
            "5 photos ready at 512 px, as before (a good set): /p/contact-sheet.jpg",
        ),
        (happened.SamplesPutOff(message="they come at the end"), "they come at the end"),
        (
            happened.RunOpened(
                number=1, path=Path("/r"), step=0, steps=9, instance_prompt="a sks dog", class_prompt="a dog"
            ),
            'run 1: 9 steps, "a sks dog" for the photos, "a dog" for the class',
        ),
        (
            happened.RunOpened(
                number=2, path=Path("/r"), step=3, steps=9, instance_prompt="a sks dog", class_prompt="a dog"
            ),
            'run 2: continues from step 3 of 9, "a sks dog" for the photos, "a dog" for the class',
        ),
        (happened.ProjectSaved(name="dog", path=Path("/d"), created=True), "project dog made: /d"),
        (happened.ProjectSaved(name="dog", path=Path("/d"), created=False), "project dog saved: /d"),
        (happened.CheckpointSaved(step=5, path=Path("/c")), "checkpoint at step 5: /c"),
        (happened.SampleSaved(step=5, path=Path("/s.png"), prompt="x"), "sample at step 5: /s.png"),
        (happened.ModelSaved(path=Path("/m"), step=9), "the model is ready: /m"),
        (
            happened.RunEnded(
                number=2,
                seconds=130,
                bytes=90_000_000,
                verdict="learned",
                of_class="kept",
                sentences=("It has learned.",),
                report=Path("/r/report.html"),
                command='dreambooth generate dog "a [identifier] dog"',
            ),
            "run 2 is done in 2 min, and uses 90 MB of disk: learned, the class kept\nIt has learned.\n"
            'all of it on one page: /r/report.html\ndraw with it:\n  dreambooth generate dog "a [identifier] dog"',
        ),
        (happened.BaseReady(name="sd15", path=Path("/b"), revision="x"), "sd15 is on disk: /b"),
        (happened.ImageSaved(path=Path("/i.png"), seed=3, prompt="x"), "seed 3: /i.png"),
        (happened.GridSaved(path=Path("/g.png")), "all on one sheet: /g.png"),
        (
            happened.PlanMade(plan={"device": "cuda", "needed": 10_800_000_000, "why": "it fits"}),
            "plan: it fits (needs about 10.8 GB)",
        ),
        (happened.PlanMade(plan={"device": "cpu", "needed": 1, "why": "no GPU"}), "plan: no GPU"),
        (step(1), None),
    ],
)
def test_each_event_in_words(event: Event, line: str | None) -> None:
    assert views.format_event(event) == line


def test_durations_rates_and_bytes() -> None:
    assert [views.format_duration(seconds) for seconds in (0, 45, 100, 3540, 11100)] == [
        "0 s",
        "45 s",
        "2 min",
        "59 min",
        "3 h 05 min",
    ]
    assert [views.format_rate(seconds) for seconds in (1.25, 0.25, 0.0)] == [
        "1.25 s/step",
        "4.0 steps/s",
        "0.00 s/step",
    ]
    assert [views.format_bytes(count) for count in (4_300_000_000, 12_000_000, 0)] == ["4.3 GB", "12 MB", "0 MB"]
    assert views.format_pairs([("a", "x"), ("long", "y")]) == "a     x\nlong  y"


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_time_is_claimed_once_it_was_measured() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.begin(PhaseStarted(name="training", total=100, done=40, unit="steps"))
    assert meter.words() == "40 of 100 steps"
    assert meter.advance(step(41, loss=1.0, memory_gb=9.84))
    assert meter.words() == "41 of 100 steps, loss 1.0000, 2.00 s/step, 2 min left, 9.8 GB"
    meter.advance(step(42, loss=0.0, seconds=1.0))
    assert meter.words() == "42 of 100 steps, loss 0.5000, 1.50 s/step, 87 s left"


def test_the_meter_of_other_phases() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.begin(PhaseStarted(name="class images", total=200, done=100, unit="images"))
    clock.now = 30.0
    meter.advance(happened.ClassImageMade(number=110, total=200, path=Path("x")))
    assert meter.seconds_left() == 270.0
    assert meter.words() == "110 of 200, 4 min left"
    meter.begin(PhaseStarted(name="download sd15", total=4 * 10**9, unit="B"))
    meter.advance(happened.BytesFetched(file="a", done=10**9, total=4 * 10**9))
    assert meter.line() == "download sd15: 1.0 GB of 4.0 GB, 0 s left"
    assert not meter.advance(happened.Noted(message="x"))


def test_plain_lines_are_about_ten(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with PlainLines((happened.ModelSaved,), clock) as view:
        view.show(PhaseStarted(name="training", total=100, unit="steps"))
        for number in range(1, 101):
            clock.now += 1
            view.show(step(number))
        view.show(happened.ModelSaved(path=Path("/m"), step=100))
    streams = capsys.readouterr()
    assert streams.out == "/m\n"
    lines = streams.err.splitlines()
    assert len(lines) == 11
    assert lines[0] == "training: 0 of 100 steps"
    assert lines[1] == "training: 10 of 100 steps, loss 0.5000, 2.00 s/step, 3 min left"
    assert lines[-1] == "training: 100 of 100 steps, loss 0.5000, 2.00 s/step"


def test_a_quick_phase_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainLines((), Clock()) as view:
        view.show(PhaseStarted(name="encoding", total=20, unit="pictures"))
        for number in range(1, 21):
            view.show(happened.PictureEncoded(number=number, total=20))
    assert capsys.readouterr().err == "encoding: 0 of 20 pictures\nencoding: 20 of 20 pictures\n"


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with JsonLines() as view:
        view.show(happened.ImageSaved(path=Path("/é.png"), seed=1, prompt="a [identifier]"))
    streams = capsys.readouterr()
    assert streams.err == ""
    assert json.loads(streams.out) == {"event": "image", "path": "/é.png", "seed": 1, "prompt": "a [identifier]"}


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = io.StringIO()
    terminal = Console(file=drawn, force_terminal=True, width=80, markup=False, highlight=False, no_color=True)
    monkeypatch.setattr(views, "messages", lambda: terminal)
    with LiveBars((happened.ImageSaved,)) as view:
        view.show(PhaseStarted(name="loading [red]"))
        view.show(PhaseStarted(name="training [x]", total=100, unit="steps"))
        for number in range(1, 101):
            view.show(step(number, memory_gb=10.5))
        view.show(happened.Warned(message="look at [identifier]"))
        view.show(PhaseStarted(name="drawing", total=1, unit="images"))
        view.show(happened.ImageSaved(path=Path("/i.png"), seed=1, prompt="x"))
        assert capsys.readouterr().out == "", "results wait until the bar is gone"
    assert capsys.readouterr().out == "/i.png\n"
    shown = drawn.getvalue()
    assert "warning: look at [identifier]" in shown
    assert "training [x]" in shown
    assert "training [x]: 100 of 100 steps, loss 0.5000, 2.00 s/step, 10.5 GB\n" in shown
    assert shown.index("training [x]: 100 of 100") < shown.index("warning: look at"), "what comes after a phase stands below it"
    assert "…" not in shown
    assert re.search("1 of 1 image\\b", shown)
    assert shown.count("\n") < 200, "it is not drawn anew for every step"


@pytest.mark.parametrize("variable", ["NO_COLOR", "CI", "TERM"])
def test_plain_lines_where_bars_are_not_wanted(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(views, "messages", lambda: console)
    assert isinstance(open_view(json=False), LiveBars)
    monkeypatch.setenv(variable, "dumb" if variable == "TERM" else "1")
    assert isinstance(open_view(json=False), PlainLines)
    assert isinstance(open_view(json=True), JsonLines)


@pytest.mark.parametrize(("number", "kind"), [(2, Interrupted), (15, Terminated), (1, HangUp)])
def test_a_signal_closes_the_work_at_the_next_event(
    number: int, kind: type[Interrupted], capsys: pytest.CaptureFixture[str]
) -> None:
    saved: list[int] = []

    def work() -> happened.Events:
        for count in range(10):
            try:
                if count == 3:
                    stopping._receive(number, None)
                yield step(count)
            except GeneratorExit:
                saved.append(count)
                raise

    with pytest.raises(kind) as caught:
        follow(work(), JsonLines(), kept="three are whole")
    assert caught.value.message.endswith("; three are whole")
    assert saved == [3]
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_an_error_of_the_work_comes_through() -> None:
    def work() -> Iterator[Event]:
        yield happened.Noted(message="begun")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        follow(work(), PlainLines(()))  # type: ignore[arg-type]


def test_long_lines_are_broken_between_words_and_paths_never() -> None:
    path = "/a/path/that-is-longer/than-the-line"
    assert between_words(f"  the checkpoint is {path} and more", 24) == f"  the checkpoint is\n  {path}\n  and more"
    assert between_words("short   as it is", 24) == "short   as it is"


def test_chinese_is_broken_between_its_characters_and_stands_in_columns() -> None:
    lines = between_words('  called "一只非常可爱的小狗在海滩上奔跑，天气很好" and more', 24).split("\n")
    assert all(cell_len(line) <= 24 and line.startswith("  ") for line in lines)
    assert "".join(line.strip() for line in lines).replace(" ", "") == 'called"一只非常可爱的小狗在海滩上奔跑，天气很好"andmore'
    assert not any(line.strip()[0] in "，。" for line in lines)
    path = "/home/用户/照片/一个很长的文件夹名字没有空格"
    assert path in between_words(f"project made: {path} and more", 24).split("\n")
    pairs = views.format_pairs([("狗", "one"), ("a dog", "two")])
    assert [cell_len(line.partition(word)[0]) for line, word in zip(pairs.splitlines(), ("one", "two"), strict=True)] == [7, 7]


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert visible("a\x1b[2J\x07\x9b\u202e\n") == "a\\x1b[2J\\x07\\x9b\\u202e\\n"
    assert visible("a\tb\nc\rd", keep="\n\t") == "a\tb\nc\\rd"
    assert visible("[red] \u05d0\u05d1 の 👩\u200d👧") == "[red] \u05d0\u05d1 の 👩\u200d👧"


def test_a_name_can_tell_no_lies(capsys: pytest.CaptureFixture[str]) -> None:
    with open_view(json=False) as view:
        view.show(PhotoLooked(path="a\nError: all is lost\x1b[2J.jpg", status="refused", reasons=("cut off",)))
        view.show(Warned(message="the prompt [red]\x1b]0;gone\x07"))
    assert capsys.readouterr().err.splitlines() == [
        r"a\nError: all is lost\x1b[2J.jpg: refused; cut off",
        r"warning: the prompt [red]\x1b]0;gone\x07",
    ]


def test_a_prompt_of_ten_thousand_words_is_a_short_line() -> None:
    words = "dog\n" * 10_000
    run = RunOpened(number=1, path=Path("1"), step=0, steps=3, instance_prompt=words, class_prompt=words)
    line = format_event(run)
    assert line is not None
    assert len(line) < 1000
    assert "\n" not in line


def test_a_folder_is_counted_once_however_often_its_photos_are_told(photos: Path) -> None:
    (photos / "notes.raw").write_bytes(b"no picture")
    meter = Meter(Clock())
    counts: dict[str, int] = {}
    for event in initialise("dog", subject=SubjectSettings(photos=photos, class_prompt="a dog", model="pocket"), prep={}, train={}):
        if isinstance(event, PhaseStarted):
            meter.begin(event)
        meter.advance(event)
        if meter.total is not None:
            assert meter.done <= meter.total
            counts[meter.name] = meter.done
    files = len(list(photos.iterdir()))
    project = open_project("dog")
    assert counts["looking at the photos"] == files
    for again in range(2):
        meter.begin(PhaseStarted(name="something else", total=3))
        for event in prepare(project, PrepSettings(), resolution=64):
            if isinstance(event, PhaseStarted):
                meter.begin(event)
            meter.advance(event)
        assert meter.done == (0 if again else len(list(project.photos.iterdir()))), "what is kept is told, and moves nobody else's bar"
