"""What happens when: every fault at full length, and one table of what was lost.

    python -m tests.faults --work FOLDER [--only PART ...] [--write]
    python -m tests.faults --short

Hours on two cores; a part that is done is kept in FOLDER, so a stopped table goes on with the next one. `--write` puts the table
of what is kept into README.md.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from . import documents, full_disk, hub, kills, long_run, photos, resume
from .row import Row
from .watched import can_watch, is_loaded, relaunch

README = Path(__file__).parents[2] / "README.md"
PARTS: dict[str, Callable[[], Iterator[Row]]] = {
    "resume": resume.rows,
    "kills": partial(kills.rows_of_changes, power_cut=False),
    "power-cuts": partial(kills.rows_of_changes, power_cut=True),
    "signals": kills.rows_of_instants,
    "full-disk": full_disk.rows,
    "photos": photos.rows,
    "documents": documents.rows,
    "hub": hub.rows,
    "long-run": long_run.rows,
}
SHORT: dict[str, Callable[[], Iterator[Row]]] = {
    "kills": partial(kills.rows_of_changes, power_cut=False, every=127),
    "power-cuts": partial(kills.rows_of_changes, power_cut=True, every=127),
    "signals": partial(kills.rows_of_instants, dict.fromkeys(kills.SIGNALS, 1)),
    "full-disk": partial(full_disk.rows, every=170),
    "hub": partial(hub.rows, every=13),
    "long-run": partial(long_run.rows, steps=300),
}


def table_of(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | tried | lost | unequal | slowest answer |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        slowest = f"{row.slowest:.1f} s" if row.slowest else ""
        lines.append(f"| {row.what} | {row.tried:,} | {row.lost} | {row.unequal} | {slowest} |")
    return "\n".join(lines)


def run_part(name: str, work: Path) -> list[Row]:
    """The rows of a part, from the kept file or by trying now."""
    kept = work / f"{name}.json"
    if kept.exists():
        return [Row(**row) for row in json.loads(kept.read_text())]
    rows = []
    for row in PARTS[name]():
        print(table_of([row]).splitlines()[-1], *row.remarks, sep="\n    ", flush=True)
        rows.append(row)
    work.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return rows


def write_readme(table: str) -> None:
    """Put the table between its two marks."""
    text = README.read_text(encoding="utf-8")
    marked = re.sub(
        r"(<!-- faults -->\n).*?(<!-- /faults -->)", lambda found: f"{found[1]}{table}\n{found[2]}", text, flags=re.S
    )
    README.write_text(marked, encoding="utf-8")


def main() -> int:
    """Returns 1 where anything was lost or came out unequal."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--work", type=Path, help="folder that keeps what was tried")
    parser.add_argument("--only", choices=sorted(PARTS), action="append", help="these parts alone")
    parser.add_argument("--short", action="store_true", help="a minute of each, as the test suite does")
    parser.add_argument("--write", action="store_true", help="write the table of what is kept into README.md")
    asked = parser.parse_args()
    if asked.work is None and not asked.short:
        parser.error("--work names the folder that keeps what was tried")
    if can_watch() and not is_loaded():
        return relaunch("tests.faults", sys.argv[1:])
    if asked.short:
        rows = [row for part in SHORT.values() for row in part()]
    else:
        rows = [row for name in asked.only or PARTS for row in run_part(name, asked.work)]
    print(table_of(rows), *(f"{row.what}: {remark}" for row in rows for remark in row.remarks), sep="\n")
    if asked.write:
        write_readme(table_of(rows))
    return 1 if any(row.lost or row.unequal for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
