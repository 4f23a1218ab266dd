"""What is found in photos, measured on the subjects of ../shared/subjects; writes photos.md: python -m tests.benchmarks.photos"""

from pathlib import Path

from . import crops, triage

PAGE = Path(__file__).with_name("photos.md")


def put(name: str, text: str) -> None:
    """Put a text between the marks of a name."""
    page, begin, end = PAGE.read_text(encoding="utf-8"), f"<!-- {name} -->", f"<!-- /{name} -->"
    head, tail = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def main() -> None:
    """Measure and write."""
    put("crops", crops.table())
    half = triage.halves()[1]
    put("triage", triage.table(triage.score(half, range(triage.SEEDS, 2 * triage.SEEDS))))


if __name__ == "__main__":
    main()
