"""Names, folders, locks and runs of projects."""

import json
import multiprocessing
import os

import pytest

from dreambooth_cli.errors import ProjectError
from dreambooth_cli.paths import home_folder, projects_folder
from dreambooth_cli.project import (
    Project,
    check_name,
    clear_up,
    find_project,
    free_name,
    list_projects,
    open_project,
    remove_project,
    suggest_name,
)
from tests.records import a_record


def make(name, text=""):
    project = Project(projects_folder() / name)
    project.path.mkdir(parents=True)
    project.config.write_text(text)
    return project


@pytest.mark.parametrize("name", ["dog", "my-dog", "dog-2", "Ünser.Hund", "犬", "a_b"])
def test_good_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", "-rf", ".hidden", "a b", "con", "NUL.txt", "a.", "x" * 65, "a\n", "a\0"],
)
def test_names_that_could_leave_the_folder_or_break_a_shell(name):
    with pytest.raises(ProjectError) as caught:
        check_name(name)
    assert caught.value.exit_code == 3
    assert "letters" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "name"),
    [("red backpack", "red-backpack"), ("  Dog! ", "dog"), ("", "subject"), ("ﬁsh", "fish"), ("!!", "subject")],
)
def test_names_made_of_words(words, name):
    assert suggest_name(words) == name
    check_name(suggest_name(words))


def test_the_next_free_name():
    assert free_name("dog") == "dog"
    make("dog")
    assert free_name("dog") == "dog-2"
    make("dog-2")
    assert free_name("dog") == "dog-3"


def test_home_can_be_moved(monkeypatch, tmp_path):
    monkeypatch.setenv("DREAMBOOTH_HOME", str(tmp_path / "else"))
    assert home_folder() == tmp_path / "else"
    monkeypatch.delenv("DREAMBOOTH_HOME")
    assert home_folder().name == "dreambooth"


def test_a_project_that_is_not_there_names_those_that_are():
    with pytest.raises(ProjectError) as caught:
        open_project("cat")
    assert "dreambooth init cat" in caught.value.hint
    make("dog")
    with pytest.raises(ProjectError) as caught:
        open_project("cat")
    assert "your projects: dog" in caught.value.hint


def test_a_project_is_found_by_photos_and_noun(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    project = make("rex", f'[subject]\nphotos = "{tmp_path / "photos"}"\nclass_prompt = "a photo of a dog"\n')
    assert find_project(tmp_path / "link", "dog") == project
    assert find_project(tmp_path / "photos", "cat") is None
    assert find_project(tmp_path, "dog") is None


def test_of_projects_of_one_noun_the_one_of_this_very_class_prompt_is_found(tmp_path):
    first = make("dog", f'[subject]\nphotos = "{tmp_path}"\nclass_prompt = "a dog"\n')
    second = make("photo-of-dog", f'[subject]\nphotos = "{tmp_path}"\nclass_prompt = "a photo of dog"\n')
    named = make("sks", f'[subject]\nphotos = "{tmp_path}"\nclass_prompt = "sks mug"\nidentifier = "sks"\n')
    assert find_project(tmp_path, "dog", class_prompt="photo of a dog") == first
    assert find_project(tmp_path, "dog", class_prompt="a photo of dog") == second
    assert find_project(tmp_path, "mug", class_prompt="a mug") == named
    # a run of it goes before what project.toml says now
    second.new_run().write_record(a_record(class_prompt="the dog"))
    assert find_project(tmp_path, "dog", class_prompt="the dog") == second
    assert second.has_run_of("the dog")
    assert not first.has_run_of("the dog")
    second.runs()[0].plan.write_text('{"asked": []}')
    assert not second.has_run_of("the dog")


def test_listing_and_removing():
    make("b"), make("a")
    (projects_folder() / "no-project").mkdir()
    assert [project.name for project in list_projects()] == ["a", "b"]
    remove_project(open_project("a"))
    assert [project.name for project in list_projects()] == ["b"]


def hold_and_report(path, ready, done):
    with Project(path).lock():
        ready.set()
        done.wait(30)


def test_another_process_is_named():
    project = make("dog")
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold_and_report, args=(project.path, ready, done))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(ProjectError) as caught, project.lock():
            pass
        assert f"in use by process {other.pid}" in caught.value.message
    finally:
        done.set()
        other.join()
    with project.lock():
        pass


def finish(run):
    run.model.mkdir()
    (run.model / "dreambooth.json").write_text("{}")


def test_runs_are_found_by_number_and_digest():
    project = make("dog")
    (first := project.new_run()).write_record(a_record(digest="a"))
    project.new_run().write_record(a_record(digest="b"))
    assert project.find_run("a") == first
    assert project.find_run("c") is None
    with pytest.raises(ProjectError) as caught:
        project.finished_run(None)
    assert "dreambooth train dog" in caught.value.hint
    finish(first)
    assert project.finished_run(None) == first
    with pytest.raises(ProjectError) as caught:
        project.finished_run(2)
    assert "its finished runs: 1" in caught.value.hint


@pytest.mark.parametrize("content", ["{", "[]", "\xff", "null"])
def test_a_damaged_plan_is_told(content):
    run = make("dog").new_run()
    run.plan.write_text(content, encoding="latin-1")
    with pytest.raises(ProjectError) as caught:
        run.record()
    assert "--restart" in caught.value.hint


def test_a_project_that_0_1_was_making_goes_when_it_is_old_and_never_by_its_process_number():
    home = home_folder()
    young, old, other = (home / f".making-{name}" for name in ("0" * 32 + ".999999", "1" * 32 + ".999999", "of"))
    for path in (young, old, other):
        (path / "photos").mkdir(parents=True)
        if path is not young:
            os.utime(path, (0, 0))
    clear_up()
    assert (young.is_dir(), old.exists(), other.is_dir()) == (True, False, True)


def test_what_a_killed_write_left_is_cleared_up():
    run = make("dog").new_run()
    run.write_record(a_record())
    part = run.path / "plan.json.part"
    part.write_text('{"id"')
    run.clear_up()
    assert [path.name for path in run.path.iterdir()] == ["plan.json"]


def test_a_run_that_never_had_a_plan_leaves_its_number():
    project = make("dog")
    killed, other = project.new_run(), project.path / "runs" / "2"
    (killed.path / "plan.json.part").write_text('{"id"')
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    assert project.new_run().number == 3
    assert sorted(path.name for path in (project.path / "runs").iterdir()) == ["2", "3"]


def test_records_are_written_whole():
    run = make("dog").new_run()
    run.write_record(record := a_record(digest="ä"))
    assert json.loads(run.plan.read_text(encoding="utf-8")) == {"schema": 1} | record.written()
    assert run.record() == record
    assert [path.name for path in run.path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("name", ["𐌰" * 64, "犬" * 67])
def test_names_that_no_disk_can_hold(name):
    with pytest.raises(ProjectError):
        check_name(name)


@pytest.mark.parametrize("words", ["con", "a NUL", "Aux", "lpt1"])
def test_names_made_of_words_are_never_reserved(words):
    check_name(suggest_name(words))


def test_folders_that_only_look_like_runs_are_none():
    project = make("dog")
    for name in ("1", "12", "²", "٣", "01", "x", "9" * 200):
        (project.path / "runs" / name).mkdir(parents=True)
    assert [run.number for run in project.runs()] == [1, 12]
