"""The home that version 0.1.0 left can be listed and drawn from, its runs are recognised, and what it printed is still printed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.cli.app import run
from dreambooth_cli.config import ask
from dreambooth_cli.engine.hub.bases import obtain
from dreambooth_cli.errors import ProjectError
from dreambooth_cli.identity import former_identities, former_run_digest
from dreambooth_cli.project import Project, open_project
from dreambooth_cli.settings import TrainSettings
from dreambooth_cli.workflows.freeze import find_run, shape_before, shape_of
from dreambooth_cli.workflows.prepare import prepared_photos
from dreambooth_cli.workflows.recipe import Ingredients

KEPT = Path(__file__).parent / "0.1.0"
SHARED = ["--class-images", "2", "--class-image-steps", "2", "--learning-rate", "1e-3", "--checkpoint-every", "4"]
SHARED += ["--keep-checkpoints", "1", "--identifier", "sks", "--seed", "3"]
FULL = [*SHARED, "--sample-every", "4", "--sample-steps", "2", "--steps", "4"]
LORA = [*SHARED, "--method", "lora", "--rank", "2", "--steps", "4", "--train-text-encoder"]
DRAW = ["--num-images", "2", "--steps", "2", "--seed", "5", "--grid"]


class Told:
    """What a command printed under `--json`."""

    def __init__(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        capsys.readouterr()
        self.code = run([*words, "--json"])
        self.lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert self.code == 0, self.lines[-1]


def runs_of(name: str) -> list[int]:
    return [each.number for each in open_project(name).runs()]


def test_it_is_listed(kept_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (document,) = Told(["projects"], capsys).lines
    found = {project["name"]: (project["runs"], project["finished"]) for project in document["projects"]}
    assert found == {"full": ([1, 2], [1]), "lora": ([1], [1])}


@pytest.mark.parametrize("source", [["full"], ["lora"], ["--model-path", "out"], ["--model-path", "out-lora"]], ids=" ".join)
def test_it_is_drawn_from(
    source: list[str], kept_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(kept_home)
    told = Told(["generate", *source, "a [identifier] dog", "--steps", "1", "--seed", "5"], capsys)
    assert [line["prompt"] for line in told.lines if line["event"] == "image"] == ["a sks dog"]
    assert [line for line in told.lines if line["event"] == "warning"] == []


@pytest.mark.parametrize(("name", "words"), [("full", FULL), ("lora", LORA)])
def test_a_finished_run_is_known_and_delivered(
    name: str, words: list[str], kept_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = runs_of(name)
    told = Told(["train", name, *words, "--output-dir", str(kept_home / "again")], capsys)
    assert any("finished already" in line.get("message", "") for line in told.lines)
    assert told.lines[-1]["event"] == "model"
    assert (kept_home / "again" / "dreambooth.json").is_file()
    assert runs_of(name) == before


class Half:
    """The run that 0.1 left half way, as found by the command that began it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project: Project = open_project("full")
        self.run = self.project.runs()[-1]
        told = self.run.record().asked
        self.asked = ask(told | {"subject": told["subject"] | {"photos": folder / "photos"}})

    def base(self) -> Any:
        events = obtain(ask_for_base(str(self.folder / "base")))
        while True:
            try:
                next(events)
            except StopIteration as stop:
                return stop.value

    def made_of(self) -> Ingredients:
        return Ingredients(asked=self.asked, base=self.base(), photos=tuple(prepared_photos(self.project)), own_class_images=())

    def found(self) -> int | None:
        """The number of the run that is found."""
        made_of = self.made_of()
        run = find_run(self.project, made_of, shape_of(made_of))
        return run.number if run else None

    def begun_on(self, identity: str) -> None:
        """As if 0.1 had begun it when its base had this name."""
        shape = shape_before(self.asked, shape_of(self.made_of())) | {"base": identity}
        record = json.loads(self.run.plan.read_text())
        record |= {"digest": former_run_digest(**shape), "base": record["base"] | {"identity": identity}}
        self.run.plan.write_text(json.dumps({key: value for key, value in record.items() if key != "schema"}))


