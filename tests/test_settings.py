"""Settings: bounds and how they are stated, types, choices, what shapes the weights."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, Literal

import pytest

from dreambooth_cli.errors import UsageError
from dreambooth_cli.paths import expanded, real_path
from dreambooth_cli.settings import (
    AUTO,
    SECTIONS,
    GenerateSettings,
    PrepSettings,
    Settings,
    SubjectSettings,
    TrainSettings,
    choices_of,
    default_of,
    describe_type,
    flag_of,
    parse_value,
    scalar_of,
    shaping,
)
from dreambooth_cli.text import shortened


@pytest.mark.parametrize(
    ("owner", "name", "value", "message", "hint"),
    [
        (TrainSettings, "steps", 0, "--steps 0 is too small", "it must be at least 1"),
        (TrainSettings, "steps", 1.5, "--steps can't be 1.5", "it takes a whole number"),
        (TrainSettings, "learning_rate", 0.0, "--learning-rate 0.0 is too small", "it must be above 0"),
        (TrainSettings, "learning_rate", "fast", "--learning-rate can't be 'fast'", "it takes a number or auto"),
        (TrainSettings, "learning_rate", float("inf"), "--learning-rate can't be inf", "it takes a finite number"),
        (TrainSettings, "ema_decay", 1.5, "--ema-decay 1.5 is too large", "it must be at most 1"),
        (TrainSettings, "method", "most", "--method can't be 'most'", "it takes auto, full or lora"),
        (
            TrainSettings,
            "train_text_encoder",
            "yes",
            "--train-text-encoder can't be 'yes'",
            "it takes true or false or auto",
        ),
        (PrepSettings, "resolution", 100, "--resolution 100 is not a multiple of 8", "for example: --resolution 96"),
        (PrepSettings, "resolution", 16, "--resolution 16 is too small", "it must be at least 32"),
        (GenerateSettings, "width", 500, "--width 500 is not a multiple of 8", "for example: --width 496"),
        (GenerateSettings, "num_images", 0, "--num-images 0 is too small", "it must be at least 1"),
        (GenerateSettings, "seed", -1, "--seed -1 is too small", "it must be at least 0"),
        (
            SubjectSettings,
            "class_prompt",
            " ",
            "the class prompt is empty",
            'say what the subject is: --class-prompt "a dog"',
        ),
        (
            SubjectSettings,
            "identifier",
            "a b",
            "the identifier must be one word, not 'a b'",
            "for example: --identifier sks",
        ),
        (SubjectSettings, "identifier", "", "the identifier must be one word, not ''", "for example: --identifier sks"),
        (
            SubjectSettings,
            "identifier",
            "[identifier]",
            "the identifier must be one word",
            "for example: --identifier sks",
        ),
    ],
)
def test_a_value_that_is_refused(owner: type[Settings], name: str, value: Any, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        owner(**{name: value})
    assert caught.value.message.startswith(message)
    assert caught.value.hint == hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        (
            {"warmup_steps": 10},
            "--warmup-steps has no effect with --lr-schedule constant",
            "use --lr-schedule constant_with_warmup",
        ),
        (
            {"warmup_steps": 10, "steps": 10, "lr_schedule": "linear"},
            "--warmup-steps 10 leaves none of the 10 steps at the full rate",
            "use fewer warm-up steps",
        ),
    ],
)
def test_values_that_contradict_each_other(values: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        TrainSettings(**values)
    assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize("owner", SECTIONS.values())
def test_defaults_are_within_their_bounds_and_frozen(owner: type[Settings]) -> None:
    values = owner()
    for item in fields(owner):
        assert getattr(values, item.name) == default_of(owner, item.name)
        assert item.metadata["help"]
    with pytest.raises(FrozenInstanceError):
        setattr(values, fields(owner)[0].name, None)


@pytest.mark.parametrize("resolution", [32, 64, 512, AUTO])
def test_values_that_are_taken(resolution: Any) -> None:
    assert PrepSettings(resolution=resolution).resolution == resolution
    assert TrainSettings(learning_rate=1).learning_rate == 1


def test_the_prior_is_switched_off_by_either() -> None:
    assert TrainSettings().with_prior
    assert not TrainSettings(class_images=0).with_prior
    assert not TrainSettings(prior_loss_weight=0).with_prior


@pytest.mark.parametrize(
    ("owner", "name", "text", "value"),
    [
        (TrainSettings, "steps", "30", 30),
        (TrainSettings, "learning_rate", "auto", "auto"),
        (TrainSettings, "learning_rate", "1e-4", 1e-4),
        (TrainSettings, "train_text_encoder", "no", False),
        (TrainSettings, "ema", "True", True),
        (TrainSettings, "method", "lora", "lora"),
        (TrainSettings, "class_data_dir", "a b", Path("a b")),
        (SubjectSettings, "class_prompt", "a [identifier] dog", "a [identifier] dog"),
    ],
)
def test_a_word_becomes_a_value(owner: type[Settings], name: str, text: str, value: Any) -> None:
    assert parse_value(owner, name, text) == value


@pytest.mark.parametrize(
    ("name", "text"), [("steps", "1.5"), ("method", "most"), ("ema", "perhaps"), ("steps", "auto")]
)
def test_a_word_that_is_none(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"{flag_of(name)} can't be '{text}'"):
        parse_value(TrainSettings, name, text)


@pytest.mark.parametrize(
    ("owner", "name", "text", "meant"),
    [
        (TrainSettings, "steps", "1e3", "--steps 1000"),
        (TrainSettings, "steps", "1,000", "--steps 1000"),
        (TrainSettings, "steps", "1000.0", "--steps 1000"),
        (TrainSettings, "steps", "2k", "--steps 2000"),
        (TrainSettings, "steps", "800 steps", "--steps 800"),
        (TrainSettings, "steps", "1000;", "--steps 1000"),
        (TrainSettings, "learning_rate", "5e-6,", "--learning-rate 5e-6"),
        (TrainSettings, "learning_rate", "0,0001", "--learning-rate 0.0001"),
        (TrainSettings, "learning_rate", "1e\u22124", "--learning-rate 1e-4"),
        (TrainSettings, "learning_rate", "Auto", "--learning-rate auto"),
        (GenerateSettings, "width", "512x512", "--width 512"),
        (GenerateSettings, "width", "512px", "--width 512"),
        (TrainSettings, "steps", "1.5", ""),
        (TrainSettings, "steps", "many", ""),
        (TrainSettings, "steps", "1e999", ""),
        (TrainSettings, "steps", "1e300", ""),
    ],
)
def test_the_number_that_was_probably_meant_is_named(owner: type[Settings], name: str, text: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_value(owner, name, text)
    assert caught.value.hint.partition(": did you mean ")[2] == (f"{meant}?" if meant else "")


def test_types_in_words() -> None:
    assert describe_type(int | Literal["auto"]) == "a whole number or auto"
    assert describe_type(Literal["a", "b", "c"]) == "a, b or c"
    assert describe_type(Path | None) == "a path"
    assert choices_of(bool | Literal["auto"]) == ("auto",)
    assert scalar_of(bool | Literal["auto"]) is bool
    assert scalar_of(Literal["a"]) is None


def test_what_shapes_the_weights() -> None:
    shaped = shaping(TrainSettings())
    assert {"steps", "seed", "method", "learning_rate", "prior_loss_weight"} <= set(shaped)
    assert not {"checkpoint_every", "sample_every", "save_dtype", "keep_checkpoints"} & set(shaped)
    assert set(shaping(SubjectSettings(class_prompt="a dog"))) == {"class_prompt", "identifier"}


def test_links_in_a_circle_have_a_path(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert real_path(tmp_path / "loop") == tmp_path.resolve() / "loop"
    assert real_path(Path("~")) == Path.home().resolve()
    assert expanded("~nobody-of-that-name/a") == Path("~nobody-of-that-name/a")


def test_long_text_is_shortened_for_a_message():
    assert shortened("a" * 200) == "a" * 200
    assert shortened("a" * 10_000) == "a" * 200 + "... (10,000 characters)"
