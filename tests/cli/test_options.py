"""Settings as flags: every spelling, every type, and nothing if nothing was typed."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from dreambooth_cli.bases.catalog import CATALOG
from dreambooth_cli.cli.app import CONTEXT, load
from dreambooth_cli.cli.help import Command
from dreambooth_cli.cli.options import Flags, complete_project, with_flags
from dreambooth_cli.config import write_config
from dreambooth_cli.errors import DreamboothError, ProjectError, UsageError
from dreambooth_cli.paths import projects_folder
from dreambooth_cli.project import choose_project
from dreambooth_cli.settings import GenerateSettings, PrepSettings, Settings, SubjectSettings, TrainSettings, doubt_of
from dreambooth_cli.spellings import WORDS

from .conftest import Dreambooth, in_process

STAGES = (SubjectSettings, PrepSettings, TrainSettings)


def parsed(words: list[str], *owners: type[Settings]) -> dict[str, Any]:
    """What a command with these stages' flags gets for these words."""
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


@pytest.mark.parametrize(
    ("other", "here"),
    [
        ("--lr", "--learning-rate"),
        ("--max-train-steps", "--steps"),
        ("--max_train_steps", "--steps"),
        ("--instance-prompt", "--class-prompt"),
        ("--pretrained-model-name-or-path", "--model"),
        ("--pretrained_model_name_or_path", "--model"),
        ("--train-batch-size", "--batch-size"),
        ("--network_dim", "--rank"),
        ("--num_class_images=50", "--class-images"),
        ("--use_8bit_adam", "--optimizer adamw8bit"),
    ],
)
def test_other_tools_spellings_are_known(other: str, here: str, dreambooth: Dreambooth) -> None:
    done = dreambooth("train", other, "5")
    assert done.code == 2
    assert f"there is no {other.partition('=')[0].replace('_', '-')}; here that is {here}" in done.err


def test_every_word_of_another_tool_leads_to_a_flag_that_there_is(dreambooth: Dreambooth) -> None:
    flags = {flag for name in ("train", "generate") for param in load(name).params for flag in (*param.opts, *param.secondary_opts)}
    for word, here in WORDS.items():
        assert f"--{word}" not in flags
        named = [part.rstrip(",:") for part in here.split() if part.startswith("--")]
        assert set(named) <= flags, word
    assert "--resolution" not in dreambooth("generate", "dog", "a dog", "--lr", "1").err
    assert "of dreambooth train" in dreambooth("generate", "dog", "a dog", "--lr", "1").err


@pytest.mark.parametrize(
    "words",
    [["--learning-rate", "5"], ["--steps", "10000000"], ["--rank", "5000"], ["--class-images", "1000000"], ["--batch-size", "9999"]],
)
def test_a_value_that_can_hardly_be_meant_is_refused_until_one_insists(words: list[str], dreambooth: Dreambooth) -> None:
    asked = ["train", "--photos", "nowhere", "--class-prompt", "a dog", *words]
    done = dreambooth(*asked)
    assert done.code == 2
    assert f"{words[0]} {words[1]}" in done.err.replace("1e7", "10000000").replace("1e6", "1000000")
    assert "is unusual" in done.err
    assert "add --yes" in done.err
    assert "hardly" not in dreambooth(*asked, "--yes").err


def test_a_value_that_can_hardly_be_meant_is_asked_about_on_a_terminal(
    dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("dreambooth_cli.cli.generate.can_ask", lambda: True)
    monkeypatch.setattr("dreambooth_cli.cli.meant.typer.confirm", lambda words, **more: bool(asked.append(words)) or len(asked) > 1)
    words = ["generate", "--model-path", "nowhere", "a dog", "--steps", "100000"]
    assert "add --yes" in dreambooth(*words).err
    assert "add --yes" not in dreambooth(*words).err
    assert len(asked) == 2
    assert asked[0].startswith("--steps 100000 is unusual")


def test_the_file_s_values_are_asked_about_too(dreambooth: Dreambooth) -> None:
    folder = projects_folder() / "dog"
    folder.mkdir(parents=True)
    write_config(folder / "project.toml", {"subject": {"class_prompt": "a dog", "model": "pocket"}, "train": {"learning_rate": 5.0}})
    done = dreambooth("train", "dog", "--dry-run")
    assert (done.code, "--learning-rate 5 is unusual" in done.err) == (2, True)
    assert dreambooth("train", "dog", "--dry-run", "--yes").code == 0


def test_usual_values_are_never_doubted() -> None:
    for owner in (*STAGES, GenerateSettings):
        for item in fields(owner):
            assert doubt_of(owner, item.name, item.default) == ""
    for entry in CATALOG:
        for stage, values in entry.advised.items():
            owner = GenerateSettings if stage == "generate" else TrainSettings
            assert "".join(doubt_of(owner, name, value) for name, value in values.items()) == ""
    assert doubt_of(TrainSettings, "learning_rate", float("nan")) == ""
    assert doubt_of(PrepSettings, "resolution", 99_999) == "", "that is too large, as is said elsewhere"
