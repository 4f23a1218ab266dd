"""The `dreambooth` command: its subcommands, each loaded when it is called, and `main`, where errors become words and exit codes."""

import errno
import os
import re
import sys
from contextlib import suppress
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .. import __version__, stopping
from ..errors import DiskError, DreamboothError, Interrupted, ModelUnavailable, ProjectError, UsageError
from ..spellings import word_here
from .help import Command, Group

# name -> what it does, in one line. Each is a function of that name in the module of that name.
COMMANDS = {
    "init": "Make a project, by a guided interview or from flags.",
    "prep": "Check the photos, turn them upright, crop and resize them.",
    "train": "Fine-tune a base model on the photos; run it again to continue.",
    "generate": "Draw pictures with a fine-tuned model.",
    "export": "Write a model for ComfyUI, A1111, diffusers and others, and check it.",
    "push": "Upload a model to a repository of yours on the hub.",
    "demo": "See the whole story in a few minutes: no GPU, no model to download.",
    "models": "List the base models and which fit this GPU; fetch one.",
    "projects": "List the projects, show one's runs, find one on disk, remove one.",
    "doctor": "Find what on this machine would stop a run, and how to fix it.",
}
FOLDER_FLAGS = ("--photos", "--instance-data-dir", "--class-data-dir")
PATH_FLAGS = (*FOLDER_FLAGS, "--output-dir", "--model-path", "--output", "-o")
BROKEN_PIPE = 141  # the exit code of a program that SIGPIPE ended


def dashes(token: str) -> str:
    """`--num_images` and `--num-images` are one flag."""
    return token.replace("_", "-")


CONTEXT = {"help_option_names": ["-h", "--help"], "token_normalize_func": dashes}


class LazyGroup(Group):
    """The subcommands by name and summary; each is loaded only when it is called, so that `--help` stays quick."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=summary) for name, summary in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, in full."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, load(name) if name is not None and found is not None else found, rest


def load(name: str) -> Any:
    """A command from its module: a function, or a Typer app with subcommands."""
    found = getattr(import_module(f"{__package__}.{name}"), name)
    if not isinstance(found, typer.Typer):
        app = typer.Typer(add_completion=False, rich_markup_mode="rich", context_settings=CONTEXT)
        app.command(name, cls=Command, context_settings=CONTEXT)(found)
        found = app
    command = typer.main.get_command(found)
    command.name = name
    return command


app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode="rich",
    context_settings=CONTEXT,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


def show_version(ctx: typer.Context, wanted: bool) -> None:
    """Print the version, and with --verbose those of the libraries, and stop."""
    if not wanted:
        return
    typer.echo(f"dreambooth {__version__}")
    if ctx.params.get("verbose"):
        from ..libraries import untried_words, version_lines
        from .console import messages, say

        typer.echo("\n".join(version_lines()))
        if words := untried_words():
            say(messages(), f"warning: {words}", "yellow")
    raise typer.Exit


@app.callback()
def dreambooth(
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=show_version)] = False,
    # eager, so that `show_version` knows it in whatever order the flags come
    verbose: Annotated[
        bool, typer.Option("--verbose", help="With --version: show the libraries' versions too.", is_eager=True)
    ] = False,
) -> None:
    """Teach a text-to-image model your dog, mug, toy or face, from 3 to 5 photos.

    In this order: init, prep, train, generate. Help for each: dreambooth train --help

    Examples:
      dreambooth demo
      dreambooth init
      dreambooth train --photos ./instance_images --class-prompt "a dog"
    """
    if verbose:
        raise UsageError("--verbose goes with --version", "see dreambooth --help")


def main() -> None:
    """Run the command line and leave with its exit code."""
    from .console import harden_streams

    harden_streams()
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command line and return its exit code; the only place where errors become words."""
    from .lines import expect

    plain = [dashes(word) for word in args[: args.index("--") if "--" in args else len(args)]]
    as_json, debug = "--json" in plain, "--debug" in plain
    expect(plain, json=as_json)
    try:
        check_not_expanded(args)
        check_not_empty(args)
        code = typer.main.get_command(app).main(args=args or ["--help"], prog_name="dreambooth", standalone_mode=False)
        if code == Interrupted.exit_code:  # Typer turns a KeyboardInterrupt into this
            raise stopped_at_once()
        sys.stdout.flush()
        check_results()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        return leave_broken_pipe()
    except SystemExit as stop:
        # Typer exits like this when whoever reads its output goes away
        return leave_broken_pipe() if isinstance(stop.__context__, BrokenPipeError) else int(stop.code or 0)
    except Exception as error:
        try:
            return tell(stopped_at_once() if stopping.is_at_once() else error, as_json=as_json, debug=debug)
        except BrokenPipeError:
            return leave_broken_pipe()


def check_results() -> None:
    """Raises DiskError if results were printed that stdout could not take."""
    from .console import lost_results

    lost = lost_results()
    if lost is not None:
        raise DiskError(f"the work is done, but its output is lost: stdout: {lost.strerror}", "make room, or send the output elsewhere")


def stopped_at_once() -> Interrupted:
    """The error that stands for a second signal."""
    return Interrupted("stopped at once", "what had been saved is kept")


def leave_broken_pipe() -> int:
    """Whoever read stdout is gone: end quietly."""
    from .console import close_quietly

    close_quietly()
    return BROKEN_PIPE


