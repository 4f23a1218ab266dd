"""The report of `doctor --try`, to paste into an issue: what machine this is and how the try went, without names or paths."""

import getpass
import os
import platform
import re
import socket
from collections.abc import Sequence
from contextlib import suppress

from . import __version__
from .checkup import Check
from .libraries import version_lines

# The others show paths or addresses, or whether there is a token.
TOLD = ("python", "torch", "gpu", "gpu memory", "memory", "bitsandbytes", "libraries", "faces")
PATH = re.compile(r"(?<![\w:/.])(?:~|[A-Za-z]:)?[\\/](?:[^\s'\"\\/:,;]+[\\/])*[^\s'\"\\/:,;]*")


def report_text(checks: Sequence[Check], tried: Sequence[tuple[str, str, str]], figures: Sequence[tuple[str, str]]) -> str:
    """The report in Markdown. `tried`: for each part its name, how it went ("passed", "failed", "not tried") and its message; `figures`:
    a name and a value in words each."""
    lines = [f"# dreambooth {__version__}: doctor --try", ""]
    lines += [f"- {check.name}: {check.status}, {check.message}" for check in checks if check.name in TOLD]
    lines += ["", "| part | | |", "| --- | --- | --- |", *(f"| {' | '.join(part)} |" for part in tried)]
    lines += ["", "| figure | |", "| --- | --- |", *(f"| {name} | {words} |" for name, words in figures)]
    lines += ["", ", ".join(version_lines()), f"{platform.system()} {platform.release()}, {os.cpu_count()} processor cores", ""]
    return without_names("\n".join(lines))


def without_names(text: str) -> str:
    """The same text without paths and without the names of this user and this machine."""
    text = PATH.sub("PATH", text)
    names = [socket.gethostname(), platform.node()]
    with suppress(Exception):  # a user whom the system does not know
        names.append(getpass.getuser())
    for name in filter(lambda name: len(name) > 2, names):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "NAME", text)
    return text
