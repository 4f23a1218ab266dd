"""Every fault tried in full, and one table of what was lost.

    python -m tests.faults [--only PART ...] [--write]
    python -m tests.faults --short

This takes hours on two cores. Each part is kept in `kept/` when it is done, so a table that was stopped goes on with the next part. A part
that is kept is not tried again unless its file there is removed. `--write` puts what is kept into `table.md` beside this file, and the sums
into README.md.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from dreambooth_cli import __version__
from tests.machine import machine

from . import (
    bases,
    documents,
    exports,
    file_systems,
    flow,
    full_disk,
    hostile_hub,
    hub,
    kills,
    long_run,
    loras,
    permissions,
    photos,
    resume,
    terminals,
)
from .row import Row
from .watched import can_watch, is_loaded, relaunch, until_ended

README, TABLE = Path(__file__).parents[2] / "README.md", Path(__file__).with_name("table.md")
KEPT = Path(__file__).with_name("kept")
MARKED = re.compile(r"(<!-- faults -->\n).*?(<!-- /faults -->)", re.DOTALL)
PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "resume": resume.rows,
    "kills": partial(kills.rows_of_changes, power_cut=False),
    "power-cuts": partial(kills.rows_of_changes, power_cut=True),
    "signals": kills.rows_of_instants,
    "full-disk": full_disk.rows,
    "flow": flow.rows,
    "exports": exports.rows,
    "permissions": permissions.rows,
    "file-systems": file_systems.rows,
    "terminals": terminals.rows,
    "photos": photos.rows,
    "documents": documents.rows,
    "bases": bases.rows,
    "loras": loras.rows,
    "hub": hub.rows,
    "hostile-hub": hostile_hub.rows,
    "long-run": long_run.rows,
}


def short_rows() -> Iterator[Row]:
    """A sample of the faults that need the watch or whole processes, on one scenario; photos, documents, bases, LoRAs and the hostile
    hub have samples of their own in the test suite."""
    with kills.small_scenario() as scenario:
        for power_cut in (False, True):
            yield kills.try_every(scenario, power_cut=power_cut, every=700)
        for name in ("kill -9", "Ctrl-C twice"):
            yield kills.try_instants(scenario, name, count=1)
        yield from full_disk.rows_of(scenario, every=700)
        yield from permissions.rows_of(scenario, every=1229)
        yield file_systems.try_changes(scenario, every=700)
        yield file_systems.try_limits(scenario, [40_000])
        for trouble in terminals.TROUBLES[:2]:
            yield terminals.try_trouble(scenario, trouble, count=1)
        yield long_run.row_of(scenario, steps=50)
    yield from hub.rows(every=37, signals=("kill -9", "Ctrl-C"))


def table_of(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | tried | lost | unequal | slowest answer |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        slowest = f"{row.slowest:.1f} s" if row.slowest else ""
        lines.append(f"| {row.what} | {row.tried:,} | {row.lost} | {row.unequal} | {slowest} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Tried:
    """The rows of a part, and the day and machine on which they were tried."""

    name: str
    on: str
    rows: list[Row]


def now_here() -> str:
    """The day, the version and the machine."""
    return f"{datetime.now(UTC):%Y-%m-%d}: dreambooth {__version__}; {machine()}, one thread"


def kept_part(name: str, work: Path) -> Tried | None:
    """A part as it was kept, or None if it has not been tried yet."""
    kept = work / f"{name}.json"
    if not kept.exists():
        return None
    part = json.loads(kept.read_text(encoding="utf-8"))
    return Tried(name, part["on"], [Row(**row) for row in part["rows"]])


def run_part(name: str, work: Path) -> Tried:
    """A part as it was kept, or tried now and kept."""
    if kept := kept_part(name, work):
        return kept
    rows, on = [], now_here()
    for row in PARTS[name]():
        print(table_of([row]).splitlines()[-1], *row.remarks, sep="\n    ", flush=True)
        rows.append(row)
    work.mkdir(parents=True, exist_ok=True)
    part = Tried(name, on, rows)
    (work / f"{name}.json").write_text(json.dumps(asdict(part), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return part


def sums_of(rows: list[Row]) -> list[Row]:
    """One row for all kinds of a fault (`photos: animated` and the like): the sums, and the slowest answer."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.what.split(":")[0], []).append(row)
    return [
        Row(
            f"{name}, {len(group)} kinds" if len(group) > 1 else name,
            sum(row.tried for row in group),
            sum(row.lost for row in group),
            sum(row.unequal for row in group),
            max(row.slowest for row in group),
        )
        for name, group in groups.items()
    ]


def write(parts: list[Tried]) -> None:
    """The whole table beside this file, the sums between the two marks of the README."""
    rows = [row for part in parts for row in part.rows]
    names = {part.on: ", ".join(each.name for each in parts if each.on == part.on) for part in parts}
    remarks = [f"- {row.what}: {remark}" for row in rows for remark in row.remarks]
    lines = [
        "# What was tried, and what was lost",
        "",
        "Written by `python -m tests.faults --write`, each part when it was last tried. Several ran side by side: the slowest answers "
        "are those of a busy machine.",
        "",
        *(f"- {on}: {those}" for on, those in names.items()),
        "",
        "Lost: something saved was gone or unreadable, or the answer was a traceback, a hang over 10 s (of processor time for photos "
        "and documents; a hub that can't serve is asked again for longer), more than 1 GB, or a file where none belongs. Unequal: "
        "the next run of the same command did not end with the weights of an undisturbed one.",
        "",
        *(table_of(rows), "", *remarks),
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text, sums = README.read_text(encoding="utf-8"), table_of(sums_of(rows))
    README.write_text(MARKED.sub(lambda found: f"{found[1]}{sums}\n{found[2]}", text), encoding="utf-8")


def main() -> int:
    """Try the faults. Returns 1 if anything was lost or came out unequal."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--work", type=Path, default=KEPT, help="folder that keeps what was tried (default: kept/ beside this)")
    parser.add_argument("--only", choices=sorted(PARTS), action="append", help="these parts alone")
    parser.add_argument("--short", action="store_true", help="a sample of each, as the test suite tries it")
    parser.add_argument("--write", action="store_true", help="write the tables of what is kept")
    asked = parser.parse_args()
    if can_watch() and not is_loaded():
        relaunch("tests.faults", sys.argv[1:])
    with until_ended():
        rows = list(short_rows() if asked.short else (row for name in asked.only or PARTS for row in run_part(name, asked.work).rows))
    print(table_of(rows), *(f"{row.what}: {remark}" for row in rows for remark in row.remarks), sep="\n")
    if asked.write:
        write([part for name in PARTS if (part := kept_part(name, asked.work))])
    return 1 if any(row.lost or row.unequal for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
