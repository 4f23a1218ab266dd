"""`init`: a project is made whole or not at all; photos may come and go later."""

from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from dreambooth_cli.errors import DiskError, ModelUnavailable, PhotoError, ProjectError, UsageError
from dreambooth_cli.events import Noted, PhotoLooked, ProjectSaved
from dreambooth_cli.paths import home_folder, projects_folder
from dreambooth_cli.project import Project, find_project, list_projects, open_project
from dreambooth_cli.settings import SubjectSettings
from dreambooth_cli.workflows.initialise import add_photos, initialise
from dreambooth_cli.workflows.prepare import left_out
from tests.conftest import draw_photo
from tests.workflows.projects import of_kind

NAMES = ["five.webp", "four.png", "one.jpg", "three.jpg", "two.jpg"]


def make(photos, name=None, *, prep=None, train=None, **subject):
    settings = SubjectSettings(**{"photos": photos, "class_prompt": "a photo of a dog"} | subject)
    return initialise(name, subject=settings, prep=prep or {}, train=train or {})


def photos_of(project):
    return sorted(path.name for path in project.photos.iterdir() if not path.name.startswith("."))


def nothing_is_left():
    return list_projects() == [] and not list(home_folder().glob(".making-*"))


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


def test_a_project_is_made(photos):
    (photos / "notes.txt").write_text("a list")
    (photos / "broken.jpg").write_bytes(b"x")
    (photos / ".DS_Store").touch()
    before = contents(photos)
    events = list(make(photos, "my-dog", prep={"crop": "top"}, train={"steps": 300, "method": None}))
    project = open_project("my-dog")
    assert events[-1] == ProjectSaved(name="my-dog", path=project.path, created=True)
    assert photos_of(project) == NAMES
    assert all((project.photos / name).read_bytes() == (photos / name).read_bytes() for name in NAMES)
    looked = {
        Path(event.path).name: (event.path, event.status, event.reasons) for event in of_kind(events, PhotoLooked)
    }
    assert looked == {name: (str(photos / name), "kept", ()) for name in NAMES} | {
        "notes.txt": (str(photos / "notes.txt"), "skipped", ("not a picture",)),
        "broken.jpg": (str(photos / "broken.jpg"), "refused", ("damaged: no picture can be found in it",)),
        ".DS_Store": (str(photos / ".DS_Store"), "skipped", ("hidden",)),
    }
    assert project.settings() == {
        "subject": {"photos": photos.resolve(), "class_prompt": "a photo of a dog", "model": "sd15"},
        "prep": {"crop": "top"},
        "train": {"steps": 300},
        "generate": {},
        "photos": {},
    }
    assert contents(photos) == before
    assert [child.name for child in home_folder().iterdir()] == ["projects"]


