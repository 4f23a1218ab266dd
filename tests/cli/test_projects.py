"""`dreambooth projects`: list, path, remove."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dreambooth_cli.cli import projects as projects_module
from dreambooth_cli.config import write_config
from dreambooth_cli.paths import cache_folder, projects_folder
from dreambooth_cli.project import Project
from dreambooth_cli.run import Run
from tests.records import a_record

from .conftest import Dreambooth


def make(name: str) -> Project:
    project = Project(projects_folder() / name)
    project.path.mkdir(parents=True)
    write_config(project.config, {"subject": {"class_prompt": f"a [{name}]"}})
    return project


def test_none_yet(dreambooth: Dreambooth) -> None:
    done = dreambooth("projects")
    assert (done.code, done.out, done.err) == (0, "", "there is no project yet; make one: dreambooth init\n")
    assert json.loads(dreambooth("projects", "--json").out)["projects"] == []


def test_list(dreambooth: Dreambooth) -> None:
    make("mug")
    run = make("dog").new_run()
    run.model.mkdir()
    (run.model / "dreambooth.json").write_text("{}")
    for words in (["projects"], ["projects", "list"]):
        lines = dreambooth(*words).out.splitlines()
        assert [line.rpartition(", ")[0] for line in lines] == ["dog  a [dog], 1 run", "mug  a [mug], no runs"]
        assert all(re.fullmatch(r"\d+ kB", line.rpartition(", ")[2]) for line in lines)
        document = json.loads(dreambooth(*words, "--json").out)
        assert document["folder"] == str(projects_folder())
        assert [project["name"] for project in document["projects"]] == ["dog", "mug"]
        assert document["projects"][0]["finished"] == [1]


def test_a_broken_project_is_listed(dreambooth: Dreambooth) -> None:
    make("dog").config.write_text("steps = ")
    assert dreambooth("projects").out == "dog  ?, no runs, 8 B\n"


def test_path(dreambooth: Dreambooth) -> None:
    project = make("dog")
    assert dreambooth("projects", "path", "dog").out == f"{project.path}\n"
    assert json.loads(dreambooth("projects", "path", "dog", "--json").out)["path"] == str(project.path)
    done = dreambooth("projects", "path", "cat")
    assert (done.code, done.err) == (3, "Error: there is no project called cat\n  your projects: dog\n")
    done = dreambooth("projects", "path")
    assert (done.code, done.err.startswith("Error: Missing argument")) == (2, True)


def test_show_tells_of_each_run(dreambooth: Dreambooth) -> None:
    project = make("dog")
    run = project.new_run()
    run.write_record(replace(a_record(), date="2026-11-27T04:05:06+00:00"))
    for step in (250, 500):
        run.checkpoint(step).mkdir(parents=True)
        (run.checkpoint(step) / "weights.safetensors").write_bytes(b"0" * 1000)
    (project.images / "of it").mkdir(parents=True)
    (project.images / "a-dog-run1-seed1.png").write_bytes(b"0" * 5000)
    document = json.loads(dreambooth("projects", "show", "dog", "--json").out)
    size = run.plan.stat().st_size + 2000
    date = "2026-11-27T04:05:06+00:00"
    told = {"number": 1, "date": date, "base": "tiny", "method": "full", "steps": 1000, "verdict": None, "bytes": size}
    assert document == {"project": "dog", "runs": [told]}
    done = dreambooth("projects", "show", "dog")
    assert (done.code, done.err) == (0, "")
    shown = ("a [dog], 1 run (none finished)", "not finished", "pictures: 1 in")
    for words in (*shown, "2026-11-27 04:05", "tiny", "500 of 1000", "250, 500"):
        assert words in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines() if str(project.path) not in line)
    project.new_run().write_record(a_record(digest="1" * 64))
    project.runs()[1].plan.write_text("{}")
    done = dreambooth("projects", "show", "dog")
    assert (done.code, "run 2: " in done.err) == (0, True)
    assert dreambooth("projects", "show", "cat").code == 3


@pytest.mark.parametrize("runs", ["1", "1,1", "1,two", "", "1-3"])
def test_compare_takes_several_runs(runs: str, dreambooth: Dreambooth) -> None:
    make("dog")
    done = dreambooth("projects", "compare", "dog", "--runs", runs)
    assert (done.code, "give their numbers: --runs 1,2,3" in done.err) == (2, True)


def test_clean_says_what_goes_and_what_stays(dreambooth: Dreambooth) -> None:
    project = make("dog")
    run, unfinished = project.new_run(), Run(project.path / "runs" / "2")
    run.write_record(a_record())
    for each in (run, unfinished):
        each.checkpoint(5).mkdir(parents=True)
        (each.checkpoint(5) / "weights.safetensors").write_bytes(b"0" * 1000)
        (each.checkpoint(5) / "optimizer.safetensors").write_bytes(b"0" * 2_000_000)
        files = {name: {"bytes": 1, "sha256": ""} for name in ("weights.safetensors", "optimizer.safetensors")}
        (each.checkpoint(5) / "checkpoint.json").write_text(json.dumps({"run": "a", "step": 5, "files": files}))
    unfinished.write_record(a_record(digest="1" * 64))
    run.model.mkdir()
    (run.model / "dreambooth.json").write_text("{}")
    project.images.mkdir()
    (project.images / "a.png").write_bytes(b"0" * 5000)
    cached = cache_folder() / "class-images" / "0123"
    cached.mkdir(parents=True)
    (cached / "0.png").write_bytes(b"0" * 7000)
    done = dreambooth("projects", "clean", "dog")
    assert (done.code, "removing 2 MB needs your confirmation" in done.err) == (2, True)
    assert "dog, run 1: optimizer state of the finished run (2 MB)" in done.err
    assert "pictures stay: 1 (5 kB); --images removes them too" in done.err
    assert "class images of all projects stay: 1 (7 kB); --class-images removes them too" in done.err
    assert (run.checkpoint(5) / "optimizer.safetensors").is_file()
    done = dreambooth("projects", "clean", "--yes")
    assert (done.code, done.out, "freed 2 MB" in done.err) == (0, "", True)
    assert sorted(path.name for path in run.checkpoint(5).iterdir()) == ["checkpoint.json", "weights.safetensors"]
    assert list(json.loads((run.checkpoint(5) / "checkpoint.json").read_text())["files"]) == ["weights.safetensors"]
    assert (unfinished.checkpoint(5) / "optimizer.safetensors").is_file()  # it may go on
    document = json.loads(dreambooth("projects", "clean", "--images", "--class-images", "--yes", "--json").out)
    assert document["bytes"] == 12_000
    assert not cached.exists()
    assert list(project.images.iterdir()) == []
    assert "there is nothing to clean up" in dreambooth("projects", "clean", "--yes").err


def test_remove_needs_a_yes(dreambooth: Dreambooth) -> None:
    project = make("dog")
    done = dreambooth("projects", "remove", "dog")
    assert (done.code, done.err) == (2, "Error: removing dog needs your confirmation\n  add --yes\n")
    assert project.config.is_file()
    done = dreambooth("projects", "remove", "dog", "--yes")
    assert (done.code, done.out, done.err) == (0, "", "removed dog\n")
    assert not project.path.exists()


@pytest.mark.parametrize("answer", [True, False])
def test_remove_asks(answer: bool, dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make("dog")
    asked: list[str] = []
    monkeypatch.setattr(projects_module, "can_ask", lambda: True)
    monkeypatch.setattr(projects_module.typer, "confirm", lambda words: asked.append(words) or answer)
    assert dreambooth("projects", "remove", "dog").code == 0
    assert project.path.exists() is not answer
    assert str(project.path) in asked[0]


def test_remove_says_so_in_json(dreambooth: Dreambooth, tmp_path: Path) -> None:
    make("dog")
    assert json.loads(dreambooth("projects", "remove", "dog", "--yes", "--json").out)["removed"] is True


def test_a_project_elsewhere_is_not_removed(dreambooth: Dreambooth, tmp_path: Path) -> None:
    make("dog").path.rename(tmp_path / "elsewhere")
    (projects_folder() / "dog").symlink_to(tmp_path / "elsewhere")
    done = dreambooth("projects", "remove", "dog", "--yes")
    assert (done.code, done.err.startswith("Error: project dog is a link to ")) == (3, True)
    assert (tmp_path / "elsewhere" / "project.toml").is_file()


def test_a_class_prompt_of_ten_thousand_words_is_a_line(dreambooth: Dreambooth) -> None:
    write_config(make("dog").config, {"subject": {"class_prompt": "a\ndog " * 10_000}})
    (line,) = dreambooth("projects").out.splitlines()
    assert line.startswith(r"dog  a\ndog a\ndog ")
    assert len(line) < 500
