"""Windows' rules for files, as a plugin of pytest: `python -m pytest -p tests.windows.rules tests/test_disk.py ...`

Simulated for this process's own calls, and only below TEMP: no links; no handle on a folder, so no fsync of one; no renaming, replacing or
removing what is open or mapped; no renaming onto what exists; reserved and impossible names; names that differ only in case are
one name; no paths of 260 characters or more; text files in cp1252 with CRLF unless stated otherwise; no SIGHUP.
"""

import builtins
import errno
import io
import os
import pathlib
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

LONGEST = 259  # characters of a path
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
IMPOSSIBLE = re.compile(r'[<>:"|?*\\\x00-\x1f]|[. ]$')
TESTS = str(Path(__file__).parents[1])
TEMP = os.path.realpath(tempfile.gettempdir())
MAPPED = re.compile(rf" ({re.escape(TEMP)}/.*)$", re.MULTILINE)  # of the thousands of lines that torch's libraries take, those below TEMP

NAMES = ("open", "stat", "lstat", "mkdir", "rmdir", "unlink", "rename", "listdir", "scandir")
real = {name: getattr(os, name) for name in NAMES}
real_open = io.open


def found(path: Any) -> Any:
    """The path as it is on disk, whatever the case that is asked for. Raises OSError if Windows allows no such path."""
    if not isinstance(path, str | bytes | os.PathLike):
        return path  # a descriptor
    text = os.path.abspath(os.fsdecode(path))
    if not text.startswith(TEMP + os.sep):
        return path
    if len(text) > LONGEST:
        skip_if_a_test_asks("a path that Windows does not have")
        raise FileNotFoundError(errno.ENOENT, "the path is too long", text)
    if _is_there(text):
        return text
    place = TEMP
    for name in text[len(TEMP) + 1 :].split(os.sep):
        place = os.path.join(place, _as_on_disk(place, name))
    return place


def _is_there(path: str) -> bool:
    try:
        real["lstat"](path)
    except OSError:
        return False
    return True


def _as_on_disk(folder: str, name: str) -> str:
    if _is_there(os.path.join(folder, name)):
        return name
    try:
        names = real["listdir"](folder)
    except OSError:
        return name
    return next((there for there in names if there.casefold() == name.casefold()), name)


def check_name(path: str) -> None:
    """Raise OSError if Windows does not allow this name."""
    name = os.path.basename(path)
    if RESERVED.fullmatch(name) or IMPOSSIBLE.search(name):
        skip_if_a_test_asks("a name that Windows does not have")
        raise OSError(errno.EINVAL, "the file name is not possible", path)


def skip_if_a_test_asks(what: str) -> None:
    """Skip a test whose own set-up needs what is impossible on Windows; the program's own attempt goes on."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in (__file__, pathlib.__file__, shutil.__file__):
        frame = frame.f_back
    if frame.f_code.co_filename.startswith(TESTS):
        pytest.skip(what)


def check_closed(path: str) -> None:
    """Raise PermissionError if a file, or one below a folder, is open or mapped."""
    if os.path.basename(path).startswith(".filelock-probe"):
        return  # filelock's own, of another class on Windows
    for opened in in_use():
        if opened == path or opened.startswith(path + os.sep):
            raise PermissionError(errno.EACCES, "the file is in use", path)


def in_use() -> Iterator[str]:
    """The files that this process has open or mapped."""
    for descriptor in real["listdir"]("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
    with real_open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        yield from set(MAPPED.findall(maps.read()))


def is_ours(path: Any) -> bool:
    """Whether the rules apply to a path."""
    return isinstance(path, str) and path.startswith(TEMP + os.sep)


def look(name: str) -> Callable[..., Any]:
    """A call that only looks at a path."""

    def looked(path: Any = ".", *args: Any, **options: Any) -> Any:
        return real[name](path if options.get("dir_fd") is not None else found(path), *args, **options)

    return looked


def opened(path: Any, flags: int, *args: Any, **options: Any) -> int:
    """`os.open`: no folders, and no impossible names."""
    path = path if options.get("dir_fd") is not None else found(path)
    if is_ours(path):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "a folder can't be opened", path)
        if flags & os.O_CREAT:
            check_name(path)
    return int(real["open"](path, flags, *args, **options))


def open_file(
    file: Any,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    **more: Any,
) -> Any:
    """`open`: text in cp1252 with CRLF, unless stated otherwise."""
    path = found(file)
    if is_ours(path):
        if not set(mode).isdisjoint("wax"):
            check_name(path)
        if "b" not in mode:
            encoding = "cp1252" if encoding in (None, "locale") else encoding
            newline = "\r\n" if newline is None and not set(mode).isdisjoint("wax+") else newline
    return real_open(path, mode, buffering, encoding, errors, newline, **more)


def made(path: Any, *args: Any, **options: Any) -> None:
    """`os.mkdir`."""
    path = found(path)
    if is_ours(path):
        check_name(path)
    real["mkdir"](path, *args, **options)


def removed(name: str) -> Callable[..., None]:
    """`os.unlink` and `os.rmdir`."""

    def remove(path: Any, *args: Any, **options: Any) -> None:
        if options.get("dir_fd") is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{options.pop('dir_fd')}"), os.fsdecode(path))
        path = found(path)
        if is_ours(path) and name == "unlink":
            check_closed(path)
        real[name](path, *args, **options)

    return remove


def moved(*, over: bool) -> Callable[..., None]:
    """`os.rename`, and `os.replace`, which goes over a file."""

    def move(source: Any, target: Any, *args: Any, **options: Any) -> None:
        source, target = found(source), found(target)
        if is_ours(source) and is_ours(target):
            check_name(target)
            check_closed(source)
            same = source.casefold() == target.casefold()
            if os.path.lexists(target) and not same:
                check_closed(target)
                if not over:
                    raise FileExistsError(errno.EEXIST, "there is a file of that name already", target)
                if os.path.isdir(target):
                    raise PermissionError(errno.EACCES, "a folder can't be replaced", target)
        real["rename"](source, target, *args, **options)

    return move


def no_link(source: Any, target: Any, *args: Any, **options: Any) -> None:
    """`os.link` and `os.symlink`, for a user without the right to."""
    skip_if_a_test_asks("a link")
    raise OSError(errno.EINVAL, "a required privilege is not held", os.fsdecode(source), None, os.fsdecode(target))


@pytest.fixture(autouse=True)
def windows_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules apply while a test runs."""
    for name in ("stat", "lstat", "listdir", "scandir"):
        monkeypatch.setattr(os, name, look(name))
    for name in ("link", "symlink"):
        monkeypatch.setattr(os, name, no_link)
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "mkdir", made)
    monkeypatch.setattr(os, "rmdir", removed("rmdir"))
    for name in ("unlink", "remove"):
        monkeypatch.setattr(os, name, removed("unlink"))
    monkeypatch.setattr(os, "rename", moved(over=False))
    monkeypatch.setattr(os, "replace", moved(over=True))
    monkeypatch.setattr(io, "open", open_file)
    monkeypatch.setattr(builtins, "open", open_file)
    monkeypatch.setattr(shutil, "_use_fd_functions", False)
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