def test_a_relative_folder_is_told_as_given_and_kept_whole(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    events = list(make(Path("photos"), "my-dog", model="sdxl", identifier="sks"))
    assert of_kind(events, PhotoLooked)[0].path == "photos/five.webp"
    assert open_project("my-dog").settings()["subject"] == {
        "photos": photos.resolve(),
        "class_prompt": "a photo of a dog",
        "model": "sdxl",
        "identifier": "sks",
    }
    assert find_project(Path("photos"), "dog") == open_project("my-dog")


def test_the_path_of_a_local_base_is_kept_whole(photos, sd1, monkeypatch):
    monkeypatch.chdir(sd1.parent)
    list(make(photos, "my-dog", model=f"./{sd1.name}"))
    assert open_project("my-dog").settings()["subject"]["model"] == str(sd1.resolve())


def test_without_a_name_it_takes_the_class_noun(photos):
    names = [of_kind(list(make(photos)), ProjectSaved)[0].name for _ in range(3)]
    assert names == ["dog", "dog-2", "dog-3"]


def test_without_a_name_it_passes_over_whatever_lies_there(photos):
    (projects_folder() / "Dog").mkdir(parents=True)
    (projects_folder() / "Dog" / "mine.txt").write_text("mine")
    assert of_kind(list(make(photos)), ProjectSaved)[0].name == "dog-2"


def test_an_existing_name(photos):
    list(make(photos, "my-dog"))
    before = contents(open_project("my-dog").path)
    with pytest.raises(ProjectError) as caught:
        list(make(photos, "my-dog"))
    assert caught.value.message == "there is already a project called my-dog"
    assert caught.value.hint == "choose another name, or remove it first: dreambooth projects remove my-dog"
    assert caught.value.exit_code == 3
    assert contents(open_project("my-dog").path) == before


def test_a_folder_in_the_way(photos):
    (projects_folder() / "my-dog").mkdir(parents=True)
    with pytest.raises(ProjectError) as caught:
        list(make(photos, "my-dog"))
    assert caught.value.message == f"{projects_folder() / 'my-dog'} already exists and is not a project"
    assert caught.value.hint == "choose another name, or move it away"


def test_a_name_taken_while_the_photos_are_copied(photos):
    events = make(photos)
    next(events)
    list(make(photos))
    assert of_kind(list(events), ProjectSaved)[0].name == "dog-2"
    named = make(photos, "cat")
    next(named)
    list(make(photos, "cat"))
    with pytest.raises(ProjectError) as caught:
        list(named)
    assert caught.value.message == "there is already a project called cat"
    assert not list(home_folder().glob(".making-*"))


def test_many_at_once_each_get_a_name(photos):
    making = [make(photos) for _ in range(4)]
    for events in making:
        next(events)
    names = [of_kind(list(events), ProjectSaved)[0].name for events in making]
    assert names == ["dog", "dog-2", "dog-3", "dog-4"]


@pytest.mark.parametrize("name", ["../dog", "a/b", ".dog", "con"])
def test_a_name_that_can_not_be_one(name, photos):
    with pytest.raises(ProjectError) as caught:
        list(make(photos, name))
    assert "can't be a project's name" in caught.value.message
    assert nothing_is_left()


def test_left_early_nothing_is_there(photos):
    for count in range(1, 7):
        with closing(make(photos)) as events:
            for _ in range(count):
                next(events)
        assert nothing_is_left()


# ---- refusals


@pytest.mark.parametrize(
    ("change", "kind", "message", "hint"),
    [
        ({"photos": None}, UsageError, "where are the photos? their folder is missing", "name it: --photos DIR"),
        (
            {"class_prompt": None},
            UsageError,
            "what is the subject? the class prompt is missing",
            'say it: --class-prompt "a dog"',
        ),
        ({"train": {"steps": 0}}, UsageError, "--steps 0 is too small", "it must be at least 1"),
        (
            {"prep": {"resolution": 100}},
            UsageError,
            "--resolution 100 is not a multiple of 8",
            "for example: --resolution 96",
        ),
        (
            {"model": "./nowhere"},
            ModelUnavailable,
            "there is no model at ./nowhere",
            "check the path, or see `dreambooth models`",
        ),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(change, kind, message, hint, photos):
    with pytest.raises(kind) as caught:
        list(make(**{"photos": photos} | change))
    assert (caught.value.message, caught.value.hint) == (message, hint)
    assert nothing_is_left()


def test_a_missing_folder_and_a_file_for_a_folder(photos, tmp_path):
    with pytest.raises(PhotoError) as caught:
        list(make(tmp_path / "nowhere"))
    assert caught.value.message == f"there is no folder {tmp_path / 'nowhere'}"
    assert caught.value.hint == "check the path of --photos"
    with pytest.raises(PhotoError) as caught:
        list(make(photos / "one.jpg"))
    assert caught.value.message == f"{photos / 'one.jpg'} is a file, not a folder"
    assert caught.value.hint == f"give the folder that the photos lie in: --photos {photos}"
    assert nothing_is_left()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "{folder} holds no photos"),
        (
            {"a.jpg": b"x", "notes.txt": b"x"},
            "no photo in {folder} can be used (a.jpg: damaged: no picture can be found in it; notes.txt: not a picture)",
        ),
    ],
)
def test_no_usable_photo(files, message, tmp_path):
    folder = tmp_path / "none"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(PhotoError) as caught:
        list(make(folder))
    assert caught.value.message == message.format(folder=folder)
    assert caught.value.hint == (
        "put 3 to 5 photos of the subject there (jpg, png, webp, heic, ...), or name another folder: --photos DIR"
    )
    assert caught.value.exit_code == 3
    assert nothing_is_left()


