"""The two streams: results on stdout, progress and messages on stderr."""

import errno
import io
import os
import re
import select
import sys
from contextlib import suppress
from typing import Any

from rich.cells import cell_len
from rich.console import Console

# scripts whose characters are two columns wide and have no spaces between words
WIDE = "[\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]"
CLOSING = "\uff0c\u3002\u3001\uff01\uff1f\uff1a\uff1b\u300d\u300f\uff09\u300b\"'.,;:)\\]"  # never begins a line
# what a terminal obeys: C0, DEL, C1, and the marks that reverse the direction of text
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def results() -> Console:
    """The console for results, on stdout."""
    return Console(highlight=False, markup=False, emoji=False, no_color=_plain() or None)


def messages() -> Console:
    """The console for progress and messages, on stderr."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, no_color=_plain() or None)


def _plain() -> bool:
    return bool(os.environ.get("NO_COLOR") or os.environ.get("CI")) or os.environ.get("TERM") == "dumb"


def is_live(console: Console) -> bool:
    """Whether moving bars may be drawn: on a terminal, unless plain lines were asked for."""
    return console.is_terminal and not _plain()


def can_ask() -> bool:
    """Whether a question can be asked: both stdin and stdout are a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def visible(text: str, keep: str = "") -> str:
    """Text whose control characters are shown, not obeyed: `\\x1b` for an escape. Those in `keep` stay as they are."""
    return CONTROL.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode("ascii"), text
    )


def say(console: Console, line: str, style: str = "") -> None:
    """Print text as it is, without markup. On a terminal, lines are wrapped between words but never inside a path, so that it can be
    copied."""
    line = visible(line, keep="\n\t")
    text = "\n".join(between_words(part, console.width) for part in line.split("\n")) if console.is_terminal else line
    console.print(text, style=style or None, soft_wrap=True)


def between_words(line: str, width: int) -> str:
    """A line wrapped to at most `width` columns, keeping its indent: between words, in Chinese and the like between any characters."""
    if cell_len(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    lines, room = [indent], width
    for word, gap in _parts(line.strip()):
        if cell_len(lines[-1] + gap + word) <= room or lines[-1] == indent:
            lines[-1] += word if lines[-1] == indent else gap + word
        else:
            lines.append(indent + word)
    return "\n".join(lines)


def _parts(line: str) -> list[tuple[str, str]]:
    """The parts of a line that must stay whole, each with the gap before it: words and paths, and wide characters one by one, together
    with the closing punctuation after them."""
    parts = []
    for word in re.finditer(r"(\s*)(\S+)", line):
        is_path = "/" in word[2] or "\\" in word[2]
        first, *rest = [word[2]] if is_path else re.findall(rf"{WIDE}[{CLOSING}]*|(?:(?!{WIDE})\S)+", word[2])
        parts += [(first, word[1]), *((part, "") for part in rest)]
    return parts


class Outlet(io.FileIO):
    """The raw file under stdout or stderr. Once writing fails (the terminal is gone, a disk is full) it swallows everything, so that
    the work goes on; but when whoever reads stdout has gone, the program ends. `lost` is the first error."""

    def __init__(self, descriptor: int, *, ends_with_reader: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.ends_with_reader = ends_with_reader
        self.lost: OSError | None = None

    def write(self, data: Any) -> int:
        """Write what can be written. Returns the number of bytes the caller need not send again. Raises BrokenPipeError."""
        while self.lost is None:
            try:
                if (written := super().write(data)) is not None:
                    return written
                select.select([], [self], [])  # set to non-blocking by somebody else, and full: wait
            except OSError as error:
                if self.ends_with_reader and isinstance(error, BrokenPipeError):
                    raise
                self.lost = error
        return memoryview(data).nbytes


def harden_streams() -> None:
    """Make sure that every character can be written somehow, and that a closed stream swallows what it is sent."""
    if os.environ.get("COLUMNS", "").lstrip("0") in ("", *"123456789"):
        os.environ.pop("COLUMNS", None)  # in a width of one digit, Rich's tables have hardly a letter, and in none they are empty
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream: Any = getattr(sys, name)
        if stream is None:
            # also occupies the free descriptor, which the next opened file would get otherwise
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for the process's life
        elif mode == "w" and hasattr(stream, "reconfigure"):
            utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")
            if os.name != "nt":
                setattr(sys, name, _with_outlet(stream, ends_with_reader=name == "stdout"))


def _with_outlet(stream: io.TextIOWrapper, *, ends_with_reader: bool) -> io.TextIOWrapper:
    """The same stream on top of an Outlet."""
    outlet = Outlet(stream.fileno(), ends_with_reader=ends_with_reader)
    buffer: Any = outlet if stream.write_through else io.BufferedWriter(outlet)  # write-through: `python -u`
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def lost_results() -> OSError | None:
    """Why results did not reach stdout, or None if they did. A terminal that is gone does not count: nobody reads there."""
    buffer = getattr(sys.stdout, "buffer", None)
    outlet = getattr(buffer, "raw", buffer)
    lost = outlet.lost if isinstance(outlet, Outlet) else None
    return lost if lost is not None and lost.errno not in (errno.EIO, errno.ENXIO) else None


def close_quietly() -> None:
    """After the reader has gone: point stdout at /dev/null, so that Python's own last flush does not complain."""
    with suppress(OSError, ValueError):  # already closed: nothing to flush
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
