"""Every file that is kept says which schema it has, and a newer one is refused by name wherever it is read."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from dreambooth_cli.errors import ProjectError
from dreambooth_cli.project import list_projects
from dreambooth_cli.schemas import SCHEMAS, check_schema
from tests.cli.conftest import Dreambooth

NEWER = "was written by a newer dreambooth (schema 3; this one reads up to 1)"
PROJECT = "dreambooth/projects/full"


def number(path: Path, to: object) -> None:
    """Give a file another schema number."""
    if path.suffix == ".toml":
        lines = [line for line in path.read_text().splitlines() if not line.startswith("schema")]
        path.write_text("\n".join([f"schema = {json.dumps(to)}", *lines]))
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema": to}))


def half(kept_home: Path) -> list[str | Path]:
    """The command of the run that was stopped half way."""
    return ["train", "--photos", kept_home / "photos", "--class-prompt", "a photo of a dog", "--model", kept_home / "base"]


READ_BY: dict[str, list[Callable[[Path], list[str | Path]]]] = {
    f"{PROJECT}/project.toml": [
        lambda home: ["prep", "full"],
        lambda home: ["train", "full"],
        lambda home: ["generate", "full", "a dog"],
        half,
    ],
    f"{PROJECT}/prepared/report.json": [lambda home: ["prep", "full"], half],
    f"{PROJECT}/runs/2/plan.json": [half],
    f"{PROJECT}/runs/1/model/dreambooth.json": [lambda home: ["generate", "full", "a [identifier] dog"]],
    "out/dreambooth.json": [
        lambda home: ["generate", "--model-path", home / "out", "a dog"],
        lambda home: ["train", "full", "--output-dir", home / "out"],
    ],
}


@pytest.mark.parametrize("file", READ_BY)
def test_a_newer_file_is_refused_by_name(file: str, kept_home: Path, dreambooth: Dreambooth) -> None:
    number(kept_home / file, 3)
    before = {path: path.read_bytes() for path in kept_home.rglob("*") if path.is_file() and "cache" not in path.parts}
    for words in READ_BY[file]:
        done = dreambooth(*words(kept_home), "--json")
        assert (done.code, done.err, done.lines[-1]["message"]) == (3, "", f"{kept_home / file} {NEWER}")
    changed = [path for path, held in before.items() if not path.is_file() or path.read_bytes() != held]
    changed = [path for path in changed if path.parent.name != "prepared"]  # photos are prepared anew by each version
    assert [path.name for path in changed if not path.name.startswith(".lock")] == []


def test_a_newer_project_is_listed_all_the_same(kept_home: Path, dreambooth: Dreambooth) -> None:
    number(kept_home / PROJECT / "project.toml", 3)
    done = dreambooth("projects", "--json")
    assert [project["name"] for project in json.loads(done.out)["projects"]] == ["full", "lora"]
    done = dreambooth("projects")
    assert (done.code, NEWER in done.err, "lora" in done.out) == (0, True, True)


@pytest.mark.parametrize("found", [0, -1, True, 1.0, "1", None, [1], {}])
def test_what_is_no_schema_number_is_damage(found: object) -> None:
    with pytest.raises(ValueError, match="its schema can't be"):
        check_schema(Path("plan.json"), {"schema": found})


def test_a_file_without_a_number_is_version_0_1_s() -> None:
    for name in SCHEMAS:
        check_schema(Path(name), {})


def test_settings_with_a_number_that_is_none_are_refused(kept_home: Path) -> None:
    number(kept_home / PROJECT / "project.toml", "one")
    with pytest.raises(ProjectError, match="its schema can't be 'one'"):
        list_projects()[0].settings()


def test_what_is_written_says_its_schema(dreambooth: Dreambooth) -> None:
    assert dreambooth("init", "ball", "--example").code == 0
    assert dreambooth("prep", "ball").code == 0
    assert dreambooth("train", "ball", "--steps", "1", "--class-images", "0").code == 0
    (project,) = list_projects()
    assert tomllib.loads(project.config.read_text())["schema"] == SCHEMAS["project.toml"]
    for file in ("prepared/report.json", "runs/1/plan.json", "runs/1/model/dreambooth.json"):
        told = json.loads((project.path / file).read_text())
        assert (next(iter(told)), told["schema"]) == ("schema", SCHEMAS[Path(file).name]), file
