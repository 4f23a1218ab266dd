"""Writing that lasts, and room that is looked for beforehand."""

import os
import shutil

import pytest

from dreambooth_cli.disk import check_space, make_folder, settle, write_whole
from dreambooth_cli.errors import DiskError


def test_a_file_that_can_not_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "kept.txt"
    write_whole(path, b"first")
    with pytest.raises(IsADirectoryError):
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


def test_room_that_is_missing_is_said_to_the_byte(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space([(tmp_path, 1000)])
    with pytest.raises(DiskError) as caught:
        check_space([(tmp_path / "not" / "there", free), (tmp_path, 10**12)])
    assert caught.value.exit_code == 6
    missing = int(caught.value.message.split(": ")[1].split()[0].replace(",", ""))
    assert abs(missing - 10**12) < 10**9  # what else writes to this disk meanwhile
    assert "make room" in caught.value.hint
