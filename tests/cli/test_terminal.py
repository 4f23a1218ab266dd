"""The program on a pseudo-terminal: the interview from its first question to the saved project, the bars, Ctrl-C."""

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from dreambooth_cli.paths import projects_folder
from dreambooth_cli.project import Project, list_projects

from .conftest import environment
from .test_help import SNAPSHOTS

pexpect = pytest.importorskip("pexpect")
from .screen import shown  # noqa: E402 - which needs it

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
    child = spawn("init", "--model", "sd15")
    child.expect_exact("Where are the photos?")
    child.send(f"\x1b[200~{str(folder).replace(' ', chr(92) + ' ')}\x1b[201~\r")
    child.expect_exact("5 photos in")
    child.expect_exact("What is it?")
    child.send("a dog\r")
    child.expect_exact("Which rare word")
    child.send("\x1b[20;1R")  # a terminal's answer to where the cursor is: without it nothing is drawn below the line
    child.send("\x15")
    child.expect_exact("\x1b[?25h")  # drawn to its end
    child.send("\x1b[200~sks\x1b[201~")
    child.expect_exact("a rifle can turn up")  # while it is typed
    child.send("\r")
    child.expect_exact("to keep yours, type it again")
    child.expect_exact("Which rare word")
    child.send("\x15sks\r")
    child.expect_exact('"a sks dog"')
    child.expect_exact("Which method?")
    child.send("\x1b")  # back
    child.expect_exact("Which rare word")
    child.send("\x15sks\r")
    child.expect_exact("to keep yours, type it again")
    child.expect_exact("Which rare word")
    child.send("\x15sks\r")
    child.expect_exact("Which method?")
    child.send("\r")
    child.expect_exact("How many steps?")
    child.send("\x15200\r")
    child.expect_exact("What should the project be called?")
    child.send("\x15rex\r")
    child.expect_exact("Save the project rex?")
    child.send("\r")
    child.expect_exact("next: dreambooth prep rex")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    settings = Project(projects_folder() / "rex").settings()
    assert settings["subject"]["photos"] == folder.resolve()
    assert settings["train"]["steps"] == 200


# a machine of two cores without a GPU, whatever this one is
PROGRAM = """
from dreambooth_cli import gpu, machine
gpu._look = lambda: (None, "no NVIDIA driver found")
machine.cores_allowed, machine.machine_memory, machine.free_memory = lambda: 2, lambda: 10**12, lambda: 64 * 10**9
gpu.multiplies_bf16 = lambda: True
from dreambooth_cli.cli.app import main
main()
"""
INTERVIEWS = {
    "interview": [
        ("Which base model?", "\x1b[B\r"),
        ("the photos?", "PHOTOS\r"),
        ("What is it?", "my dog\r"),
        ("type it again", ""),
        ("What is it?", "\r"),
        ("Which rare word", "\x15sks\r"),
        ("type it again", ""),
        ("Which rare word", "\r"),
        ("Which method?", "\r"),
        ("How many steps?", "\x150\r"),
        ("it must be at least 1", ""),
        ("How many steps?", "\x15400\r"),
        ("be called?", "\r"),
        ("Save the project", "\r"),
    ],
    "interview-zh": [
        ("Which base model?", "\x1b[A\x1b[A\r"),
        ("the photos?", "'照片'\r"),
        ("What is it?", "我的小狗\r"),
        ("another way", ""),
        ("What is it?", "\x15一只狗\r"),
        ("another way", ""),
        ("What is it?", "\r"),
        ("Which rare word", "\r"),
        ("Which method?", "\r"),
        ("How many steps?", "\r"),
        ("be called?", "\x15我的小狗\r"),
        ("Save the project", "\r"),
    ],
}


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", INTERVIEWS)
def test_an_interview_is_as_its_snapshot(name: str, columns: int, drawn_photos: Path) -> None:
    """`REGENERATE_SNAPSHOTS=1` rewrites them."""
    with tempfile.TemporaryDirectory(prefix="", dir="/tmp") as place:  # a name of always the same length
        for folder in ("photos", "照片"):
            shutil.copytree(drawn_photos, Path(place) / folder)
        env = {**environment(), "TERM": "xterm", "COLUMNS": str(columns), "PROMPT_TOOLKIT_NO_CPR": "1", "NO_COLOR": "1"}
        env |= {"DREAMBOOTH_HOME": f"{place}/home", "HF_HOME": f"{place}/hf", "LC_ALL": "C.UTF-8"}
        output = io.StringIO()
        child = pexpect.spawn(
            sys.executable, ["-c", PROGRAM, "init"], env=env, cwd=place, encoding="utf-8", timeout=120, dimensions=(50, columns)
        )
        child.logfile_read = output
        for question, answer in INTERVIEWS[name]:
            child.expect_exact(question)
            child.send(answer.replace("PHOTOS", f"{place}/photos"))
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0, output.getvalue()
        text = shown(output.getvalue(), columns).replace(place, "/tmp/" + "0" * (len(place) - 5))
    snapshot = SNAPSHOTS / f"{name}-{columns}.txt"
    if os.environ.get("REGENERATE_SNAPSHOTS"):
        snapshot.write_text(text, encoding="utf-8")
    assert text == snapshot.read_text(encoding="utf-8")
    assert max(map(cell_len, text.splitlines())) <= columns


@pytest.mark.parametrize("columns", [20, 40])
def test_in_a_narrow_terminal_nothing_is_cut(columns: int) -> None:
    output = io.StringIO()
    env = {**environment(), "TERM": "xterm", "COLUMNS": str(columns), "PROMPT_TOOLKIT_NO_CPR": "1"}
    child = pexpect.spawn(sys.executable, ["-c", PROGRAM, "init"], env=env, encoding="utf-8", timeout=120, dimensions=(90, columns))
    child.logfile_read = output
    child.expect_exact("another: a path")
    before = output.getvalue()
    child.send("\x1b[B\r")
    child.expect_exact("Where are the")
    child.send("/no/folder/of/this/name/is/anywhere/here\r")
    child.expect_exact("holds")
    child.expect_exact("Where are the")
    child.sendintr()
    child.expect(pexpect.EOF)
    words = " ".join(shown(before, columns).split())
    assert "a built-in example" in words
    assert "about 15 hours (predicted)" in words
    assert "name the folder that holds them" in " ".join(shown(output.getvalue(), columns).split())


def test_ctrl_c_at_a_question() -> None:
    child = spawn("init")
    child.expect_exact("Which base model?")
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
    # one after the other: an expression over several lines is tried again from every place at each piece of output
    for shown_in_turn in ("training", r"\d+ of 5000 steps", r"loss \d\.\d+", "left"):
        child.expect(shown_in_turn)
    child.sendintr()
    for shown_in_turn in ("Stopped by Ctrl-C", r"checkpoints/step-\d+"):
        child.expect(shown_in_turn)
    child.expect_exact("run the same command again to continue")
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
