"""`main`: errors as words and exit codes, JSON error lines, bugs, closed pipes."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from dreambooth_cli import stopping
from dreambooth_cli.cli import app as app_module
from dreambooth_cli.cli import models as models_module
from dreambooth_cli.errors import (
    DiskError,
    DoesNotFit,
    DreamboothError,
    HangUp,
    Interrupted,
    ModelUnavailable,
    PhotoError,
    ProjectError,
    Terminated,
    TrainingFailed,
    UsageError,
)

from .conftest import Done, Dreambooth, environment, in_process


@pytest.mark.parametrize(
    "kind",
    [
        DreamboothError,
        UsageError,
        PhotoError,
        ProjectError,
        DoesNotFit,
        ModelUnavailable,
        DiskError,
        TrainingFailed,
        Interrupted,
        Terminated,
        HangUp,
    ],
)
def test_each_kind_of_error_in_words_and_as_a_line(
    kind: type[DreamboothError], dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise kind("it went [red]wrong[/red]", "do [this]")

    monkeypatch.setattr(models_module, "survey", fail)
    done = dreambooth("models")
    word = "Stopped" if issubclass(kind, Interrupted) else "Error"
    assert done == Done(kind.exit_code, "", f"{word}: it went [red]wrong[/red]\n  do [this]\n")
    done = dreambooth("models", "--json")
    assert (done.code, done.err) == (kind.exit_code, "")
    assert done.lines == [
        {
            "event": "error",
            "kind": kind.__name__,
            "message": "it went [red]wrong[/red]",
            "hint": "do [this]",
            "exit_code": kind.exit_code,
        }
    ]


def test_a_traceback_can_not_drive_the_terminal(dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        try:
            raise ValueError("a hub's answer: \x1b[2J \u202e")
        except ValueError as error:
            raise ModelUnavailable("it went wrong") from error

    monkeypatch.setattr(models_module, "survey", fail)
    done = dreambooth("models", "--debug")
    assert "a hub's answer: \\x1b[2J \\u202e\n" in done.err
    assert not {"\x1b", "\u202e"} & set(done.err)


def test_debug_shows_the_traceback_of_an_error(dreambooth: Dreambooth) -> None:
    assert "Traceback" not in dreambooth("models", "sd99").err
    done = dreambooth("models", "sd99", "--debug")
    assert done.code == 5
    assert "Traceback" in done.err
    assert done.err.splitlines()[-2].startswith("Error: the catalogue has no base model 'sd99'")


def test_a_pattern_that_the_shell_has_made_files_of(photos: Path, dreambooth: Dreambooth) -> None:
    files = sorted(photos.iterdir())
    for words in (
        ["init", "--photos", *files, "--class-prompt", "a dog"],
        ["train", "--class_prompt", "a dog", "--instance_data_dir", *files],
        ["prep", "dog", f"--photos={files[0]}", *files[1:], "--resolution", "64"],
    ):
        done = dreambooth(*words)
        assert done.code == 2
        assert f"takes one folder, but {len(files)} files were given" in done.err
        assert done.err.rstrip().endswith(f" {photos}")
    done = dreambooth("init", "--photos", *files, "--json")
    assert (done.code, done.lines[-1]["kind"]) == (2, "UsageError")


def test_words_without_quotes_are_told_to_have_some(photos: Path, dreambooth: Dreambooth) -> None:
    done = dreambooth("train", "--photos", photos, "--class-prompt", "a", "photo", "of", "a", "dog")
    assert done.code == 2
    assert 'put quotes around text with spaces: --class-prompt "a dog"' in done.err
    done = dreambooth("init", "--photos", photos, "--class-prompt", "a", "dog")
    assert (done.code, 'the class prompt "a" names no subject' in done.err) == (2, True)


def test_a_bug_has_its_traceback_and_exit_code_1(dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(models_module, "survey", fail)
    done = dreambooth("models")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "Error: this is a bug in dreambooth: ZeroDivisionError: by zero\n" in done.err
    done = dreambooth("models", "--json")
    assert (done.code, done.lines[0]["kind"], done.lines[0]["exit_code"]) == (1, "Bug", 1)


def test_what_a_library_makes_of_a_second_signal_is_a_stop(
    dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        stopping._receive(signal.SIGINT, None)
        try:
            stopping._receive(signal.SIGINT, None)
        except KeyboardInterrupt as error:
            raise ModelUnavailable("a library's own error", "fetch it again") from error

    monkeypatch.setattr(models_module, "survey", fail)
    done = dreambooth("models")
    assert done == Done(130, "", "Stopped at once\n  what had been saved is kept\n")


def test_a_full_disk_is_no_bug(dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/model")

    monkeypatch.setattr(models_module, "survey", fail)
    done = dreambooth("models")
    assert done == Done(6, "", "Error: the disk is full: /data/model\n  make room, then run the same command again\n")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["modles"], "No such command 'modles'. Did you mean 'models'?", "see dreambooth --help"),
        (["train", "--stepz", "3"], "No such option: --stepz", "see dreambooth train --help"),
        (["train", "--method", "most"], "'--method': 'most' is not one of 'auto', 'full', 'lora'", "see dreambooth train --help"),
        (["models", "--gpu-memory", "a"], "Invalid value for '--gpu-memory': it takes a number", "see dreambooth models --help"),
        (["generate", "--run", "a", "a dog"], "Invalid value for '--run': it takes a whole number", "see dreambooth generate --help"),
        (["models", "--gpu-memory", "0"], "--gpu-memory can't be 0", "give the GB that the card is sold with"),
        (["models", "sd15", "sd14"], "models takes one name, not 2", "dreambooth models pull NAME"),
        (["models", "pull"], "pull what?", "dreambooth models pull sd15"),
    ],
)
def test_wrong_usage_is_exit_2(words: list[str], message: str, hint: str, dreambooth: Dreambooth) -> None:
    done = dreambooth(*words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert hint in done.err
    done = dreambooth(*words, "--json")
    line = done.lines[-1]
    assert (done.code, done.err, line["event"], line["kind"], line["exit_code"]) == (2, "", "error", "UsageError", 2)
    assert message in line["message"]
    assert hint in line["hint"]


def test_ctrl_c_is_130(dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models_module, "survey", stop)
    done = dreambooth("models")
    assert (done.code, done.err) == (130, "Stopped at once\n  what had been saved is kept\n")


def test_a_question_without_an_answer_is_no_bug() -> None:
    assert isinstance(app_module.in_words(typer.Abort()), Interrupted)


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    for words in ("models", "models --json", "--help", "train --help"):
        script = f"{sys.executable} -m dreambooth_cli {words} | head -1; sleep 0"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment(), check=False)
        assert done.stderr == "", words
        assert len(done.stdout.splitlines()) == 1, words


@pytest.mark.parametrize("words", ["models", "models --json", "--help", "projects list"])
def test_a_closed_stdout_ends_it_quietly(words: str) -> None:
    script = f"{sys.executable} -m dreambooth_cli {words} >&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0
    assert done.stderr.replace("there is no project yet; make one: dreambooth init\n", "") == ""


def test_a_reader_that_has_gone_already() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "dreambooth_cli", "models"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_table_on_an_ascii_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dreambooth_cli", "models"],
        capture_output=True,
        env={**environment(), "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        check=True,
    )
    assert b"sd15" in done.stdout


def test_the_module_is_the_same_program() -> None:
    done = in_process("models", "--json")
    assert done.code == 0
    assert [model["name"] for model in json.loads(done.out)["models"]] == ["sd15", "sd14", "sd21", "sdxl", "klein", "z-image", "pocket"]


def test_a_name_that_no_disk_can_hold_is_wrong_usage(dreambooth: Dreambooth, tmp_path: Path) -> None:
    done = dreambooth("generate", "--model-path", tmp_path / ("x" * 300), "a dog", "--json")
    assert done.code == 2
    assert "too long" in done.lines[-1]["message"]
    assert done.err == ""


def test_a_library_that_tells_half_a_file_is_cut_short() -> None:
    error = DreamboothError("x" * 40_000, "what to do")
    assert error.message == str(error) == "x" * 2000 + "..."


@pytest.mark.parametrize("words", [("--photos", ""), ("--photos=",), ("--output_dir", ""), ("--model-path=",), ("--class-data-dir", "")])
def test_an_empty_path_is_not_the_current_folder(words: tuple[str, ...], dreambooth: Dreambooth) -> None:
    done = dreambooth("train", *words)
    assert (done.code, "is empty" in done.err) == (2, True)
