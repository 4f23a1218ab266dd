"""`dreambooth doctor`: what on this machine would stop a run, and how to fix it; with `--try`, how a run does here."""

import json as json_
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..bases.true_sizes import find_to_try
from ..checkup import Check, check_up, is_well, to_json
from ..disk import disk_errors
from ..paths import expanded
from .console import messages, results, say
from .options import Json, with_flags
from .start import loading_torch, spinner
from .views import follow, format_pairs, open_view

STYLES = {"ok": "", "warning": "yellow", "problem": "red"}
PASSED = {True: "passed", False: "failed", None: "not tried"}
REPORT = Path("dreambooth-report.md")


@with_flags()
def doctor(
    tries: Annotated[
        bool, typer.Option("--try", help="Also train here for two minutes, without a download, and write a report.")
    ] = False,
    model: Annotated[
        str, typer.Option("--model", metavar="<text>", help="With --try: the base model to try at its true size.")
    ] = "sd15",
    report: Annotated[Path, typer.Option("--report", metavar="<path>", help="With --try: where to write the report.")] = REPORT,
    json: Json = False,
) -> None:
    """Check Python, PyTorch, GPU, memory, disk and hub; say what is wrong and how to fix it.

    Exit code 0 if a run can be done here, 1 if something would stop it.

    Examples:
      dreambooth doctor
      dreambooth doctor --json
      dreambooth doctor --try --model sdxl
    """
    if tries:
        find_to_try(model)  # refused before any work
    with spinner("looking..."):
        checks = check_up()
    if not json:
        show(checks)
    parts = try_out(model) if tries and is_well(checks) else []
    document = to_json(checks)
    if tries:
        document |= {"tried": [asdict(part) for part in parts], "report": str(write_report(report, checks, parts))}
        document["ok"] = document["ok"] and all(part.passed is not False for part in parts)
    if json:
        print(json_.dumps(document))
    elif tries:
        show_tried(parts, Path(document["report"]))
    if not document["ok"]:
        raise typer.Exit(1)


def try_out(model: str) -> list[Any]:
    """Try out what a run does here, part by part."""
    with loading_torch():
        from ..workflows.proving import prove
    parts: list[Any] = []
    follow(prove(model, parts), open_view(json=False), kept="nothing was kept")
    return parts


def show(checks: list[Check]) -> None:
    """Print a line for each check, and below it how to fix a problem."""
    wide, console = max(len(check.name) for check in checks), results()
    for check in checks:
        say(console, f"{check.status:<8} {check.name:<{wide}}  {check.message}", STYLES[check.status])
        if check.repair:
            say(console, f"         {'':<{wide}}  -> {check.repair}")
    faults = [check.name for check in checks if check.status == "problem"]
    say(messages(), f"fix this first: {', '.join(faults)}" if faults else "nothing here would stop a run")


def show_tried(parts: list[Any], report: Path) -> None:
    """Print a line for each part, predicted beside measured, and where the report is."""
    for part in parts:
        say(results(), f"{PASSED[part.passed]}: {part.name}", "red" if part.passed is False else "")
        say(results(), f"  {part.message}")
    if pairs := figures(parts):
        say(results(), format_pairs(pairs))
    say(messages(), f"report, without names or paths, to paste into an issue: {report}")


def figures(parts: list[Any]) -> list[tuple[str, str]]:
    """Each figure as a pair: its name, and what was predicted and measured."""
    pairs = []
    for part in parts:
        for name, value in part.measured.items():
            foreseen = part.predicted.get(name)
            pairs.append((name.replace("_", " "), f"predicted {'-' if foreseen is None else f'{foreseen:g}'}, measured {value:g}"))
    return pairs


def write_report(path: Path, checks: list[Check], parts: list[Any]) -> Path:
    """Write the report to this path, or with the next free number if it exists. Returns the path written. Raises DiskError."""
    from ..report_text import report_text

    tried = [(part.name, PASSED[part.passed], part.message) for part in parts]
    text = report_text(checks, tried, figures(parts))
    path = expanded(path)
    with disk_errors(path):
        for number in range(1, 10_000):
            free = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
            try:
                with free.open("x", encoding="utf-8") as file:
                    file.write(text)
            except FileExistsError:
                continue
            return free
    raise AssertionError
