"""Help that is read at a glance: `--help` shows the flags that matter, `--help-all` all of them, in panels of 80 columns, with the
defaults of the base model that is meant, and with examples that can be typed."""

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

WIDEST = 28  # characters of a flag in the panels that stand in line
METAVAR_WIDTH = 16  # more choices than fit in this are told in the help
OTHERS = "Other options"
EXAMPLES = "\n\nExamples:\n"  # where they begin in a command's docstring
ALL, TYPED = "dreambooth.all", "dreambooth.typed"  # in a context's meta


class PlainHelp:
    """What a command's help has in place of Typer's own."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """As Typer does; what was typed is kept, since the help looks there for the base that is meant."""
        ctx.meta[TYPED] = list(args)
        above: Any = super()
        return above.parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, from copies of the parameters that are written for reading."""
        command: Any = copy(self)
        whole = bool(ctx.meta.get(ALL))
        declared: Declared = getattr(command.callback, "settings", {})
        defaults, whose = defaults_here(declared, typed_in(command, ctx))
        params = command.get_params(ctx)
        shown = [_for_reading(param, declared, defaults, whole=whole) for param in params if whole or panel_of(param) not in SELDOM]
        shown.sort(key=lambda param: (panel_of(param) in SELDOM) + 2 * (panel_of(param) == OTHERS))  # first what matters
        align(shown)
        command.get_params = lambda ctx: shown
        command.help, _, examples = (command.help or "").partition(EXAMPLES)
        rest = "" if len(shown) == len(params) else f"All flags: {ctx.command_path} --help-all"
        ends = ["Examples:" if examples else "", examples.rstrip(), whose, rest]
        # what is not indented is not in the first line alone: Typer would take the others' indent away
        command.epilog = escape("\n" + "\n".join(filter(None, ends))) if any(ends) else None
        rich_utils.STYLE_OPTIONS_TABLE_PADDING = (0, 0)  # room between columns that have nothing in them
        above: Any = super(PlainHelp, command)
        above.format_help(ctx, formatter)


class Command(PlainHelp, TyperCommand):
    """A command."""


class Group(PlainHelp, TyperGroup):
    """A command with commands of its own."""


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
    """What was typed beside `--help`, as far as it can be read."""
    with suppress(typer.TyperException):
        values: Mapping[str, Any] = command.make_parser(ctx).parse_args(list(ctx.meta.get(TYPED, [])))[0]
        return values
    return {}


def panel_of(param: Any) -> str:
    """The panel of the help that a parameter stands in; "" for an argument."""
    return "" if param.param_type_name == "argument" else param.rich_help_panel or OTHERS


def _for_reading(param: Any, declared: Declared, defaults: Mapping[str, str], *, whole: bool) -> Any:
    """A parameter as it is shown: what a flag takes beside its name; its further spellings where all is shown."""
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
    """Give the flags of all panels one width, as far as it leaves room for words; in a panel that needs more, its own."""
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
    """A setting's help with its default, escaped for rich: `[identifier]` must come through.

    `here` is the default on the base that is meant, in words, where it is not as declared. The whole text, or what stands before its
    first semicolon.
    """
    words = item.metadata["help"] if whole else f"{item.metadata['help'].partition(';')[0].rstrip('.')}."
    if metavar_of(expected) == "<name>":
        words += f" One of {', '.join(choices_of(expected))}."
    default = here or in_words(item.default)
    return escape(words) + (f" [dim]{escape(f'[default: {default}]')}[/dim]" if default else "")
