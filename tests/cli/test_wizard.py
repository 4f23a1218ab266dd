"""The interview, its answers typed into a pipe."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from dreambooth_cli.cli import init as init_module
from dreambooth_cli.cli import train as train_module
from dreambooth_cli.cli import wizard
from dreambooth_cli.errors import ModelUnavailable, PhotoError, UsageError
from dreambooth_cli.identifier import rare_tokens
from dreambooth_cli.paths import projects_folder
from dreambooth_cli.project import Project, list_projects
from dreambooth_cli.settings import SubjectSettings

from .conftest import Dreambooth

DOWN, ENTER, CTRL_C, CTRL_D, CLEAR = "\x1b[B", "\r", "\x03", "\x04", "\x15"
Keys = Callable[[str], None]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keys]:
    """A person at the keyboard."""
    monkeypatch.setattr(init_module, "can_ask", lambda: True)
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe.send_text


def pasted(text: str | Path) -> str:
    """As a terminal sends what was dragged into it."""
    return f"\x1b[200~{text}\x1b[201~"


def test_every_question_answered(keys: Keys, photos: Path, dreambooth: Dreambooth) -> None:
    keys(pasted(f"'{photos}'") + ENTER + "a red dog" + ENTER + CLEAR + "sks" + ENTER)
    keys(DOWN + ENTER)  # the second model
    keys(DOWN + DOWN + ENTER)  # LoRA
    keys(CLEAR + "30" + ENTER + CLEAR + "rex" + ENTER + "y")
    done = dreambooth("init")
    assert (done.code, done.out) == (0, f"{projects_folder() / 'rex'}\n"), done.err
    settings = Project(projects_folder() / "rex").settings()
    assert settings["subject"] == {
        "photos": photos.resolve(),
        "class_prompt": "a red dog",
        "identifier": "sks",
        "model": "sd14",
    }
    assert settings["train"] == {"method": "lora", "steps": 30}
    assert f"5 photos in {photos}" in done.err
    assert 'your photos will be called "a sks red dog"' in done.err
    assert 'all others of their kind "a red dog"' in done.err
    assert "sks is also a rifle" in done.err
    assert "method " in done.err
    assert "next: dreambooth prep rex, and look at its contact sheet; then dreambooth train rex" in done.err


def test_every_default_taken(keys: Keys, photos: Path, dreambooth: Dreambooth) -> None:
    keys(pasted(photos) + ENTER + "a dog" + ENTER + ENTER + ENTER + ENTER + ENTER + ENTER + ENTER)
    done = dreambooth("init")
    assert done.code == 0, done.err
    settings = Project(projects_folder() / "dog").settings()
    assert settings["subject"]["identifier"] == rare_tokens()[0]
    assert settings["subject"]["model"] == "sd15"


def test_flags_are_not_asked_for(keys: Keys, photos: Path, sd1: Path, dreambooth: Dreambooth) -> None:
    keys("a mug" + ENTER + "n")
    words = ["--photos", photos, "--identifier", "zwx", "--model", sd1, "--method", "full", "--steps", "5"]
    done = dreambooth("init", "cup", *words)
    assert (done.code, done.err.splitlines()[-1]) == (130, "Stopped: nothing was made")
    assert "zwx splits into" in done.err
    assert list_projects() == []


def test_a_wrong_answer_is_asked_again(keys: Keys, photos: Path, tmp_path: Path, dreambooth: Dreambooth) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (projects_folder() / "taken").mkdir(parents=True)
    keys(pasted(tmp_path / "nowhere") + ENTER + CLEAR + pasted(empty) + ENTER + CLEAR + pasted(photos) + ENTER)
    keys(ENTER + "a dog" + ENTER + CLEAR + "two words" + ENTER + CLEAR + "zwx" + ENTER + ENTER + ENTER)
    keys(CLEAR + "none" + ENTER + CLEAR + "0" + ENTER + CLEAR + "7" + ENTER)
    keys(CLEAR + "a/b" + ENTER + CLEAR + "taken" + ENTER + CLEAR + "free" + ENTER + ENTER)
    done = dreambooth("init")
    assert done.code == 0, done.err
    project = Project(projects_folder() / "free")
    assert project.settings()["subject"]["class_prompt"] == "a dog"
    assert project.settings()["train"]["steps"] == 7


def test_a_class_prompt_in_doubt_is_asked_about(keys: Keys, photos: Path, sd1: Path, dreambooth: Dreambooth) -> None:
    keys("un perro" + ENTER + CLEAR + "a dog and a cat" + ENTER + CLEAR + "a [identifer] dog" + ENTER)
    keys(CLEAR + "a photo of <Identifier> perro" + ENTER + CLEAR + "sks" + ENTER + "n")
    words = ["--photos", photos, "--model", sd1, "--method", "full", "--steps", "5"]
    done = dreambooth("init", "cup", *words)
    assert done.code == 130, done.err
    assert 'the class prompt "un perro" does not read as English' in done.err
    assert 'your photos will be called "a photo of sks perro"' in done.err
    assert 'all others of their kind "a photo of perro"' in done.err
    # a flag is asked about in the same way; what is proposed is taken with Enter
    keys(ENTER + CLEAR + "sks" + ENTER + "n")
    done = dreambooth("init", "cup", *words, "--class-prompt", "a dog and a cat")
    assert 'your photos will be called "a sks dog and a cat"' in done.err


def test_train_asks_about_a_class_prompt_in_doubt(
    keys: Keys, photos: Path, sd1: Path, dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "can_ask", lambda: True)
    words = ["train", "--photos", photos, "--model", sd1, "--class-prompt", "my dog is here", "--dry-run"]
    for stop in (CTRL_C, CLEAR + CTRL_D):
        keys(stop)
        done = dreambooth(*words)
        assert (done.code, done.err.splitlines()[-1]) == (130, "Stopped: nothing was begun")
    keys(ENTER)
    assert dreambooth(*words).code == 0
    done = dreambooth(*words, "--json")
    assert (done.code, done.lines[-1]["hint"].split(": ", 1)[1]) == (2, '--class-prompt "my [identifier] dog is here"')


def test_another_base_than_the_catalogues(keys: Keys, photos: Path, sd1: Path, dreambooth: Dreambooth) -> None:
    up = "\x1b[A"
    keys("a dog" + ENTER + CLEAR + "sks" + ENTER + up + ENTER + "nosuch" + ENTER + CLEAR + pasted(sd1) + ENTER)
    keys(ENTER + ENTER + ENTER + ENTER)
    done = dreambooth("init", "--photos", photos)
    assert done.code == 0, done.err
    assert Project(projects_folder() / "dog").settings()["subject"]["model"] == str(sd1)
    assert "64 px" in done.err


@pytest.mark.parametrize("answers", range(7))
@pytest.mark.parametrize("stop", [CTRL_C, CTRL_D])
def test_stopping_at_any_question_leaves_nothing(
    answers: int, stop: str, keys: Keys, photos: Path, dreambooth: Dreambooth
) -> None:
    given = [pasted(photos) + ENTER, "a dog" + ENTER, ENTER, ENTER, ENTER, ENTER, ENTER]
    chosen = answers in (3, 4) and stop == CTRL_D  # a choice from a list knows Ctrl-C alone
    clear = CLEAR if stop == CTRL_D else ""  # Ctrl-D is the end of an empty line
    keys("".join(given[:answers]) + clear + (CTRL_C if chosen or answers == 6 else stop))
    done = dreambooth("init")
    assert (done.code, done.err.splitlines()[-1]) == (130, "Stopped: nothing was made")
    home = projects_folder().parent
    assert not home.exists() or [path for path in home.rglob("*") if path.is_file()] == []


def test_a_name_that_is_taken_is_told_before_a_question(keys: Keys, dreambooth: Dreambooth) -> None:
    (projects_folder() / "dog").mkdir(parents=True)
    done = dreambooth("init", "dog")
    assert (done.code, done.err.splitlines()[0]) == (3, "Error: there is a project called dog already")


@pytest.mark.parametrize("extra", [[], ["--yes"], ["--json"]])
def test_without_a_terminal_nothing_is_asked(extra: list[str], photos: Path, dreambooth: Dreambooth) -> None:
    for words, message, hint in (
        (["--class-prompt", "a dog"], "where are the photos?", "name their folder: --photos ./instance_images"),
        (["--photos", photos], "what is in the photos? the class prompt is missing", 'say it: --class-prompt "a dog"'),
    ):
        done = dreambooth("init", *words, *extra)
        assert done.code == 2
        if extra == ["--json"]:
            assert [line["event"] for line in done.lines] == ["start", "error"]
            assert (done.lines[1]["message"], done.lines[1]["hint"]) == (message, hint)
        else:
            assert done.err == f"Error: {message}\n  {hint}\n"
    assert list_projects() == []


def test_a_path_as_it_is_typed_or_dragged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my dog's photos"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    escaped = str(folder).replace("'", "\\'").replace(" ", "\\ ")
    for text in (
        str(folder),
        f" {folder} ",
        f'"{folder}"',
        escaped,
        f"file://{str(folder).replace(' ', '%20')}",
        "my dog's photos",
        "~/my dog's photos",
        f"{folder}/",
    ):
        assert wizard.read_path(text) == folder, text
    assert wizard.read_path("two words") == tmp_path / "two words"
    assert wizard.read_path("it's") == tmp_path / "it's"


@pytest.mark.skipif(os.name == "nt", reason="a backslash parts folders there")
def test_a_folder_whose_name_has_a_backslash(tmp_path: Path) -> None:
    folder = tmp_path / "a\\ b"
    folder.mkdir()
    assert wizard.read_path(str(folder)) == folder


def test_the_checks_have_words() -> None:
    assert wizard.is_valid(lambda text: SubjectSettings(class_prompt=text))(" ") is not True
    assert wizard.is_valid(lambda text: SubjectSettings(class_prompt=text))("a dog") is True
    with pytest.raises(ModelUnavailable):
        wizard.folder_of_base("nosuch")
    with pytest.raises(PhotoError, match="no folder"):
        wizard.check_photos(Path("/nowhere"))
    assert wizard.folder_of_base(None) is None
    with pytest.raises(UsageError):
        init_module.require({})
