"""Settings as flags: every spelling, every type, nothing where nothing was typed."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from dreambooth_cli.cli.app import CONTEXT
from dreambooth_cli.cli.help import Command
from dreambooth_cli.cli.options import Flags, complete_project, with_flags
from dreambooth_cli.config import write_config
from dreambooth_cli.errors import DreamboothError, ProjectError, UsageError
from dreambooth_cli.paths import projects_folder
from dreambooth_cli.project import choose_project
from dreambooth_cli.settings import GenerateSettings, PrepSettings, Settings, SubjectSettings, TrainSettings

from .conftest import in_process

STAGES = (SubjectSettings, PrepSettings, TrainSettings)


def parsed(words: list[str], *owners: type[Settings]) -> dict[str, Any]:
    """What a command with these stages' flags is given for these words."""
    found: list[Flags] = []

    @with_flags(*owners)
    def command(*, flags: Flags) -> None:
        found.append(flags)

    app = typer.Typer(add_completion=False)
    app.command(cls=Command, context_settings=CONTEXT)(command)
    typer.main.get_command(app).main(args=words, standalone_mode=False)
    return {name: value for flags in found[0].values() for name, value in flags.items()}


def test_nothing_typed_is_nothing_given() -> None:
    assert parsed([], *STAGES) == {}
    assert parsed([], GenerateSettings) == {}


def test_the_guides_own_spelling() -> None:
    words = ["--model_name", "runwayml/stable-diffusion-v1-5", "--instance_data_dir", "./instance_images"]
    words += ["--class_prompt", "a dog", "--steps", "1000", "--train_text_encoder"]
    assert parsed(words, *STAGES) == {
        "model": "runwayml/stable-diffusion-v1-5",
        "photos": Path("instance_images"),
        "class_prompt": "a dog",
        "steps": 1000,
        "train_text_encoder": True,
    }


@pytest.mark.parametrize("underscored", [False, True])
@pytest.mark.parametrize("owner", [*STAGES, GenerateSettings])
def test_every_flag_in_both_spellings(owner: type[Settings], underscored: bool) -> None:
    for item in fields(owner):
        for name in (item.name, *item.metadata["names"]):
            flag = "--" + (name.replace("-", "_") if underscored else name.replace("_", "-"))
            value, text = example(owner, item.name)
            given = parsed([flag] if text is None else [flag, text], owner)
            assert given == {item.name: value}, flag


def example(owner: type[Settings], name: str) -> tuple[Any, str | None]:
    """A value of a setting and how it is typed; None for a flag that takes no value."""
    from dreambooth_cli.settings import annotation, choices_of, scalar_of

    kind = annotation(owner, name)
    match scalar_of(kind):
        case type() as scalar if scalar is bool:
            return True, None
        case type() as scalar if scalar is not str and scalar is not Path:
            return scalar(64), "64"
        case type() as scalar:
            return scalar("word"), "word"
    return choices_of(kind)[-1], choices_of(kind)[-1]


def test_no_and_auto() -> None:
    assert parsed(["--no-train_text-encoder"], TrainSettings) == {"train_text_encoder": False}
    assert parsed(["--no_ema", "--learning-rate", "auto"], TrainSettings) == {"ema": False, "learning_rate": "auto"}
    assert parsed(["--learning-rate=2e-6", "--alpha", "8"], TrainSettings) == {"learning_rate": 2e-6, "alpha": 8.0}


def test_a_choice_keeps_its_underscores() -> None:
    for spelling in ("constant_with_warmup", "constant-with-warmup"):
        assert parsed(["--lr-schedule", spelling], TrainSettings) == {"lr_schedule": "constant_with_warmup"}


def test_values_are_left_as_they_are() -> None:
    given = parsed(["--class-prompt", "a [identifier] my_dog", "--photos", "my_photos"], SubjectSettings)
    assert given == {"class_prompt": "a [identifier] my_dog", "photos": Path("my_photos")}


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--steps", "many"], "--steps can't be 'many'", "it takes a whole number"),
        (["--learning-rate", "fast"], "--learning-rate can't be 'fast'", "it takes a number or auto"),
    ],
)
def test_a_word_that_is_no_value(words: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(words, TrainSettings)
    assert (caught.value.message, caught.value.hint, caught.value.exit_code) == (message, hint, 2)


def make_project(name: str) -> None:
    folder = projects_folder() / name
    folder.mkdir(parents=True)
    write_config(folder / "project.toml", {"subject": {"class_prompt": f"a {name}"}})


def test_choosing_a_project() -> None:
    with pytest.raises(UsageError, match="no project yet"):
        choose_project(None)
    make_project("dog")
    assert choose_project(None).name == "dog"
    make_project("mug")
    with pytest.raises(UsageError, match="which project") as caught:
        choose_project(None)
    assert caught.value.hint == "your projects: dog, mug"
    assert choose_project("mug").name == "mug"
    with pytest.raises(ProjectError) as missing:
        choose_project("cat")
    assert isinstance(missing.value, DreamboothError)
    assert missing.value.exit_code == 3


def test_completing_a_projects_name() -> None:
    make_project("dog")
    make_project("mug")
    assert complete_project("") == ["dog", "mug"]
    assert complete_project("d") == ["dog"]


def test_the_shell_completes_commands_and_projects() -> None:
    make_project("dog")
    make_project("mug")

    def completed(words: str) -> list[str]:
        count = len(words.split(" "))
        asked = {"_DREAMBOOTH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count - 1)}
        return in_process(**asked).out.splitlines()

    assert completed("dreambooth tr") == ["train"]
    assert completed("dreambooth train ") == ["dog", "mug"]
    assert completed("dreambooth projects path m") == ["mug"]
    assert "--class-images" in completed("dreambooth train dog --class-i")
