"""What a call of `train` and of `generate` means, before any work; stopping a run."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dreambooth_cli import gpu
from dreambooth_cli.cli.generate import understand as understand_generate
from dreambooth_cli.errors import ProjectError, UsageError
from dreambooth_cli.paths import projects_folder
from dreambooth_cli.project import Project, list_projects
from tests.records import a_record

from .conftest import Dreambooth, environment

QUICK = ["--steps", "3", "--class-images", "0"]


def init(dreambooth: Dreambooth, photos: Path, base: Path, name: str = "dog") -> Project:
    done = dreambooth("init", name, "--photos", photos, "--class-prompt", "a dog", "--model", base, "--yes")
    assert done.code == 0, done.err
    return Project(projects_folder() / name)


@pytest.mark.parametrize(
    ("words", "code", "message", "hint"),
    [
        ([], 2, "there is no project yet", "make one: dreambooth init"),
        (["dog"], 3, "there is no project called dog", "make it: dreambooth init dog"),
        (["--photos", "."], 2, "what is in the photos? the class prompt is missing", 'say it: --class-prompt "a dog"'),
        (["--class-prompt", "a dog"], 2, "where are the photos?", "name their folder: --photos ./instance_images"),
        (["--photos", ".", "--class-prompt", " "], 2, "the class prompt is empty", "--class-prompt"),
        (["--photos", ".", "--class-prompt", "a dog", "--steps", "0"], 2, "--steps 0 is too small", "at least 1"),
        (
            ["--photos", ".", "--class-prompt", "a dog", "--model", "sd19"],
            5,
            "there is no base model called 'sd19'",
            "sd1",
        ),
        (["dog", "--photos", "."], 2, "project dog has photos of its own", "dreambooth prep dog --photos"),
        (["--photos", "nowhere", "--class-prompt", "a dog"], 3, "there is no folder", "--photos"),
    ],
)
def test_what_a_call_lacks(words: list[str], code: int, message: str, hint: str, dreambooth: Dreambooth) -> None:
    done = dreambooth("train", *words)
    assert done.code == code
    assert message in done.err
    assert hint in done.err
    assert list_projects() == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_foreign_output_is_refused_before_any_work(
    kind: str, photos: Path, sd1: Path, tmp_path: Path, dreambooth: Dreambooth
) -> None:
    output = tmp_path / "output"
    if kind == "folder":
        output.mkdir()
    (output / "mine.txt" if kind == "folder" else output).write_text("mine")
    done = dreambooth("train", "--photos", photos, "--class-prompt", "a dog", "--model", sd1, "--output-dir", output)
    assert done.code == 2
    assert f"{output} exists and is not this run's model" in done.err
    assert "--output-dir" in done.err
    assert list_projects() == []


def test_a_dry_run_on_a_machine_that_is_too_small(
    photos: Path, sd1: Path, dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dreambooth_cli.memory.search.machine_memory", lambda: 5 * 10**8)
    words = ["train", "--photos", photos, "--class-prompt", "a dog", "--model", sd1, "--dry-run"]
    done = dreambooth(*words)
    assert done.code == 4
    assert re.search(r"^fits +no$", done.out, flags=re.MULTILINE)
    assert "does not fit in this machine's memory" in done.err
    told = json.loads(dreambooth(*words, "--json").out.splitlines()[1])
    assert (told["plan"]["fits"], told["plan"]["ram_gb"]) == (False, round(max(told["plan"]["ram"].values()) / 1e9, 2))


def test_dry_run_makes_nothing(photos: Path, sd1: Path, dreambooth: Dreambooth) -> None:
    words = ["train", "--photos", photos, "--class-prompt", "a dog", "--model", sd1, "--dry-run"]
    done = dreambooth(*words)
    assert done.code == 0, done.err
    assert "method " in done.out
    assert "needs at most" in done.out
    done = dreambooth(*words, "--json")
    assert [line["event"] for line in done.lines] == ["start", "plan"]
    assert done.lines[1]["plan"]["resolution"] == 64
    assert list_projects() == []


def test_a_plan_that_does_not_fit(photos: Path, dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_look", lambda: (gpu.sold_as(2.5), ""))
    words = ["train", "--photos", photos, "--class-prompt", "a dog", "--dry-run"]
    done = dreambooth(*words, "--method", "full")
    assert done.code == 4
    assert re.search(r"^fits +no$", done.out, flags=re.MULTILINE)
    assert done.err.startswith("Error: ")
    done = dreambooth(*words, "--method", "full", "--json")
    assert [line["event"] for line in done.lines] == ["start", "plan", "error"]
    assert (done.lines[1]["plan"]["fits"], done.lines[2]["exit_code"]) == (False, 4)


def test_a_model_of_which_nothing_is_known(photos: Path, dreambooth: Dreambooth) -> None:
    done = dreambooth("train", "--photos", photos, "--class-prompt", "a dog", "--model", "some/one", "--dry-run")
    assert done.code == 5
    assert "dreambooth models pull some/one" in done.err


def test_the_direct_form_makes_its_project_once(
    photos: Path, sd1: Path, tmp_path: Path, dreambooth: Dreambooth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "--instance_data_dir", "./photos", "--class_prompt", "a dog", "--model_name", sd1, *QUICK]
    done = dreambooth(*words)
    assert (done.code, done.out) == (0, f"{tmp_path}/output\n"), done.err
    assert json.loads((tmp_path / "output" / "dreambooth.json").read_text())["class_prompt"] == "a dog"
    assert [project.name for project in list_projects()] == ["dog"]
    done = dreambooth(*words)
    assert (done.code, done.out) == (0, f"{tmp_path}/output\n"), done.err
    assert "finished already" in done.err
    assert [project.name for project in list_projects()] == ["dog"]
    assert len(list_projects()[0].runs()) == 1
    # another subject in the same folder's place: another project; and its output is not the first one's
    done = dreambooth(*words[:4], "a cat", *words[5:])
    assert done.code == 2
    assert "output exists and is not this run's model" in done.err


def test_a_class_prompt_in_doubt_is_told_before_anything_is_done(
    photos: Path, sd1: Path, tmp_path: Path, dreambooth: Dreambooth
) -> None:
    words = ["--photos", photos, "--class-prompt", "a dog and a cat", "--model", sd1]
    for command in ("init", "train"):
        done = dreambooth(command, *words)
        assert (done.code, done.out) == (2, "")
        assert done.err == (
            'Error: the class prompt "a dog and a cat" names several subjects, and only one can be learned at a time\n'
            '  mark the subject\'s place in it: --class-prompt "a [identifier] dog and a cat"\n'
        )
    assert list_projects() == []
    words[3] = "a photo of [identifier]"
    done = dreambooth("train", *words, "--dry-run")
    assert (done.code, "--class-images 0" in done.err) == (2, True)
    assert dreambooth("train", *words, "--dry-run", "--class-images", "0").code == 0


def test_a_run_that_began_under_a_class_prompt_in_doubt_goes_on(
    photos: Path, sd1: Path, dreambooth: Dreambooth, tmp_path: Path
) -> None:
    """Such as runs begun by version 0.1: what a run is trained on is kept with it."""
    project = init(dreambooth, photos, sd1)
    words = ["train", "--photos", photos, "--class-prompt", "dog and cat", "--model", sd1, "--dry-run"]
    assert dreambooth(*words).code == 2
    project.new_run().write_record(a_record(class_prompt="dog and cat"))
    done = dreambooth(*words)
    assert done.code == 0, done.err


def test_init_prep_train_generate(photos: Path, sd1: Path, dreambooth: Dreambooth) -> None:
    project = init(dreambooth, photos, sd1)
    done = dreambooth("prep")
    assert (done.code, done.out) == (0, f"{project.prepared}\n"), done.err
    assert "5 photos ready at 64 px" in done.err
    done = dreambooth("train", "dog", *QUICK)
    assert (done.code, done.out) == (0, f"{project.path}/runs/1/model\n"), done.err
    done = dreambooth(
        "generate", "dog", "a [identifier] dog", "--num_images", "2", "--steps", "2", "--seed", "5", "--grid"
    )
    assert done.code == 0, done.err
    assert [Path(line).parent for line in done.out.splitlines()] == [project.images] * 3
    assert all(Path(line).is_file() for line in done.out.splitlines())
    done = dreambooth("generate", "dog", "a [identifier] dog", "--run", "2")
    assert (done.code, "no finished run 2" in done.err) == (3, True)


def test_prep_keeps_what_it_is_told(photos: Path, sd1: Path, dreambooth: Dreambooth) -> None:
    project = init(dreambooth, photos, sd1)
    done = dreambooth("prep", "dog", "--resolution", "96", "--crop", "top")
    assert "5 photos ready at 96 px" in done.err
    assert project.settings()["prep"] == {"resolution": 96, "crop": "top"}
    (photos / "one.jpg").unlink()
    done = dreambooth("prep", "dog", "--photos", photos, "--json")
    prepared = next(line for line in done.lines if line["event"] == "prepared")
    assert (prepared["count"], prepared["resolution"]) == (4, 96)
    done = dreambooth("prep", "dog", "--resolution", "100")
    assert (done.code, "--resolution 100 is not a multiple of 8" in done.err) == (2, True)


def test_prep_where_the_size_is_not_known(photos: Path, dreambooth: Dreambooth) -> None:
    done = dreambooth("init", "dog", "--photos", photos, "--class-prompt", "a dog", "--model", "some/one", "--yes")
    assert done.code == 0, done.err
    done = dreambooth("prep", "dog")
    assert done.code == 5
    assert "dreambooth models pull some/one" in done.err
    assert dreambooth("prep", "dog", "--resolution", "64").code == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None, "a dog", Path("m")), (Path("m"), "a dog")),
        (("a dog", None, None, Path("m")), (Path("m"), "a dog")),
        (("dog", None, None, Path("m")), (Path("m"), "dog")),
        (("dog", "a dog", None, None), ("dog", "a dog")),
        (("dog", None, "a dog", None), ("dog", "a dog")),
        ((None, None, "a dog", None), ("dog", "a dog")),
        (("a dog", None, None, None), ("dog", "a dog")),
    ],
)
def test_what_generate_means(given: tuple[str | None, ...], expected: tuple[Path | str, str]) -> None:
    name, words, prompt, model = given
    folder = projects_folder() / "dog"
    folder.mkdir(parents=True)
    (folder / "project.toml").write_text("")
    where, texts = understand_generate(name, words, [prompt] if prompt else [], model)  # type: ignore[arg-type]
    assert (where.name if isinstance(where, Project) else where, texts) == (expected[0], [expected[1]])


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        (("dog", "a", ["b"], None), "there are two prompts", "--prompt"),
        (("dog", "a", None, Path("m")), "there are two models: the project dog and m", "leave one out"),
    ],
)
def test_what_generate_lacks(given: tuple[str | None, ...], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        understand_generate(*given)  # type: ignore[arg-type]
    assert caught.value.message == message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "words", [["--model-path", "m"], ["dog"], ["dog", " "], ["dog", "--prompt", ""], ["dog", "--prompt", "a dog", "--prompt", " "]]
)
def test_generate_without_a_prompt(words: list[str], dreambooth: Dreambooth) -> None:
    (projects_folder() / "dog").mkdir(parents=True)
    (projects_folder() / "dog" / "project.toml").write_text("")
    done = dreambooth("generate", *words)
    assert (done.code, done.err.splitlines()[0]) == (2, "Error: the prompt is missing")
    assert '--prompt "a [identifier] dog on the moon"' in done.err
    (projects_folder() / "dog" / "project.toml").write_text('[subject]\nclass_prompt = "a photo of a red mug"\n')
    noun = "red mug" if words[0] == "dog" else "dog"
    assert f'--prompt "a [identifier] {noun} on the moon"' in dreambooth("generate", *words).err


def test_generate_without_a_project(dreambooth: Dreambooth) -> None:
    with pytest.raises(ProjectError):
        understand_generate("dog", "a dog", [], None)
    done = dreambooth("generate", "--model-path", "nowhere", "--prompt", "a dog")
    assert (done.code, "there is no model at nowhere" in done.err) == (5, True)
    done = dreambooth("generate", "--model-path", "nowhere", "--prompt", "a dog", "--run", "1")
    assert (done.code, "--run is for a project" in done.err) == (2, True)


@pytest.mark.parametrize(("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.long), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_a_stopped_run_saves_says_so_and_goes_on(
    number: signal.Signals, code: int, photos: Path, sd1: Path, dreambooth: Dreambooth
) -> None:
    project = init(dreambooth, photos, sd1)
    words = ["train", "dog", "--steps", "400", "--class-images", "0", "--checkpoint-every", "0"]
    child = subprocess.Popen(
        [sys.executable, "-m", "dreambooth_cli", *words, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(json.loads(line))
        if lines[-1]["event"] == "step" and lines[-1]["step"] == 2:
            child.send_signal(number)
    assert child.wait() == code
    assert lines[-1]["event"] == "error"
    assert lines[-1]["exit_code"] == code
    last = max(line["step"] for line in lines if line["event"] == "step")
    (checkpoint,) = project.runs()[0].checkpoints.iterdir()
    assert str(checkpoint) in lines[-1]["message"]
    assert lines[-1]["hint"] == "run the same command again to continue"
    assert str(last) in checkpoint.name
    child.communicate()
    if number == signal.SIGINT:
        assert first_step_again(words) == last + 1


def first_step_again(words: list[str]) -> int:
    """The first step when the same command is called again; it is stopped there."""
    child = subprocess.Popen(
        [sys.executable, "-m", "dreambooth_cli", *words, "--json"], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert child.stdout is not None
    for line in child.stdout:
        event = json.loads(line)
        if event["event"] == "step":
            child.kill()
            child.communicate()
            return int(event["step"])
    raise AssertionError("it did not go on")


@pytest.mark.slow
def test_a_reader_that_leaves_a_run(photos: Path, sd1: Path, dreambooth: Dreambooth) -> None:
    init(dreambooth, photos, sd1)
    script = f"{sys.executable} -m dreambooth_cli train dog --steps 50 --class-images 0 --json | head -3"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment(), check=False)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3
