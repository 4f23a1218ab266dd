"""The tests of files again, under Windows' rules; and a test for each rule."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]
FILES = (
    "tests/windows/test_rules.py",
    "tests/test_disk.py",
    "tests/test_config.py",
    "tests/test_project.py",
    "tests/bases/test_base.py",
    "tests/photos/test_files.py",
    "tests/photos/test_sheet.py",
    "tests/workflows/test_initialise.py",
    "tests/workflows/test_prepare.py",
    "tests/workflows/test_pull.py",
    "tests/engine/training/test_checkpoint.py",
)
# what holds on POSIX alone, and why
NOT_THERE = {
    "test_a_photo_whose_name_has_all_the_bytes_that_a_name_can_have": "the path has more than 259 characters, which is told",
    "test_a_name_of_255_bytes": "the path has more than 259 characters, which is told",
}
# what is little about files and long under the rules
LONG = (
    "test_every_real_subject",
    "test_few_and_many_photos_are_warned_about",
    "test_several_at_a_time_make_what_one_alone_makes",
    "test_pull_in_a_process_of_its_own_is_silent_and_loads_no_torch",
    "test_what_changed_is_made_again",
    "test_a_damaged_report_asks_for_prep",
    "test_what_is_written_is_read_again",
    "test_counts_are_the_networks_own",
)
played = "tests.windows.rules" in sys.modules
under_rules = pytest.mark.skipif(not played, reason="the rules are played in a process of their own")


@pytest.mark.long
@pytest.mark.skipif(played or sys.platform != "linux", reason="plays another system on Linux")
def test_the_tests_of_files_pass_under_windows_rules() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.windows.rules", "-p", "no:cacheprovider", "-n", "0"]
    without = [f"--deselect={file}::{name}" for name in (*NOT_THERE, *LONG) for file in FILES]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, *without, *FILES], cwd=CHECKOUT, env=env, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout


@under_rules
@pytest.mark.parametrize("name", ["con", "NUL.txt", "lpt1", "a?", "a.", "a ", "a:b"])
def test_names_that_windows_does_not_have(tmp_path: Path, name: str) -> None:
    # a test that asks for one is skipped, the program gets the error
    with pytest.raises(pytest.skip.Exception):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(OSError, match="not possible"):
        exec(compile("mkdir()", "the program", "exec"), {"mkdir": (tmp_path / name).mkdir})


@under_rules
def test_what_is_open_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "open").write_bytes(b"old")
    (tmp_path / "new").write_bytes(b"new")
    with (tmp_path / "open").open("rb"):
        for act in (
            lambda: (tmp_path / "new").replace(tmp_path / "open"),
            lambda: (tmp_path / "open").unlink(),
            lambda: tmp_path.rename(tmp_path.with_name("elsewhere")),
        ):
            with pytest.raises(PermissionError):
                act()
    (tmp_path / "new").replace(tmp_path / "open")
    assert (tmp_path / "open").read_bytes() == b"new"


@under_rules
def test_nothing_is_renamed_onto_what_is_there(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"")
        (tmp_path / f"folder-{name}").mkdir()
    with pytest.raises(FileExistsError):
        (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(PermissionError):
        (tmp_path / "folder-a").replace(tmp_path / "folder-b")


@under_rules
def test_names_that_differ_in_case_are_one(tmp_path: Path) -> None:
    (tmp_path / "Dog").mkdir()
    assert (tmp_path / "dog").is_dir()
    with pytest.raises(FileExistsError):
        (tmp_path / "DOG").mkdir()


@under_rules
def test_text_is_cp1252_with_crlf_where_nothing_else_is_said(tmp_path: Path) -> None:
    with io.open(tmp_path / "text", "w") as file:  # noqa: UP020 - what pathlib calls
        file.write("ä\n")
    assert (tmp_path / "text").read_bytes() == b"\xe4\r\n"


@under_rules
def test_there_are_no_handles_of_folders_and_no_hang_up(tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        os.open(tmp_path, os.O_RDONLY)
    assert not hasattr(signal, "SIGHUP")
