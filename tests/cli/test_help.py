"""Each `--help` at 80 columns against its snapshot. `REGENERATE_SNAPSHOTS=1` writes them anew."""

import os
from pathlib import Path

import pytest

from dreambooth_cli.cli.app import COMMANDS, load

from .conftest import Dreambooth

SNAPSHOTS = Path(__file__).parent / "snapshots"
HELPS = [[], *([name] for name in COMMANDS), *(["projects", name] for name in ("list", "path", "remove"))]


@pytest.mark.parametrize("words", HELPS, ids=lambda words: " ".join(words) or "dreambooth")
def test_help_is_as_its_snapshot(words: list[str], dreambooth: Dreambooth) -> None:
    done = dreambooth(*words, "--help")
    assert done.code == 0
    assert done.err == ""
    shown = "".join(line.rstrip() + "\n" for line in done.out.splitlines())
    snapshot = SNAPSHOTS / f"{'-'.join(words) or 'dreambooth'}.txt"
    if os.environ.get("REGENERATE_SNAPSHOTS"):
        snapshot.write_text(shown, encoding="utf-8")
    assert shown == snapshot.read_text(encoding="utf-8")
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown, "a flag is cut short"


def test_the_placeholder_comes_through_the_help_unharmed(dreambooth: Dreambooth) -> None:
    done = dreambooth("generate", "-h")
    assert done.out.count("[identifier]") == 4


@pytest.mark.parametrize("name", COMMANDS)
def test_the_listing_says_what_the_command_itself_says(name: str) -> None:
    assert load(name).name == name
    assert load(name).help


def test_without_arguments_the_help_is_shown(dreambooth: Dreambooth) -> None:
    assert dreambooth() == dreambooth("--help")
    assert dreambooth().code == 0


def test_version(dreambooth: Dreambooth) -> None:
    from dreambooth_cli import __version__

    assert dreambooth("--version").out == f"dreambooth {__version__}\n"
