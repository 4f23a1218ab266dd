"""`from dreambooth_cli import train, generate, plan`: what a program that embeds these gets, and that they change nothing in it.

`python -m tests.test_api` rewrites the settings' keywords.
"""

import ast
import gc
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file
from torch.testing import assert_close

import dreambooth_cli
from dreambooth_cli import generate, keywords, plan, settings, stopping, train
from dreambooth_cli.errors import DoesNotFit, PhotoError, ProjectError, UsageError
from dreambooth_cli.events import ClassImageMade, ImageSaved, ModelSaved, Noted, PlanMade, RunOpened, StepDone, as_json
from dreambooth_cli.memory.plan import Plan
from dreambooth_cli.project import list_projects
from tests.test_readme import README, code_blocks

QUICK: dict[str, Any] = {"steps": 3, "class_images": 2, "class_image_steps": 2, "learning_rate": 1e-3, "identifier": "sks"}
OWNERS = {
    "RunSettings": (settings.SubjectSettings, settings.PrepSettings, settings.TrainSettings),
    "DrawingSettings": (settings.GenerateSettings,),
}
HEAD = '''"""The settings as keyword arguments, for type checkers and editors: written from settings.py by `python -m tests.test_api`."""

from pathlib import Path
from typing import Literal, TypedDict

from .settings import Auto, LoraLayers, Prior, Schedule, Scheduler


class RunSettings(TypedDict, total=False):
    """Of a run: the subject, how its photos are prepared, how the base is fine-tuned."""

{RunSettings}


class DrawingSettings(TypedDict, total=False):
    """Of pictures."""

{DrawingSettings}
'''


def written_keywords() -> str:
    """What keywords.py must contain."""
    tree = ast.parse(inspect.getsource(settings))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    told = {}
    for name, owners in OWNERS.items():
        lines = []
        for owner in owners:
            of = {node.target.id: node for node in classes[owner.__name__].body if isinstance(node, ast.AnnAssign)}  # type: ignore[union-attr]
            for item in fields(owner):
                kind = ast.unparse(of[item.name].annotation).replace("'", '"').replace("Path |", "str | Path |")
                lines += [f"    {item.name}: {kind}", f'    """{item.metadata["help"]}"""']
        told[name] = "\n".join(lines)
    return HEAD.format(**told)


def test_the_keywords_are_the_settings() -> None:
    assert Path(keywords.__file__).read_text() == written_keywords(), "write them anew: python -m tests.test_api"


def test_importing_it_loads_nothing_slow_and_asking_for_it_no_torch() -> None:
    script = (
        "import sys, dreambooth_cli; first = 'dreambooth_cli.api' in sys.modules; from dreambooth_cli import plan, train; "
        "print(first, plan(photos='photos', class_prompt='a dog', model='pocket').fits, "
        "[name for name in ('torch', 'diffusers', 'rich', 'typer', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False True []\n", "")
    assert Path(dreambooth_cli.__file__).with_name("py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'teach'"):
        _ = dreambooth_cli.teach  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own folder becomes the current one, for what goes to ./output and ./generated."""
    monkeypatch.chdir(tmp_path)


def surroundings() -> dict[str, Any]:
    """What a program may notice about what it embeds."""
    import diffusers
    import torch
    import transformers

    return {
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "stopping": stopping.requested(),
        "warnings": list(warnings.filters),
        "collector": (gc.isenabled(), gc.get_threshold()),
        "environment": dict(os.environ),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "folder": os.getcwd(),
        "torch": (torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(), torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "bars": (diffusers.utils.logging.is_progress_bar_enabled(), transformers.utils.logging.is_progress_bar_enabled()),
        "loggers": {name: logging.getLogger(name).level for name in ("diffusers", "transformers", "huggingface_hub", "peft")},
    }


@pytest.mark.slow
def test_two_runs_one_after_the_other_leave_nothing_behind(photos: Path, sd1: Path, tmp_path: Path) -> None:
    """The first is stopped half way and continued; the second has another subject. Both end as the command's runs do."""
    load_the_libraries(photos, sd1)
    before = surroundings()
    asked: dict[str, Any] = {"photos": str(photos), "class_prompt": "a dog", "model": str(sd1), **QUICK}
    with closing(train(**asked, output_dir=tmp_path / "whole", restart=True)) as events:
        whole = list(events)
    assert [event.step for event in whole if isinstance(event, StepDone)] == [1, 2, 3]
    left = train(**asked, output_dir=tmp_path / "parts", restart=True)
    for event in left:
        if isinstance(event, StepDone) and event.step == 2:
            break
    left.close()
    goes_on = list(train(**asked, output_dir=tmp_path / "parts"))
    assert [event.step for event in goes_on if isinstance(event, StepDone)] == [3]
    assert [event.path for event in goes_on if isinstance(event, ModelSaved)] == [tmp_path / "parts"]
    for part in ("unet", "text_encoder"):
        ours, theirs = (load_file(next((tmp_path / name / part).glob("*.safetensors"))) for name in ("parts", "whole"))
        assert_close(ours, theirs, rtol=0, atol=0)
    other = list(train(**asked | {"class_prompt": "a cat"}, output_dir=tmp_path / "cat"))
    assert any(isinstance(event, ClassImageMade) for event in other)
    drawn = list(generate(model_path=str(tmp_path / "cat"), prompt="a [identifier] cat", steps=2, seed=3, output_dir=tmp_path / "drawn"))
    (image,) = (event for event in drawn if isinstance(event, ImageSaved))
    with Image.open(image.path) as picture:
        assert (picture.size, picture.mode, image.prompt) == ((64, 64), "RGB", "a sks cat")
    assert {project.name for project in list_projects()} == {"dog", "cat", "mug"}
    assert surroundings() == before
    for event in (*whole, *goes_on, *other, *drawn):
        json.dumps(as_json(event))  # every event is a line of `--json`


