"""What the file system refuses is reported in words about that very file and never as a bug; streams and terminals that go away."""

import errno
import fcntl
import json
import os
import pwd
import re
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from dreambooth_cli import stopping
from dreambooth_cli.bases.cache import hub_cache
from dreambooth_cli.cli.app import in_words, run
from dreambooth_cli.cli.options import complete_project
from dreambooth_cli.config import read_config, write_config
from dreambooth_cli.disk import disk_errors, remove, sync, system_errors, write_whole
from dreambooth_cli.errors import DiskError, HangUp, ModelUnavailable, ProjectError, Terminated, UsageError
from dreambooth_cli.locks import hold
from dreambooth_cli.paths import cache_folder, home_folder, projects_folder
from dreambooth_cli.project import Project, find_project, free_name, list_projects, unreadable_projects

from ..faults.powerless import can_give_up, run_powerless
from .conftest import Dreambooth, environment, in_process

posix = pytest.mark.skipif(os.name != "posix", reason="needs the signals and files of Unix")


def make(name: str, text: str = "") -> Project:
    project = Project(projects_folder() / name)
    project.path.mkdir(parents=True)
    project.config.write_text(text)
    return project


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_no_error_of_the_system_is_a_bug(number: int) -> None:
    for name in ("/data/file", str(projects_folder() / "dog" / "plan.json"), None):
        told = in_words(OSError(number, os.strerror(number), name) if name else OSError(number, os.strerror(number)))
        assert told is not None
        assert told.exit_code in (2, 3, 6)
        assert name is None or name in told.message
        assert told.hint


@pytest.mark.parametrize(
    ("place", "number", "kind"),
    [
        ("project", errno.EACCES, ProjectError),
        ("project", errno.EISDIR, ProjectError),
        ("project", errno.ELOOP, ProjectError),
        ("project", errno.EROFS, DiskError),
        ("project", errno.EIO, DiskError),
        ("project", errno.ENOSPC, DiskError),
        ("hub", errno.EACCES, ModelUnavailable),
        ("elsewhere", errno.EACCES, DiskError),
        ("elsewhere", errno.ENAMETOOLONG, UsageError),
    ],
)
def test_the_place_says_of_what_kind_it_is(place: str, number: int, kind: type[Exception]) -> None:
    folder = {"project": projects_folder() / "dog", "hub": hub_cache(), "elsewhere": Path("/data")}[place]
    assert type(in_words(OSError(number, os.strerror(number), str(folder / "file")))) is kind


def test_both_files_of_a_rename_are_named() -> None:
    with pytest.raises(DiskError) as caught, disk_errors(Path("/data")):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), "/a", None, "/b")
    assert caught.value.message == "can't write /data: /a -> /b: Invalid cross-device link"
    with pytest.raises(ModelUnavailable) as told, system_errors(ModelUnavailable, "it can't be read", Path("/a")):
        raise PermissionError(errno.EACCES, "Permission denied", "/a")
    assert told.value.message == "it can't be read: Permission denied"


def test_a_library_that_tells_no_number_is_quoted() -> None:
    assert "a word of its own" in str(in_words(OSError("a word of its own")))


def powerless(work: Any, output: Path) -> str:
    """What `work` prints when it is done without root's rights."""

    def printing() -> int:
        with output.open("w") as file, redirect_stdout(file), redirect_stderr(file):
            return int(work())

    assert run_powerless(printing, output) == 0, output.read_text()
    return output.read_text()


