"""Writing that lasts, and checking for room beforehand."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dreambooth_cli.disk import (
    check_folder,
    check_space,
    clear_leftovers,
    copy_file,
    digests_of,
    make_folder,
    replace_folder,
    reserve,
    settle,
    temporary,
    write_whole,
)
from dreambooth_cli.errors import DiskError


def test_a_file_that_can_not_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "kept.txt"
    write_whole(path, b"first")
    with pytest.raises((IsADirectoryError, PermissionError)):
        write_whole(tmp_path, b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["kept.txt"]


def test_a_folder_takes_its_name_when_it_is_whole(tmp_path):
    part = tmp_path / "part"
    make_folder(part / "inner")
    (part / "inner" / "file").write_text("x")
    settle(part, tmp_path / "final")
    assert (tmp_path / "final" / "inner" / "file").read_text() == "x"
    assert not part.exists()


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file" / "inner")


@pytest.mark.parametrize("system", ["this one", "without the call", "refuses it"])
def test_room_is_taken_or_where_that_can_not_be_looked_for(system, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "not here")

    if system == "without the call":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    if system == "refuses it":
        monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    reserve(tmp_path / "little", 100_000)
    assert (tmp_path / "little").stat().st_size in ((0, 100_000) if system == "this one" else (0,))
    with pytest.raises(OSError, match=r"(?i)space") as caught:
        reserve(tmp_path / "much", 2**30 + shutil.disk_usage(tmp_path).free)
    assert caught.value.errno == errno.ENOSPC
    if (tmp_path / "much").exists():  # it never filled the disk, even for a moment
        assert (tmp_path / "much").stat().st_blocks == 0


def test_room_that_is_missing_is_said_to_the_byte(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space([(tmp_path, 1000)])
    with pytest.raises(DiskError) as caught:
        check_space([(tmp_path / "not" / "there", free), (tmp_path, 10**12)])
    assert caught.value.exit_code == 6
    missing = int(caught.value.message.split(": ")[1].split()[0].replace(",", ""))
    assert abs(missing - 10**12) < 10**9  # what else writes to this disk meanwhile
    assert "make room" in caught.value.hint


# ---- what is ours and what is not

HEX = "0123456789abcdef" * 2
FOREIGN = [
    ".out2.part",
    ".video.999999.part",
    "prepared.old",
    ".dreambooth-notes",
    f".dreambooth-{HEX}.txt",
    f".dreambooth-{HEX[1:]}",
    f".dreambooth-{HEX.upper()}",
    f"dreambooth-{HEX}",
    f".dreambooth-{HEX}.lock.bak",
    f".dreambooth-{HEX}.was-",
    f".making-{HEX}.999999",
]
KILLED = """
import os, signal, sys
from pathlib import Path
from dreambooth_cli.disk import temporary
with temporary(Path(sys.argv[1])) as file, temporary(Path(sys.argv[1])) as folder:
    file.write_text("half")
    (folder / "inner").mkdir(parents=True)
    print("written", flush=True)
    if sys.stdin.read() == "die":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["die", "go on"])
def test_what_a_process_writes_is_removed_when_it_is_gone_and_not_before(end, tmp_path):
    """The lock decides: a process number means nothing in another container."""
    for name in FOREIGN:
        (tmp_path / name).write_text("mine")
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        there = set(os.listdir(tmp_path))
        assert len(there) == len(FOREIGN) + 4
        clear_leftovers(tmp_path)
        assert set(os.listdir(tmp_path)) == there
        process.communicate(end)
    assert (len(os.listdir(tmp_path)) > len(FOREIGN)) is (end == "die")
    clear_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(FOREIGN)


@pytest.mark.parametrize("left", [[""], [".lock"], ["", ".lock"]])
def test_half_of_a_leftover_is_one(left, tmp_path):
    for ending in left:
        (tmp_path / f".dreambooth-{HEX}{ending}").write_text("")
    clear_leftovers(tmp_path)
    assert os.listdir(tmp_path) == []


def test_what_looked_whether_a_folder_can_be_made_leaves_nothing_when_it_is_killed(tmp_path):
    for ending in ("", ".lock"):
        (tmp_path / f".dreambooth-{HEX}{ending}").touch()
    check_folder(tmp_path / "not" / "there", "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fault", [errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EIO])
def test_where_there_are_no_locks_what_is_left_stays(fault, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(descriptor, operation):
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with temporary(tmp_path) as part:
        part.write_text("half")
        clear_leftovers(tmp_path)
        assert part.read_text() == "half"
    assert os.listdir(tmp_path) == []
    write_whole(tmp_path / "whole", b"x")
    assert os.listdir(tmp_path) == ["whole"]


def test_a_lock_that_can_not_be_removed_for_a_moment_goes_nowhere_with_its_folder(tmp_path, monkeypatch):
    unlink, refused = Path.unlink, []

    def refuse_once(self, missing_ok=False):
        if self.name.endswith(".lock") and self.parent.name == "inner" and not refused:
            refused.append(self.name)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse_once)
    for settled in (settle, replace_folder):
        refused.clear()
        with temporary(tmp_path) as part:
            make_folder(part / "inner")
            write_whole(part / "inner" / "weights", b"x")
            assert set(os.listdir(part / "inner")) == {"weights", *refused} != {"weights"}
            assert list(digests_of(part)) == ["inner/weights"]
            settled(part, tmp_path / "final")
        assert os.listdir(tmp_path / "final" / "inner") == ["weights"]
        assert os.listdir(tmp_path) == ["final"]


@pytest.mark.parametrize("has_new", [True, False])
def test_a_folder_moved_aside_is_put_back_where_its_place_is_free(has_new, tmp_path):
    (tmp_path / f".dreambooth-{HEX}.was-mine").mkdir()
    (tmp_path / f".dreambooth-{HEX}.was-mine" / "old").write_text("")
    (tmp_path / f".dreambooth-{HEX}.lock").write_text("")
    if has_new:
        (tmp_path / "mine").mkdir()
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == (["mine"] if has_new else ["mine", "old"])


def test_a_link_of_our_name_is_removed_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("mine")
    (tmp_path / f".dreambooth-{HEX}").symlink_to(tmp_path / "mine")
    clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine"]


@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_copy_shares_nothing(in_kernel, tmp_path, monkeypatch):
    if not in_kernel:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    (tmp_path / "a").write_bytes(bytes(range(256)) * 9000)
    copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == bytes(range(256)) * 9000
    with (tmp_path / "b").open("r+b") as file:
        file.write(b"changed")
    assert (tmp_path / "a").read_bytes() == bytes(range(256)) * 9000
    with pytest.raises(FileExistsError):
        copy_file(tmp_path / "a", tmp_path / "b")