def test_a_home_that_can_not_be_written(photos, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DREAMBOOTH_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(DiskError) as caught:
        list(make(photos))
    assert caught.value.message.endswith(": Not a directory")
    assert caught.value.hint == "check the folder and who may write there"
    assert caught.value.exit_code == 6


# ---- photos that come and go


@pytest.fixture
def project(photos):
    list(make(photos, "dog"))
    return open_project("dog")


def notes(events):
    return [event.message for event in of_kind(events, Noted)]


def test_the_same_folder_again_changes_nothing(project, photos):
    before = contents(project.photos)
    config = project.config.read_bytes()
    assert notes(add_photos(project, photos)) == []
    assert contents(project.photos) == before
    assert project.config.read_bytes() == config
    assert left_out(project) == set()


def test_new_photos_are_copied_gone_ones_left_out_and_taken_back(project, photos):
    one = (photos / "one.jpg").read_bytes()
    (photos / "one.jpg").unlink()
    (photos / "two.jpg").rename(photos / "renamed.jpg")
    draw_photo(photos / "six.jpg", (90, 90), seed=6)
    (photos / "notes.txt").write_text("x")
    events = list(add_photos(project, photos))
    assert photos_of(project) == sorted([*NAMES, "six.jpg"])
    assert left_out(project) == {"one.jpg"}
    assert notes(events) == ["1 new photo copied into project dog", "no longer used in project dog, but kept: one.jpg"]
    assert [(Path(event.path).name, event.status) for event in of_kind(events, PhotoLooked)] == [
        ("notes.txt", "skipped")
    ]
    assert notes(add_photos(project, photos)) == []
    (photos / "one.jpg").write_bytes(one)
    assert notes(add_photos(project, photos)) == ["used again in project dog: one.jpg"]
    assert left_out(project) == set()


def test_another_photo_of_a_name_that_is_there(project, photos):
    old = (project.photos / "one.jpg").read_bytes()
    draw_photo(photos / "one.jpg", (90, 90), seed=7)
    list(add_photos(project, photos))
    assert (project.photos / "one.jpg").read_bytes() == old
    assert (project.photos / "one-2.jpg").read_bytes() == (photos / "one.jpg").read_bytes()
    assert left_out(project) == {"one.jpg"}


def test_another_folder_is_remembered(project, photos, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    draw_photo(other / "a.jpg", (90, 90), seed=5)
    monkeypatch.chdir(tmp_path)
    list(add_photos(project, Path("other")))
    assert project.settings()["subject"]["photos"] == other.resolve()
    assert left_out(project) == set(NAMES)


def test_a_folder_of_folders_is_told_with_those_that_hold_photos(tmp_path):
    for name in ("cat", "my dog", "none", ".hidden"):
        (tmp_path / "all" / name).mkdir(parents=True)
    for name in ("cat/a.jpg", "my dog/b.jpg", ".hidden/c.jpg", "none/notes.txt"):
        (tmp_path / "all" / name).write_bytes(b"x" if name.endswith("txt") else b"\xff\xd8\xff")
    with pytest.raises(PhotoError) as caught:
        list(make(tmp_path / "all"))
    assert caught.value.message == f"{tmp_path / 'all'} holds no photos itself"
    assert caught.value.hint == f"there are photos in its folders cat, my dog; name one: --photos {tmp_path / 'all' / 'cat'}"
    (tmp_path / "all" / "broken.jpg").write_bytes(b"x")
    with pytest.raises(PhotoError, match=r"broken\.jpg: damaged"):
        list(make(tmp_path / "all"))


def test_a_folder_without_a_usable_photo_changes_nothing(project, tmp_path):
    before = contents(project.photos)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PhotoError) as caught:
        list(add_photos(project, tmp_path / "empty"))
    assert caught.value.message == f"{tmp_path / 'empty'} holds no photos"
    assert contents(project.photos) == before


def test_a_lost_photos_folder_is_filled_again(project, photos):
    for path in project.photos.iterdir():
        path.unlink()
    project.photos.rmdir()
    list(add_photos(Project(project.path), photos))
    assert photos_of(project) == NAMES


def test_the_projects_own_folder_may_be_given(project):
    before = contents(project.photos)
    assert notes(add_photos(project, project.photos)) == []
    assert contents(project.photos) == before


def test_pictures_of_the_copy_are_whole(project, photos):
    for name in NAMES:
        with Image.open(project.photos / name) as copy, Image.open(photos / name) as original:
            assert copy.tobytes() == original.tobytes()


def test_a_photo_whose_name_has_all_the_bytes_that_a_name_can_have(photos):
    long = "ä" * 125 + "b.jpg"
    (photos / "one.jpg").rename(photos / long)
    list(make(photos, "my-dog"))
    project = open_project("my-dog")
    assert long in photos_of(project)
    draw_photo(photos / "another.jpg", (90, 90), seed=77).replace(photos / long)
    with project.lock():
        list(add_photos(project, photos))
    assert len(photos_of(project)) == 6
    assert {len(name.encode()) for name in photos_of(project) if "ä" in name} == {255, 254}


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\r.jpg", "a\u2028b.jpg", " one.jpg "])
def test_a_photo_that_is_gone_is_left_out_whatever_its_name(name, photos):
    draw_photo(photos / "x.jpg", (90, 90), seed=77).rename(photos / name)
    list(make(photos, "my-dog"))
    project = open_project("my-dog")
    (photos / name).unlink()
    with project.lock():
        list(add_photos(project, photos))
    assert left_out(project) == {name}


def test_photos_in_a_folder_that_is_a_link_in_a_circle(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(PhotoError) as caught:
        list(make(tmp_path / "loop"))
    assert caught.value.hint


def test_a_home_of_somebody_who_is_not_known(tmp_path):
    with pytest.raises(PhotoError, match="no folder ~nobody-of-that-name"):
        list(make(Path("~nobody-of-that-name/photos")))