def test_the_run_half_way_is_found_whatever_else_lies_in_the_base_s_folder(kept_home: Path) -> None:
    half = Half(kept_home)
    assert half.found() == 2
    (kept_home / "base/notes.txt").write_text("mine")
    (kept_home / "base/safety_checker").mkdir()
    (kept_home / "base/safety_checker/model.safetensors").write_text("x")
    assert half.found() == 2


def test_a_run_begun_when_a_note_was_counted_is_found_while_it_is_there_and_told_when_it_is_gone(kept_home: Path) -> None:
    half, note = Half(kept_home), kept_home / "base/notes.txt"
    note.write_text("mine")
    _, counted = former_identities(half.base())
    half.begun_on(counted)
    assert half.found() == 2
    note.unlink()
    with pytest.raises(ProjectError, match=r"run 2 of full was begun by dreambooth 0\.1") as caught:
        half.found()
    assert (caught.value.exit_code, "--restart" in caught.value.hint) == (3, True)


def test_another_weight_in_the_base_is_told_and_another_setting_is_another_run(kept_home: Path) -> None:
    half = Half(kept_home)
    config = kept_home / "base/scheduler/scheduler_config.json"
    text = config.read_text()
    config.write_text(text.replace("0.012", "0.013"))
    with pytest.raises(ProjectError, match="has changed since"):
        half.found()
    config.write_text(text)
    half.asked = half.asked.with_train(TrainSettings(seed=4))
    assert half.found() is None


def lacks(then: Any, now: Any, where: str) -> Iterator[str]:
    """What today's JSON lacks of 0.1's: missing keys, values of another type; null counts as any type."""
    if then is None:
        return
    numbers = (int, float)
    is_number = isinstance(then, numbers) and not isinstance(then, bool)
    if not isinstance(now, numbers if is_number else type(then)) or isinstance(now, bool) != isinstance(then, bool):
        yield f"{where} was {type(then).__name__} and is {type(now).__name__}"
    elif isinstance(then, dict):
        for key, value in then.items():
            if key not in now:
                yield f"{where}.{key} is gone"
            else:
                yield from lacks(value, now[key], f"{where}.{key}")
    elif isinstance(then, list) and then:
        if not now:
            yield f"{where} is empty"
        for value in then:
            yield from lacks(value, now[0], f"{where}[]")


def by_event(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One line of each event."""
    return {line.get("event", "the document"): line for line in lines}


def test_the_story_it_told_is_still_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, photos = str(KEPT / "base"), str(KEPT / "photos")
    words = ["--photos", photos, "--class-prompt", "a photo of a dog", "--model", base, "--yes", "--identifier", "sks"]
    today = {
        "init": Told(["init", "full", *words], capsys),
        "prep": Told(["prep", "full"], capsys),
        "train": Told(["train", "full", *FULL, "--output-dir", str(tmp_path / "out")], capsys),
        "generate": Told(["generate", "full", "a [identifier] dog", *DRAW], capsys),
        "models": Told(["models"], capsys),
    }
    lost = []
    for name, told in today.items():
        kept = [json.loads(line) for line in (KEPT / "story" / f"{name}.jsonl").read_text().splitlines()]
        ours = by_event(told.lines)
        assert (ours.pop("start", None) is None) == (name == "models")
        for event, line in by_event(kept).items():
            lost += list(lacks(line, ours.get(event), f"{name}: {event}"))
    assert lost == []


@pytest.mark.parametrize(
    ("then", "now"),
    [({"a": 1}, {}), ({"a": 1}, {"a": "1"}), ({"a": 1}, {"a": True}), ({"a": [1]}, {"a": ["1"]}), ({"a": {"b": ""}}, {"a": {}})],
)
def test_what_is_lost_is_seen(then: Any, now: Any) -> None:
    assert len(list(lacks(then, now, ""))) == 1
    assert list(lacks(then, then | {"more": 3}, "")) == []
