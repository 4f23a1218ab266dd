"""`--json` as an interface: its first line, and the documents."""

import json

import pytest

from dreambooth_cli import __version__
from dreambooth_cli.cli import lines
from tests.cli.conftest import Dreambooth

START = {"event": "start", "schema": 1, "version": __version__}


@pytest.mark.parametrize(
    "words",
    [
        ["init"],
        ["prep", "none"],
        ["train"],
        ["train", "--steps", "-1"],
        ["train", "--no_such_flag"],
        ["generate", "none", "a dog"],
        ["models", "pull"],
        ["models", "pull", "sd99"],
        ["models", "--gpu-memory", "8", "pull", "sd99"],
        ["no-such-command"],
    ],
    ids=" ".join,
)
def test_a_command_that_fails_at_once_says_its_version_first(words: list[str], dreambooth: Dreambooth) -> None:
    done = dreambooth(*words, "--json")
    assert (done.code != 0, done.lines[0], [line["event"] for line in done.lines]) == (True, START, ["start", "error"])


def test_a_command_that_succeeds_says_its_version_first_and_once(dreambooth: Dreambooth) -> None:
    done = dreambooth("init", "--example", "--json")
    assert (done.code, done.lines[0], sum(line["event"] == "start" for line in done.lines)) == (0, START, 1)
    assert dreambooth("prep", "--json").lines[0] == START
    assert "start" not in dreambooth("prep").out


@pytest.mark.parametrize("words", [["models"], ["models", "sd15"], ["projects"], ["projects", "list"]], ids=" ".join)
def test_a_document_stays_one(words: list[str], dreambooth: Dreambooth) -> None:
    assert "event" not in json.loads(dreambooth(*words, "--json").out)


@pytest.mark.parametrize("words", [["models", "sd99"], ["projects", "path", "none"], ["projects", "none"]], ids=" ".join)
def test_where_a_document_was_asked_for_an_error_is_one_line(words: list[str], dreambooth: Dreambooth) -> None:
    assert json.loads(dreambooth(*words, "--json").out)["event"] == "error"


def test_nothing_is_owed_where_no_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    lines.expect(["train"], json=True)
    lines.expect(["train"], json=False)
    lines.begin()
    assert capsys.readouterr().out == ""
