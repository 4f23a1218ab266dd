"""Which run a command continues, what is said if it is another one, and how class images are recognised."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch.testing import assert_close

from dreambooth_cli.events import CheckpointSaved, ClassImageMade, Noted, RunOpened, StepDone, Warned
from dreambooth_cli.paths import cache_folder
from dreambooth_cli.project import Project
from dreambooth_cli.run import Run
from tests.workflows.projects import make_project, model_of, of_kind, run, start

SHORT = {"steps": 3, "checkpoint_every": 2, "sample_every": 0}


def stopped(project: Project, **flags: Any) -> Run:
    """A run of the project that was left after its checkpoint at step 2."""
    with closing(start(project, **flags)) as events:
        for event in events:
            if isinstance(event, CheckpointSaved):
                break
    return project.runs()[-1]


def images() -> list[Path]:
    """The class images in the cache."""
    return sorted((cache_folder() / "class-images").glob("*/*.png"))


def messages(events: list[Any], kind: type[Any] = Noted) -> str:
    """The messages of all events of a kind."""
    return "\n".join(event.message for event in of_kind(events, kind))


def opened(events: list[Any]) -> tuple[int, int]:
    """The run that a command opens, and the step that it goes on from."""
    (found,) = of_kind(events, RunOpened)
    return found.number, found.step


def test_a_note_in_the_base_s_folder_is_no_other_run_and_other_weights_are(sd1: Path, photos: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(sd1, tmp_path / "base"))
    project = make_project(photos, base, **SHORT)
    stopped(project)
    for name in ("notes.txt", "README.md", "mine.json", ".DS_Store"):
        (base / name).write_text("{}")
    assert opened(run(project)) == (1, 2)
    config = base / "scheduler/scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    stopped(project)
    config.write_text(config.read_text().replace("0.013", "0.014"))
    events = run(project)
    assert opened(events) == (3, 0)
    assert "run 2, which stopped at step 2, was begun with another base; this is a new run" in messages(events)


def test_photos_in_another_order_are_another_run(sd1: Path, photos: Path) -> None:
    project = make_project(photos, sd1, **SHORT, class_images=0)
    stopped(project)
    first = sorted(project.photos.glob("[!.]*"))[0]
    first.rename(first.with_stem("zz-last"))
    events = run(project)
    assert opened(events) == (2, 0)
    assert "run 1, which stopped at step 2, was begun with other photos, or photos in another order; this is a new run" in messages(events)
    assert "with other settings (seed) and other photos, or photos in another order" in messages(run(project, seed=9))
    renamed = sorted(project.photos.glob("[!.]*"))[0]
    renamed.rename(renamed.with_stem(f"{renamed.stem}-"))  # its place stays
    assert "finished already" in messages(run(project))


def paint(path: Path) -> None:
    """Replace a picture by another, as a user or another program might."""
    Image.new("RGB", (64, 64), (200, 30, 30)).save(path)


def test_a_class_image_that_is_not_as_it_was_made_is_made_again(sd1: Path, photos: Path) -> None:
    project = make_project(photos, sd1, **SHORT)
    stopped(project)
    before, record = [path.read_bytes() for path in images()], images()[0].with_name("images.json")
    paint(images()[0])
    events = run(project)
    assert [path.read_bytes() for path in images()] == before
    assert opened(events) == (1, 2)
    assert of_kind(events, ClassImageMade) != []
    assert messages(events, Warned) == ""
    assert json.loads(record.read_text())["images"].keys() == {path.name for path in images()}


def test_class_images_that_a_run_was_not_trained_on_are_told(sd1: Path, photos: Path) -> None:
    project = make_project(photos, sd1, **SHORT)
    left = stopped(project)
    record = left.record()
    left.write_record(replace(record, began=record.began | {"class images": "0" * 64}))
    events = run(project)
    assert "run 1 continues with other class images than it began with" in messages(events, Warned)


def test_images_of_0_1_are_taken_as_they_are_once_and_held_from_then_on(sd1: Path, photos: Path) -> None:
    project = make_project(photos, sd1, **SHORT)
    stopped(project)
    before, record = [path.read_bytes() for path in images()], images()[0].with_name("images.json")
    record.unlink()
    assert of_kind(run(project), ClassImageMade) == []
    assert record.is_file()
    paint(images()[1])
    run(project, restart=True)
    assert [path.read_bytes() for path in images()] == before


def test_what_can_not_be_undone_is_said_in_one_line_at_resume(sd1: Path, photos: Path) -> None:
    project = make_project(photos, sd1, **SHORT)
    left = stopped(project)
    record = left.record()
    began = record.began
    assert (began["torch"], began["threads"]) == (torch.__version__, torch.get_num_threads())
    left.write_record(replace(record, began=began | {"torch": "2.13.9", "threads": 7}))
    told = messages(run(project), Warned)
    assert "run 1 began with torch 2.13.9, threads 7 and continues with torch " in told
    assert told.count("\n") == 0


def test_a_run_that_goes_on_undisturbed_says_nothing_and_ends_the_same(sd1: Path, photos: Path) -> None:
    project = make_project(photos, sd1, **SHORT)
    stopped(project)
    events = run(project)
    assert (messages(events).count("\n"), messages(events, Warned)) == (0, "")
    assert messages(events).startswith("the steps were not judged")  # nothing else is said
    whole = run(project, restart=True)
    for part in ("unet", "text_encoder"):
        ours, theirs = (load_file(next((model_of(each) / part).glob("*.safetensors"))) for each in (events, whole))
        assert_close(ours, theirs, rtol=0, atol=0)
    assert [event.step for event in of_kind(events, StepDone)] == [3]
