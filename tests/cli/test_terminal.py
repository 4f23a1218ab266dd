"""The program on a pseudo-terminal: the interview from its first question to the saved project, the bars, Ctrl-C."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from dreambooth_cli.paths import projects_folder
from dreambooth_cli.project import Project, list_projects

from .conftest import environment

pexpect = pytest.importorskip("pexpect")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")]


def spawn(*words: str | Path, **variables: str) -> Any:
    """The program on a terminal of 100 columns."""
    env = {**environment(), "TERM": "xterm-256color", "COLUMNS": "100", **variables}
    for name in ("NO_COLOR", "CI"):
        env.pop(name, None)
    arguments = ["-m", "dreambooth_cli", *map(str, words)]
    return pexpect.spawn(sys.executable, arguments, env=env, encoding="utf-8", timeout=60, dimensions=(40, 100))


def test_from_the_first_question_to_the_saved_project(photos: Path) -> None:
    folder = photos.rename(photos.with_name("my photos"))
    child = spawn("init")
    child.expect_exact("Where are the photos?")
    child.send(f"\x1b[200~{str(folder).replace(' ', chr(92) + ' ')}\x1b[201~\r")
    child.expect_exact("5 photos in")
    child.expect_exact("What is it?")
    child.send("a dog\r")
    child.expect_exact("Which rare word")
    child.send("\x15sks\r")
    child.expect_exact('"a sks dog"')
    child.expect_exact("Which base model?")
    child.send("\r")
    child.expect_exact("Which method?")
    child.send("\r")
    child.expect_exact("How many steps?")
    child.send("\x1520\r")
    child.expect_exact("What shall the project be called?")
    child.send("\x15rex\r")
    child.expect_exact("Save the project rex?")
    child.send("\r")
    child.expect_exact("next: dreambooth prep rex")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    settings = Project(projects_folder() / "rex").settings()
    assert settings["subject"]["photos"] == folder.resolve()
    assert settings["train"]["steps"] == 20


def test_ctrl_c_at_a_question() -> None:
    child = spawn("init")
    child.expect_exact("Where are the photos?")
    child.sendintr()
    child.expect_exact("Stopped: nothing was made")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert list_projects() == []


def test_bars_while_it_trains_and_ctrl_c_saves(photos: Path, sd1: Path) -> None:
    child = spawn(
        "train", "--photos", photos, "--class-prompt", "a dog", "--model", sd1, "--steps", "5000", "--class-images", "0"
    )
    child.expect(re.compile(r"training.*\d+ of 5000 steps.*loss \d\.\d+.*left", re.DOTALL))
    child.sendintr()
    child.expect(re.compile(r"Stopped: by Ctrl-C.*checkpoints/step-\d+", re.DOTALL))
    child.expect_exact("run the same command again to go on")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


def test_remove_asks_on_a_terminal() -> None:
    (projects_folder() / "dog").mkdir(parents=True)
    (projects_folder() / "dog" / "project.toml").write_text("")
    child = spawn("projects", "remove", "dog")
    child.expect_exact("Delete ")
    child.send("n\r")
    child.expect(pexpect.EOF)
    assert [project.name for project in list_projects()] == ["dog"]
    child = spawn("projects", "remove", "dog")
    child.expect_exact("Delete ")
    child.send("y\r")
    child.expect_exact("removed dog")
    assert list_projects() == []
