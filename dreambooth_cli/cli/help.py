"""Help at a glance: `--help` shows the flags that matter most, `--help-all` all of them, in panels of 80 columns, with the defaults for
the base model in question, and with examples that run as they are."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import Field
from pathlib import Path
from typing import Any

import typer
from rich.cells import cell_len
from rich.markup import escape
from typer import rich_utils
from typer.core import TyperCommand, TyperGroup

from ..settings import SELDOM, annotation, choices_of, scalar_of
from .defaults import Declared, defaults_here, in_words

WIDEST = 28  # characters of a flag, in the panels that share one column width
METAVAR_WIDTH = 16  # characters; longer lists of choices go into the help text
OTHERS = "Other options"
EXAMPLES = "\n\nExamples:\n"  # what introduces them in a command's docstring
ALL, TYPED = "dreambooth.all", "dreambooth.typed"  # in a context's meta


class PlainHelp:
    """Replaces Typer's own help."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """As Typer does, but what was typed is kept: the help reads from it which base is meant."""
        ctx.meta[TYPED] = list(args)
        above: Any = super()
        return above.parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help from copies of the parameters, reworded for reading."""
        command: Any = copy(self)
        whole = bool(ctx.meta.get(ALL))
        declared: Declared = getattr(command.callback, "settings", {})
        defaults, whose = defaults_here(declared, typed_in(command, ctx))
        params = command.get_params(ctx)
        shown = [_for_reading(param, declared, defaults, whole=whole) for param in params if whole or panel_of(param) not in SELDOM]
        shown.sort(key=lambda param: (panel_of(param) in SELDOM) + 2 * (panel_of(param) == OTHERS))  # most important first
        align(shown)
        command.get_params = lambda ctx: shown
        command.help, _, examples = (command.help or "").partition(EXAMPLES)
        rest = "" if len(shown) == len(params) else f"All flags: {ctx.command_path} --help-all"
        ends = ["Examples:" if examples else "", examples.rstrip(), whose, rest]
        # begins with a line break, or Typer would strip the indent of all lines but the first
        command.epilog = escape("\n" + "\n".join(filter(None, ends))) if any(ends) else None
        rich_utils.STYLE_OPTIONS_TABLE_PADDING = (0, 0)  # no room for empty columns
        above: Any = super(PlainHelp, command)
        above.format_help(ctx, formatter)


class Command(PlainHelp, TyperCommand):
    """A command."""


class Group(PlainHelp, TyperGroup):
    """A command that has subcommands."""


def show_all(ctx: typer.Context, wanted: bool) -> None:
    """Print the help with every flag, and stop."""
    if wanted and not ctx.resilient_parsing:
        ctx.meta[ALL] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


def examples_of(command: Any) -> list[str]:
    """The lines that a command's help shows as examples."""
    lines = (command.help or "").partition(EXAMPLES)[2].splitlines()
    return [line.strip() for line in lines if line.strip()]


def typed_in(command: Any, ctx: Any) -> Mapping[str, Any]:
    """What was typed besides `--help`, as far as it can be parsed."""
    with suppress(typer.TyperException):
        values: Mapping[str, Any] = command.make_parser(ctx).parse_args(list(ctx.meta.get(TYPED, [])))[0]
        return values
    return {}


def panel_of(param: Any) -> str:
    """The help panel that a parameter belongs to; "" for an argument."""
    return "" if param.param_type_name == "argument" else param.rich_help_panel or OTHERS


def _for_reading(param: Any, declared: Declared, defaults: Mapping[str, str], *, whole: bool) -> Any:
    """A copy of a parameter as the help shows it: what it takes beside its name, its other spellings only in the whole help."""
    param = copy(param)
    param.display_type_rich = lambda ctx: None
    if param.param_type_name == "argument":
        usage = param.get_usage_pieces(None)
        param.get_usage_pieces = lambda ctx: usage
        param.metavar = f"{param.metavar}  "
        return param
    if param.name in declared:
        owner, item = declared[param.name]
        param.help = help_of(item, annotation(owner, param.name), defaults.get(param.name, ""), whole=whole)
    long = [name for name in param.opts if name.startswith("--")]
    short = [name for name in param.opts if not name.startswith("--")]
    has_no = f"--no-{long[0][2:]}" in param.secondary_opts
    first = f"--[no-]{long[0][2:]}" if has_no else ", ".join([*short, long[0], *param.secondary_opts])
    taken = "" if param.is_flag else param.metavar or ""
    param.opts = [f"{first} {taken}".rstrip(), *(long[1:] if whole else [])]
    param.secondary_opts = []
    param.rich_help_panel = panel_of(param) if declared else None
    return param


def align(params: Sequence[Any]) -> None:
    """Pad the flags of all panels to one width, but not beyond WIDEST; a panel with longer flags gets its own width."""
    flags = [param for param in params if param.param_type_name != "argument"]
    widths: dict[str, int] = {}
    for param in flags:
        widths[panel_of(param)] = max(widths.get(panel_of(param), 0), *map(cell_len, param.opts))
    common = max((width for width in widths.values() if width <= WIDEST), default=0)
    for param in flags:
        wide = max(common, widths[panel_of(param)]) + 2
        param.opts = ["\n".join(name.ljust(wide) for name in param.opts)]


def metavar_of(expected: Any) -> str:
    """What a flag takes, for its help: `float | auto` -> `<num|auto>`."""
    words: dict[type | None, str] = {int: "int", float: "num", str: "text", Path: "path"}
    taken = "|".join(filter(None, [words.get(scalar_of(expected)), *choices_of(expected)]))
    return f"<{taken}>" if len(taken) <= METAVAR_WIDTH else "<name>"


def help_of(item: Field[Any], expected: Any, here: str, *, whole: bool) -> str:
    """A setting's help with its default, escaped for rich so that `[identifier]` comes through.

    `here` is the default in words where the base in question has its own. Unless `whole`, the text ends at its first semicolon.
    """
    words = item.metadata["help"] if whole else f"{item.metadata['help'].partition(';')[0].rstrip('.')}."
    if metavar_of(expected) == "<name>":
        words += f" One of {', '.join(choices_of(expected))}."
    default = here or in_words(item.default)
    return escape(words) + (f" [dim]{escape(f'[default: {default}]')}[/dim]" if default else "")
