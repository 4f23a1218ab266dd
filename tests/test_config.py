"""`project.toml`: merging, sources, comments that stay, values that replace a commented-out line, what is refused."""

import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreambooth_cli.config import merge, read_config, write_config
from dreambooth_cli.errors import ProjectError, UsageError
from dreambooth_cli.settings import SECTIONS, PrepSettings, SubjectSettings, TrainSettings


def test_flag_over_file_over_default() -> None:
    found = merge(TrainSettings, {"steps": 1200, "seed": 3}, {"steps": 30, "ema": None})
    assert (found.values.steps, found.values.seed, found.values.ema) == (30, 3, False)
    assert {name: found.sources[name] for name in ("steps", "seed", "ema")} == {
        "steps": "--steps",
        "seed": "project.toml",
        "ema": "default",
    }
    assert found.describe("seed") == "seed 3 (project.toml)"
    assert found.describe("batch_size") == "batch size 1 (default)"


def test_a_false_flag_is_a_flag() -> None:
    found = merge(TrainSettings, {"ema": True}, {"ema": False})
    assert (found.values.ema, found.sources["ema"]) == (False, "--ema")


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        merge(TrainSettings, {"stepz": 3}, {})
    assert caught.value.message == "project.toml: there is no setting 'stepz'"
    assert caught.value.hint == "did you mean 'steps'?"
    with pytest.raises(UsageError) as caught:
        merge(PrepSettings, {"qqq": 3}, {})
    assert caught.value.hint == "the settings there are: resolution, crop, strict"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[train]\nsteps = ", "is not valid TOML", "fix that line"),
        ("[train]\nstep = 3\n", "[train]: there is no setting 'step'", "did you mean 'steps'?"),
        ("[train]\nsteps = 0\n", "--steps 0 is too small", "it must be at least 1"),
        ("[train]\nsteps = '9'\n", "--steps can't be '9'", "it takes a whole number"),
        ("[train]\nsteps = true\n", "--steps can't be True", "it takes a whole number"),
        ("[train]\nmethod = 'most'\n", "--method can't be 'most'", "it takes auto, full or lora"),
        ("[train]\nlearning_rate = nan\n", "--learning-rate can't be nan", "it takes a finite number"),
        ("[subject]\nphotos = 3\n", "--photos can't be 3", "it takes a path"),
        ("[trains]\n", "there is no section [trains]", "the sections are: subject, prep, train, generate"),
        ("train = 3\n", "train must be a section", "write it as [train]"),
        ("a = " + "[" * 5000, "is not valid TOML", "fix that line"),
    ],
)
def test_a_file_that_says_nonsense(text: str, message: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    path.write_text(text)
    with pytest.raises(ProjectError) as caught:
        read_config(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProjectError, match="is not valid TOML"):
        read_config(path)
    with pytest.raises(ProjectError, match="can't be read"):
        read_config(tmp_path / "missing.toml")


def test_a_new_file_explains_every_setting(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    write_config(path, {})
    text = path.read_text()
    assert read_config(path) == {name: {} for name in (*SECTIONS, "photos")}
    for name, owner in SECTIONS.items():
        assert f"\n[{name}]\n" in text
        for item in fields(owner):
            assert f"# {item.metadata['help']}\n# {item.name} = " in text


def test_every_comment_is_a_line_that_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    write_config(path, {})
    bare = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and " = " in line and not line.endswith("= ...") else line
        for line in path.read_text().splitlines()
        if not line.endswith((".", ".'"))
    )
    path.write_text(bare)
    found = read_config(path)
    assert found["train"] == {item.name: item.default for item in fields(TrainSettings) if item.default is not None}


def test_a_value_takes_its_comments_place(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    write_config(path, {"train": {"steps": 1200}, "generate": {"steps": 20}, "subject": {"photos": Path("/my photos")}})
    text = path.read_text()
    assert "# Number of training steps.\nsteps = 1200\n" in text
    assert re.search(r"# Denoising steps .*\nsteps = 20\n", text)
    assert "# steps = " not in text
    assert 'photos = "/my photos"\n' in text
    assert read_config(path)["subject"] == {"photos": Path("/my photos")}
    write_config(path, {"train": {"steps": 1300}})
    assert path.read_text() == text.replace("steps = 1200", "steps = 1300")


def test_what_a_person_wrote_stays(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    text = "# mine\n[train]\nsteps = 5 # few\n\n[subject]\nclass_prompt = '''a\n# seed = 1\n'''\n"
    path.write_text(text)
    write_config(path, {"train": {"steps": 5}})
    assert path.read_text() == text
    write_config(path, {"train": {"steps": 6, "seed": 2}, "prep": {"crop": "top"}})
    written = path.read_text()
    assert written.startswith("# mine\n[train]\nsteps = 6 # few\n")
    assert tomllib.loads(written) == {
        "train": {"steps": 6, "seed": 2},
        "subject": {"class_prompt": "a\n# seed = 1\n"},
        "prep": {"crop": "top"},
    }


def test_none_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    write_config(path, {"subject": {"class_prompt": None}})
    assert read_config(path)["subject"] == {}


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    with pytest.raises(ProjectError, match="not UTF-8"):
        write_config(path, {"subject": {"photos": Path("/a\udcff")}})
    assert list(tmp_path.iterdir()) == []


values = st.fixed_dictionaries(
    {},
    optional={
        "steps": st.integers(1, 10**9),
        "seed": st.integers(0, 2**62),
        "learning_rate": st.floats(1e-12, 1e3) | st.just("auto"),
        "train_text_encoder": st.booleans() | st.just("auto"),
        "method": st.sampled_from(["auto", "full", "lora"]),
        "sample_prompt": st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
        "class_data_dir": st.text("abc /'\"#\\=[]", min_size=1, max_size=20).map(Path("/").joinpath),
    },
)


@settings(max_examples=60, deadline=None)
@given(first=values, second=values)
def test_what_is_written_is_read_again(first: dict[str, Any], second: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "project.toml"
        write_config(path, {"train": first})
        write_config(path, {"train": second})
        assert read_config(path)["train"] == {**first, **second}


def test_subject_settings_are_checked_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    path.write_text('[subject]\nidentifier = "two words"\n')
    with pytest.raises(ProjectError, match="must be one word"):
        read_config(path)
    assert merge(SubjectSettings, {}, {}).values.model == "sd15"


def test_what_the_base_advises_stands_between_default_and_file():
    advised = {"steps": 300, "learning_rate": 1e-4, "class_images": 40}
    found = merge(TrainSettings, {"learning_rate": 2e-4}, {"class_images": 8}, advised=advised)
    assert (found.values.steps, found.values.learning_rate, found.values.class_images) == (300, 2e-4, 8)
    assert found.describe("steps") == "steps 300 (the base model)"
    assert (found.sources["learning_rate"], found.sources["class_images"]) == ("project.toml", "--class-images")
    assert found.sources["rank"] == "default"


@pytest.mark.parametrize(
    "line",
    [
        "steps = " + "9" * 5000,
        "steps = " + "9" * 400,
        "resolution = 99999999999999999999",
        "seed = -" + "9" * 400,
        'sample_prompt = "\\uD800"',
        "steps = 2020-01-01",
        'class_data_dir = "a\\u0000b"',
    ],
)
def test_values_that_no_program_can_hold(line, tmp_path):
    section = "prep" if line.startswith("resolution") else "train"
    (tmp_path / "project.toml").write_text(f"[{section}]\n{line}\n")
    with pytest.raises(ProjectError) as caught:
        read_config(tmp_path / "project.toml")
    assert caught.value.hint
    assert len(caught.value.message) < 600


def test_the_home_of_somebody_who_is_not_known_is_a_path_like_any(tmp_path):
    (tmp_path / "project.toml").write_text('[subject]\nphotos = "~nobody-of-that-name/photos"\n')
    assert read_config(tmp_path / "project.toml")["subject"]["photos"] == tmp_path / "~nobody-of-that-name" / "photos"
