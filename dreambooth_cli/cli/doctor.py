"""`dreambooth doctor`: what of this machine would stand in a run's way, and what mends it."""

import json as json_

import typer

from ..checkup import Check, check_up, is_well, to_json
from .console import messages, results, say
from .options import Json, with_flags
from .start import spinner

STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


@with_flags()
def doctor(json: Json = False) -> None:
    """Look over Python, PyTorch, GPU, memory, disk and hub; say what is wrong and how to mend it.

    Exit code 0 where a run can be done here, 1 where something stands in its way.

    Examples:
      dreambooth doctor
      dreambooth doctor --json
      dreambooth doctor --debug
    """
    with spinner("looking..."):
        checks = check_up()
    if json:
        print(json_.dumps(to_json(checks)))
    else:
        show(checks)
    if not is_well(checks):
        raise typer.Exit(1)


def show(checks: list[Check]) -> None:
    """Print a line for each, and under it what mends it."""
    wide, console = max(len(check.name) for check in checks), results()
    for check in checks:
        say(console, f"{check.status:<8} {check.name:<{wide}}  {check.message}", STYLES[check.status] if check.status != "ok" else "")
        if check.repair:
            say(console, f"         {'':<{wide}}  -> {check.repair}")
    faults = [check.name for check in checks if check.status == "problem"]
    say(messages(), f"to mend first: {', '.join(faults)}" if faults else "nothing here stands in a run's way")