def tell(error: Exception, *, as_json: bool, debug: bool) -> int:
    """Say what went wrong, as a JSON line on stdout, or in words on stderr, which is also used if stdout is lost. Returns the exit code."""
    failure = in_words(error)
    is_bug = failure is None
    shown = failure or DreamboothError(
        f"this is a bug in dreambooth: {type(error).__name__}: {error}", "please report it with the lines above"
    )
    from .console import lost_results, messages, say, visible

    if is_bug or debug:
        import traceback

        # a traceback may quote text from anywhere: a hub's answer, a file's name
        print(visible("".join(traceback.format_exception(error)), keep="\n\t"), end="", file=sys.stderr)
    if as_json and lost_results() is None:
        from .lines import print_line

        kind = "Bug" if is_bug else type(shown).__name__
        line = {
            "event": "error",
            "kind": kind,
            "message": shown.message,
            "hint": shown.hint,
            "exit_code": shown.exit_code,
        }
        print_line(line)
    else:
        console = messages()
        stopped = isinstance(shown, Interrupted)
        said = f"Error: {shown.message}" if not stopped else stopped_words(shown.message)
        say(console, said, "" if stopped else "red")
        if shown.hint:
            say(console, f"  {shown.hint}")
    return shown.exit_code


def stopped_words(message: str) -> str:
    """`Stopped by Ctrl-C; ...`, `Stopped: nothing was made`; the word is not repeated before a message that begins with it."""
    if message.startswith("stopped"):
        return f"S{message[1:]}"
    return f"Stopped {message}" if message.startswith("by ") else f"Stopped: {message}"


def in_words(error: Exception) -> DreamboothError | None:
    """Our own errors as they are; those of Typer, the disk and clashing libraries turned into ours; None for a bug."""
    from ..libraries import refusal_of

    match error:
        case DreamboothError():
            return error
        case typer.TyperException():
            return usage_error(error)
        case typer.Abort():
            return Interrupted("stopped without an answer")
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return DiskError(
                f"the disk is full: {error.filename or error.strerror}", "make room, then run the same command again"
            )
        case OSError():
            return system_error(error)
        case MemoryError():
            return DreamboothError(
                "the machine has run out of memory", "close other programs, or choose a smaller base model"
            )
    return refusal_of(error)


# These are about the disk, even where the file belongs to a project or a model.
OF_THE_DISK = {errno.EIO, errno.EROFS, errno.EFBIG, errno.ESTALE, errno.EMFILE, errno.ENFILE}


def system_error(error: OSError) -> DreamboothError:
    """An OSError that nothing closer to it has explained, in words: about a project's file, a model's, or any other."""
    from ..bases.cache import hub_cache
    from ..disk import ADVICE, ANYWHERE, file_of, reason_of
    from ..paths import projects_folder

    file = file_of(error)
    if file is None and error.errno == errno.ENOENT and not _has_current_folder():
        return UsageError("the current folder was deleted", "go to another one: cd")
    message = f"{file or 'the system refused'}: {reason_of(error)}"
    hint = ADVICE.get(error.errno or 0, "check that it exists and that you may read and write it")
    if (kind := ANYWHERE.get(error.errno or 0)) is not None:
        return kind(message, hint)
    if file is None or error.errno in OF_THE_DISK:
        return DiskError(message, hint)
    for find, kind in ((projects_folder, ProjectError), (hub_cache, ModelUnavailable)):
        with suppress(UsageError):  # a user without a home, who has named one of the two
            if Path(file).is_relative_to(find()):
                return kind(message, hint)
    return DiskError(message, hint)


def _has_current_folder() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def usage_error(error: typer.TyperException) -> DreamboothError:
    """What Typer says about wrong usage, as an error of ours that points to the help."""
    ctx, words = getattr(error, "ctx", None), in_plain_words(error.format_message())
    help_ = f"see {ctx.command_path} --help" if ctx else "see dreambooth --help"
    if here := word_here(option := getattr(error, "option_name", None) or ""):
        flag, known = here.split()[0].rstrip(","), [name for param in ctx.command.params for name in param.opts] if ctx else []
        where = "" if not flag.startswith("--") or flag in known else ", a flag of dreambooth train or generate"
        return UsageError(f"there is no {option}; here that is {here}{where}", help_)
    if words.startswith("Got unexpected extra argument"):
        return UsageError(words, f'put quotes around text with spaces: --class-prompt "a dog", --prompt "a [identifier] dog"; {help_}')
    return UsageError(words, help_)


def in_plain_words(message: str) -> str:
    """What Typer says about a value, without the jargon of the library underneath."""
    message = message.replace("Value error, ", "").rstrip(".")
    number = {"integer": "a whole number", "number": "a number", "boolean": "yes or no"}
    return re.sub(
        r"Input should be a valid (\w+).*", lambda found: f"it takes {number.get(found[1], f'a {found[1]}')}", message, flags=re.DOTALL
    )


def check_not_empty(args: list[str]) -> None:
    """Refuse an empty path, such as an unset shell variable leaves: it would mean the current folder. Raises UsageError."""
    for place, word in enumerate(args):
        flag, has_value, value = word.partition("=")
        following = args[place + 1 : place + 2]
        if dashes(flag) in PATH_FLAGS and not (value if has_value else (following or ["."])[0]):
            raise UsageError(f"{flag} is empty", f"give a path; the current folder is {flag} .")


def check_not_expanded(args: list[str]) -> None:
    """Refuse what the shell makes of `--photos *.jpg`: several files, where one folder is wanted. Raises UsageError."""
    for place, word in enumerate(args):
        flag, _, value = word.partition("=")
        files = list(takewhile(os.path.isfile, [*([value] if value else []), *args[place + 1 :]]))
        if dashes(flag) in FOLDER_FLAGS and len(files) > 1:
            raise UsageError(
                f"{flag} takes one folder, but {len(files)} files were given",
                f"the shell expands a pattern such as *.jpg; give the folder itself: {flag} {os.path.dirname(files[0]) or '.'}",
            )
