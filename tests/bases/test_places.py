"""Where bases are: the latest place first, only so many of them, and a damaged file stops nothing."""

import json

import pytest

from dreambooth_cli.bases.places import MOST, known_places, remember_place
from dreambooth_cli.paths import home_folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DREAMBOOTH_HOME", str(tmp_path / "home"))


def places(identity):
    return [str(place) for place in known_places(identity)]


def test_the_latest_place_comes_first():
    for identity, place in (("a", "/x"), ("b", "/y"), ("a", "/z"), ("a", "/x")):
        remember_place(identity, place)
    assert places("a") == ["/x", "/z"]
    assert places("b") == ["/y"]
    assert places("c") == []


def test_the_oldest_are_forgotten():
    for number in range(MOST + 5):
        remember_place(str(number), f"/{number}")
    assert places("4") == []
    assert places("5") == ["/5"]
    assert len(json.loads((home_folder() / "bases.json").read_text())["bases"]) == MOST


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"bases": 3}', '{"bases": [3]}', '{"bases": [{"identity": "a", "path": 3}]}', "[" * 100_000,
     '{"bases": [{"identity": "a", "path": "\\u0000"}]}', "9" * 5000, "\ud800"],
)  # fmt: skip
def test_a_damaged_file_is_begun_anew(text):
    home_folder().mkdir(exist_ok=True)
    (home_folder() / "bases.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert places("a") == []
    remember_place("a", "/x")
    assert places("a") == ["/x"]


def test_what_can_not_be_written_is_left(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DREAMBOOTH_HOME", str(tmp_path / "file"))
    remember_place("a", "/x")
    assert places("a") == []
