"""A file's digest is remembered, and believed only as far as there is reason to."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from dreambooth_cli import digests
from dreambooth_cli.digests import remembered_digest
from dreambooth_cli.paths import cache_folder


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is ten seconds old by this test's clock."""
    now = time.time_ns
    monkeypatch.setattr(digests.time, "time_ns", lambda: now() + 10 * 10**9)
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 1000)
    return path


def entries() -> list[Path]:
    """What is remembered."""
    return sorted((cache_folder() / "digests").glob("*"))


def true_digest(path: Path) -> str:
    """The sha256, computed now."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert remembered_digest(file) == true_digest(file)
    (entry,) = entries()
    monkeypatch.setattr(digests.hashlib, "file_digest", None)
    assert remembered_digest(file) == true_digest(file)
    assert entries() == [entry]


def overwrite(path: Path) -> None:
    path.write_bytes(b"b" * 1000)


def replace(path: Path) -> None:
    path.with_suffix(".new").write_bytes(b"b" * 1000)
    path.with_suffix(".new").replace(path)


def flip_one_byte(path: Path) -> None:
    with path.open("r+b") as opened:
        opened.seek(500)
        opened.write(b"b")


def swap(path: Path) -> None:
    """Put another file of the same age in its place, by renaming, not writing."""
    path.unlink()
    path.with_name("twin").rename(path)


@pytest.mark.parametrize("change", [overwrite, replace, flip_one_byte, swap])
def test_other_bytes_of_the_same_size_and_time_are_seen(change, file: Path) -> None:
    file.with_name("twin").write_bytes(b"b" * 1000)
    before, state = remembered_digest(file), file.stat()
    change(file)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    assert remembered_digest(file) == true_digest(file) != before


@pytest.mark.parametrize(
    "held",
    [b"", b"\n", b"0" * 64, b"0" * 64 + b"\n", b"0" * 64 + b" " + b"0" * 64 + b"\n", b"\xff" * 300],
    ids=["empty", "a line", "a digest alone", "as 0.1 wrote it", "a false seal", "bytes"],
)
def test_an_entry_that_proves_nothing_is_not_believed_and_written_anew(held: bytes, file: Path) -> None:
    remembered_digest(file)
    (entry,) = entries()
    good = entry.read_bytes()
    entry.write_bytes(held)
    assert remembered_digest(file) == true_digest(file)
    assert entry.read_bytes() == good


def test_the_entry_of_another_file_is_not_believed(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"c" * 1000)
    remembered_digest(file)
    (first,) = entries()
    remembered_digest(other)
    (second,) = {*entries()} - {first}
    second.write_bytes(first.read_bytes())
    assert remembered_digest(other) == true_digest(other)


def test_what_changed_a_moment_ago_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "fresh"
    path.write_bytes(b"a")
    assert remembered_digest(path) == true_digest(path)
    assert entries() == []


def test_a_cache_that_is_no_folder_costs_time_alone(file: Path) -> None:
    cache_folder().parent.mkdir(parents=True)
    cache_folder().write_text("a file")
    assert remembered_digest(file) == true_digest(file)
