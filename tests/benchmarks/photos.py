"""What is found in photos, measured on the subjects of ../shared/subjects; writes photos.md:

    python -m tests.benchmarks.photos [crops] [buckets] [triage] [many]

all of its tables, or those that are named.
"""

import sys
from pathlib import Path

from . import buckets, crops, many_photos, triage

PAGE = Path(__file__).with_name("photos.md")
TABLES = {"crops": crops.table, "buckets": buckets.table, "triage": triage.table, "many": many_photos.table}


def put(name: str, text: str) -> None:
    """Put a text between the marks of a name."""
    page, begin, end = PAGE.read_text(encoding="utf-8"), f"<!-- {name} -->", f"<!-- /{name} -->"
    head, tail = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def main() -> None:
    """Measure and write."""
    for name in sys.argv[1:] or TABLES:
        put(name, TABLES[name]())


if __name__ == "__main__":
    main()