@pytest.mark.skipif(not can_give_up(), reason="root's rights can't be given up here")
def test_another_users_project_stops_nobody(tmp_path: Path) -> None:
    make("dog", '[subject]\nclass_prompt = "a dog"\n')
    make("foreign").path.chmod(0)
    remote = make("half")
    (remote.path / "runs" / "1" / "model").mkdir(parents=True)
    (remote.path / "runs" / "1").chmod(0)
    shut = make("shut")
    (shut.path / "photos").mkdir()
    (shut.path / "photos" / "1.png").write_text("")
    (shut.path / "photos").chmod(0o555)

    def work() -> int:
        assert [project.name for project in list_projects()] == ["dog", "half", "shut"]
        assert complete_project("") == ["dog", "half", "shut"]
        assert find_project(tmp_path, "dog") is None
        assert free_name("foreign") == "foreign-2"
        assert run(["projects"]) == 0
        assert run(["projects", "list", "--json"]) == 0
        assert run(["prep", "foreign"]) == 3
        assert run(["projects", "remove", "foreign", "--yes"]) == 3
        with pytest.raises(DiskError) as caught, disk_errors(shut.path):
            remove(shut.path)
        assert str(shut.path / "photos" / "1.png") in caught.value.message
        return 0

    told = powerless(work, tmp_path / "printed")
    for path in (projects_folder() / "foreign", projects_folder() / "half" / "runs" / "1", shut.path / "photos"):
        path.chmod(0o755)
    lines = told.splitlines()
    assert lines[0].startswith("dog  a dog, no runs")
    assert f"warning: project foreign can't be read: {projects_folder() / 'foreign' / 'project.toml'}: Permission denied" in lines
    assert f"warning: project half can't be read: {projects_folder() / 'half/runs/1/model/dreambooth.json'}: " in told
    document = next(json.loads(line) for line in lines if line.startswith("{"))
    assert [each["name"] for each in document["projects"]] == ["dog", "shut"]
    assert [line.split()[1] for line in document["skipped"]] == ["foreign", "half"]
    assert f"Error: {projects_folder() / 'foreign' / 'project.toml'}: Permission denied" in lines


@pytest.mark.skipif(not can_give_up(), reason="root's rights can't be given up here")
def test_what_a_command_has_no_need_of_does_not_stop_it(tmp_path: Path, photos: Path) -> None:
    """A cache, and the folder that the photos came from, which can no longer be read."""
    words = ["--photos", str(photos), "--class-prompt", "a dog", "--model", "pocket", "--yes"]
    (cache_folder() / "class-images").mkdir(parents=True)

    def work() -> int:
        cache_folder().chmod(0)
        photos.chmod(0o755)
        first = run(["init", "dog", *words])
        photos.chmod(0)
        return first or run(["prep", "dog"])

    told = powerless(work, tmp_path / "printed")
    cache_folder().chmod(0o755)
    photos.chmod(0o755)
    assert "Permission denied" not in told


