"""Each `--help` at 80 columns compared with its snapshot. `REGENERATE_SNAPSHOTS=1` rewrites them."""

import os
import shlex
from pathlib import Path

import pytest
import typer

from dreambooth_cli.cli.app import COMMANDS, app, load
from dreambooth_cli.cli.help import examples_of
from dreambooth_cli.config import write_config
from dreambooth_cli.paths import projects_folder

from .conftest import Dreambooth

SNAPSHOTS = Path(__file__).parent / "snapshots"
HELPS = [["--help"], *([name, flag] for name in COMMANDS for flag in ("--help", "--help-all"))]
HELPS += [["projects", name, "--help"] for name in ("list", "path", "remove")]
MOST_LINES = 60  # of `--help`


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_is_as_its_snapshot(words: list[str], dreambooth: Dreambooth) -> None:
    done = dreambooth(*words)
    assert done.code == 0
    assert done.err == ""
    shown = "".join(line.rstrip() + "\n" for line in done.out.splitlines())
    name = "-".join([*words[:-1], *(["all"] if words[-1] == "--help-all" else [])])
    snapshot = SNAPSHOTS / f"{name or 'dreambooth'}.txt"
    if os.environ.get("REGENERATE_SNAPSHOTS"):
        snapshot.write_text(shown, encoding="utf-8")
    assert shown == snapshot.read_text(encoding="utf-8")
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown, "a flag is cut short"
    if words[-1] == "--help":
        assert len(done.out.splitlines()) <= MOST_LINES, "put a flag into a panel of settings.SELDOM"


def test_all_flags_are_shown_by_help_all(dreambooth: Dreambooth) -> None:
    for name in COMMANDS:
        shown = dreambooth(name, "--help-all").out
        flags = [flag for param in load(name).params if param.param_type_name == "option" for flag in param.opts]
        assert [flag for flag in flags if flag not in shown and flag.replace("--", "--[no-]") not in shown] == []


def test_the_defaults_are_those_of_the_base_that_is_meant(dreambooth: Dreambooth) -> None:
    usual, pocket, sdxl = (plain(dreambooth("train", *words, "--help").out) for words in ([], ["--model", "pocket"], ["--model=sdxl"]))
    assert "How far a step moves the weights. [default: 2e-6 with the text encoder, else 5e-6; for LoRA 1e-4]" in usual
    assert "How far a step moves the weights. [default: 5e-4; for LoRA 2.5e-3]" in pocket
    assert "How far a step moves the weights. [default: 5e-6; for LoRA 1e-4]" in sdxl
    assert ["[default: 512]" in usual, "[default: 64]" in pocket, "[default: 1024]" in sdxl] == [True] * 3
    assert "are for the base model pocket" in pocket
    assert "How strictly the prompt is followed. [default: 7.5]" in plain(dreambooth("generate", "--help").out)


def test_the_defaults_are_those_of_the_project_that_is_meant(dreambooth: Dreambooth) -> None:
    (projects_folder() / "mug").mkdir(parents=True)
    write_config(projects_folder() / "mug" / "project.toml", {"subject": {"model": "pocket"}, "train": {"steps": 77}})
    for words in (["mug"], []):  # the only one
        shown = plain(dreambooth("train", *words, "--help").out)
        assert "[default: 77]" in shown
        assert "are for the project mug, on pocket" in shown
    assert "[default: 1000]" in plain(dreambooth("train", "--photos", "photos", "--help").out), "photos make a project of their own"
    assert "followed. [default: 5]" in plain(dreambooth("generate", "mug", "--help").out)
    assert dreambooth("train", "none", "--help").code == 0
    assert dreambooth("train", "--model", "no/such base", "--help").code == 0


def plain(shown: str) -> str:
    """Help as running text."""
    return " ".join(shown.replace("│", " ").split())


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_examples_can_be_typed(name: str) -> None:
    command = load(name) if name else typer.main.get_command(app)
    examples = examples_of(command)
    assert len(examples) == 3
    for example in examples:
        program, *words = shlex.split(example)
        assert program == "dreambooth"
        assert len(example) <= 77, "it is broken at 80 columns"
        typed = load(words[0])
        with typed.make_context(words[0], words[1:]) as ctx:
            if typed.name == "projects":
                word, found, rest = typed.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
                found.make_context(word, rest, parent=ctx)


def test_the_placeholder_comes_through_the_help_unharmed(dreambooth: Dreambooth) -> None:
    assert dreambooth("generate", "-h").out.count("[identifier]") == 6


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