def load_the_libraries(photos: Path, base: Path) -> None:
    """A program that draws or trains by itself has the libraries already; what their own import changes does not count."""
    with closing(train(photos=photos, class_prompt="a mug", model=str(base), **QUICK)) as events:
        next(event for event in events if isinstance(event, PlanMade))


def test_a_project_by_its_name(photos: Path, sd1: Path) -> None:
    train_once = list(train(photos=photos, class_prompt="a dog", model=str(sd1), **QUICK | {"steps": 1, "class_images": 0}))
    assert [event.number for event in train_once if isinstance(event, RunOpened)] == [1]
    again = list(train("dog", **QUICK | {"steps": 1, "class_images": 0, "model": str(sd1)}))
    assert any(isinstance(event, Noted) and "finished already" in event.message for event in again)
    (image,) = (event for event in generate("dog", "a [identifier] dog", steps=1) if isinstance(event, ImageSaved))
    assert image.path.parent == list_projects()[0].images


def test_a_plan_is_a_value(photos: Path, sd1: Path) -> None:
    made = plan(photos=photos, class_prompt="a dog", model=str(sd1), method="lora", steps=5)
    assert isinstance(made, Plan)
    assert (made.method, made.resolution, made.fits) == ("lora", 64, True)
    assert made.ram_needed == max(made.ram.values()) > 0
    assert list_projects() == []


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        ({"photos": ".", "class_prompt": "a dog", "step": 3}, UsageError, "no setting 'step'"),
        ({"photos": ".", "class_prompt": "a dog", "steps": 0}, UsageError, "too small"),
        ({"photos": ".", "class_prompt": "a dog", "method": "best"}, UsageError, "--method"),
        ({"photos": ".", "class_prompt": "a dog and a cat"}, UsageError, "several subjects"),
        ({"photos": "."}, UsageError, "class prompt is missing"),
        ({"class_prompt": "a dog"}, UsageError, "where are the photos"),
        ({"project": "nobody"}, ProjectError, "no project called nobody"),
        ({}, UsageError, "no project yet"),
    ],
    ids=str,
)
def test_what_can_not_be_is_told_by_the_call(asked: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        train(**asked)
    if "cat" not in words and "several" not in words:
        with pytest.raises(kind, match=words):
            plan(**asked)


def test_what_goes_wrong_on_the_way_is_an_error_of_its_kind(
    tmp_path: Path, sd1: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PhotoError) as caught:
        list(train(photos=tmp_path / "empty", class_prompt="a dog", model=str(sd1)))
    assert caught.value.hint
    monkeypatch.setattr("dreambooth_cli.memory.search.machine_memory", lambda: 10**8)
    with pytest.raises(DoesNotFit):
        list(train(photos=photos, class_prompt="a dog", model=str(sd1)))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"project": "dog"}, "the prompt is missing"),
        ({"prompt": "a dog", "model_path": "m", "project": "dog"}, "two models"),
        ({"prompt": "a dog", "model_path": "m", "run": 2}, "--run is for a project"),
        ({"prompt": "a dog", "model_path": "m", "num_images": 0}, "too small"),
        ({"prompt": "a dog", "model_path": "m", "images": 1}, "no setting 'images'"),
    ],
    ids=str,
)
def test_what_can_not_be_drawn_is_told_by_the_call(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        generate(**asked)


@pytest.mark.slow
def test_the_readme_s_program_runs(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not README.is_file():
        pytest.skip("needs the checkout")
    (program,) = [block for block in code_blocks(README.read_text(encoding="utf-8")) if "from dreambooth_cli import" in block]
    fewer = {'"steps": 10, "class_images": 4': '"steps": 2, "class_images": 1', "num_images=2, steps=10": "num_images=2, steps=2"}
    for asked, few in fewer.items():
        assert asked in program
        program = program.replace(asked, few)
    photos.rename(tmp_path / "instance_images")
    exec(compile(program, str(README), "exec"), {"__name__": "__main__"})
    told = capsys.readouterr().out
    assert "no GPU" in told or "needs" in told
    assert [Path(line).is_file() for line in told.splitlines() if line.endswith(".png")] == [True, True]
    assert (tmp_path / "output" / "dreambooth.json").is_file()


if __name__ == "__main__":
    Path(keywords.__file__).write_text(written_keywords())