def test_a_full_folder_for_temporary_files_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from dreambooth_cli.engine.refusal import refused

    monkeypatch.setattr(tempfile, "tempdir", "/data/tmp")
    with pytest.raises(DiskError, match="temporary files, /data/tmp: No space left") as caught, refused("the tokenizer"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "TMPDIR" in caught.value.hint


@posix
def test_a_disk_without_locks_is_said_by_every_command_that_would_hold_one(
    monkeypatch: pytest.MonkeyPatch, photos: Path, dreambooth: Dreambooth
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    dreambooth("init", "dog", "--photos", photos, "--class-prompt", "a dog", "--model", "pocket", "--yes")
    monkeypatch.setattr(fcntl, "flock", refuse)
    for words in (["prep", "dog"], ["projects", "remove", "dog", "--yes"]):
        done = dreambooth(*words)
        assert (done.code, "does not support file locks" in done.err) == (0, True), done.err


@pytest.mark.parametrize("kind", ["folder", "circle"])
def test_a_lock_that_can_not_be_one_is_told(kind: str, dreambooth: Dreambooth) -> None:
    project = make("dog")
    lock = project.path / ".lock"
    lock.mkdir() if kind == "folder" else lock.symlink_to(lock)
    done = dreambooth("projects", "remove", "dog", "--yes")
    assert (done.code, str(lock) in done.err, "bug" in done.err) == (3, True, False)


@posix
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK])
def test_a_disk_without_locks_is_gone_on_with(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with make("dog").lock() as remark:
        assert "does not support file locks" in remark
    with hold(cache_folder() / "class-images" / "x"):
        pass


@posix
def test_a_lock_that_the_disk_breaks_on_is_an_error_of_that_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    project = make("dog")
    with pytest.raises(OSError, match=r"\.lock") as caught, project.lock():
        pass
    assert isinstance(in_words(caught.value), DiskError)


@posix
@pytest.mark.parametrize(
    ("number", "of_folders", "is_failure"),
    [
        (errno.EINVAL, True, False),
        (errno.ENOTSUP, True, False),
        (errno.EBADF, True, False),
        (errno.EPERM, True, False),
        (errno.EIO, True, True),
        (errno.EINVAL, False, False),
        (errno.EIO, False, True),
        (errno.EBADF, False, True),
    ],
)
def test_a_disk_without_fsync(
    number: int, of_folders: bool, is_failure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == of_folders:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    if not is_failure:
        write_whole(tmp_path / "file", b"x")
        assert (tmp_path / "file").read_bytes() == b"x"
        return
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
        sync(tmp_path if of_folders else file)
    assert caught.value.filename == str(tmp_path if of_folders else file)


def test_projects_linked_to_another_disk(photos: Path, dreambooth: Dreambooth) -> None:
    here, places = home_folder().parent.stat().st_dev, (Path("/dev/shm"), Path("/var/tmp"))
    other = next((place for place in places if place.is_dir() and place.stat().st_dev != here and os.access(place, os.W_OK)), None)
    if other is None:
        pytest.skip("no other disk here")
    folder = other / f"dreambooth-test-{os.getpid()}"
    folder.mkdir()
    home_folder().mkdir()
    projects_folder().symlink_to(folder)
    try:
        done = dreambooth("init", "dog", "--photos", photos, "--class-prompt", "a dog", "--model", "pocket", "--yes")
        assert done.code == 0, done.err
        assert sorted(os.listdir(folder)) == ["dog"]
    finally:
        remove(folder)


def test_a_broken_project_stops_no_other(tmp_path: Path, dreambooth: Dreambooth) -> None:
    make("broken", "this is no TOML")
    assert find_project(tmp_path, "dog") is None
    (line,) = unreadable_projects()
    assert line.startswith("project broken can't be used: ")
    done = dreambooth("projects")
    assert (done.code, "broken" in done.out, line in done.err) == (0, True, True)
    make("same", f'[subject]\nphotos = "{tmp_path}"\nclass_prompt = "a dog\n')
    with pytest.raises(ProjectError, match=r"same.project\.toml"):
        find_project(tmp_path, "dog")


def test_a_mark_before_the_text_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "project.toml"
    path.write_bytes('\ufeff[subject]\r\n# mine\r\nclass_prompt = "a dog"\r\n'.encode())
    assert read_config(path)["subject"] == {"class_prompt": "a dog"}
    write_config(path, {"train": {"steps": 7}})
    text = path.read_bytes()
    assert read_config(path)["train"] == {"steps": 7}
    assert b"# mine\r\n" in text
    assert text.count(b"\n") == text.count(b"\r\n")


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, dreambooth: Dreambooth) -> None:
    def unknown(*args: Any) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "DREAMBOOTH_HOME", "HF_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for find in (home_folder, cache_folder, hub_cache):
        with pytest.raises(UsageError, match="there is no home directory"):
            find()
    assert dreambooth("models").code == 0
    assert complete_project("") == []
    # one who has said where the projects lie, but nothing of models
    monkeypatch.setenv("DREAMBOOTH_HOME", "/data/shut")
    told = in_words(PermissionError(errno.EACCES, "Permission denied", "/data/shut/projects/dog"))
    assert isinstance(told, ProjectError)
    assert isinstance(in_words(PermissionError(errno.EACCES, "Permission denied", "/data/other")), DiskError)


def test_a_current_folder_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dreambooth: Dreambooth) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = dreambooth("generate", "--model-path", tmp_path, "--prompt", "a dog")
    assert (done.code, done.err) == (2, "Error: the current folder was deleted\n  go to another one: cd\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize(
    ("streams", "code", "told"),
    [(">/dev/full", 6, "stdout: No space left on device"), ("2>/dev/full", 0, ""), (">&- 2>&- <&-", 0, ""), ("1</dev/null", 6, "")],
)
def test_streams_that_can_not_be_written(streams: str, code: int, told: str) -> None:
    script = f"{sys.executable} -m dreambooth_cli models --json {streams}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("columns", ["0", "", "1"])
def test_a_width_that_is_none(columns: str) -> None:
    done = in_process("models", COLUMNS=columns)
    assert (done.code, "sd15" in re.sub(r"\s", "", done.out)) == (0, True)


@posix
def test_signals_that_the_parent_ignores_stay_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        stopping.install()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGINT)
        assert not stopping.requested()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)  # the kernel's and the shell's: nobody is in a hurry
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(HangUp, match="by SIGHUP"):
            stopping.check()
        assert not stopping.is_at_once()
        stopping.reset()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)  # as systemd sends them
        with pytest.raises(Terminated):
            stopping.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
