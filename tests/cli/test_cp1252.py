"""A console that knows only 256 characters: everything is still printed, and JSON stays JSON."""

import json
from pathlib import Path

import pytest

from .conftest import Dreambooth, in_process

CP1252 = {"PYTHONIOENCODING": "cp1252"}


@pytest.fixture
def chinese_project(tmp_path: Path, photos: Path, dreambooth: Dreambooth) -> str:
    assert dreambooth("init", "红色背包", "--photos", photos, "--class-prompt", "a bag", "--yes").code == 0
    return "红色背包"


def test_help_has_boxes_of_ascii() -> None:
    done = in_process("--help", **CP1252)
    assert done.code == 0
    assert done.out.isascii()
    assert "+- Commands -" in done.out


def test_what_has_no_character_there_is_spelled_out(chinese_project: str) -> None:
    done = in_process("projects", "list", **CP1252)
    assert done.code == 0, done.err
    assert r"\u7ea2" in done.out


def test_json_holds_every_character(chinese_project: str) -> None:
    done = in_process("projects", "list", "--json", **CP1252)
    assert [project["name"] for project in json.loads(done.out)["projects"]] == [chinese_project]
