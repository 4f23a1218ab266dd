"""How `dreambooth_cli/dictionary/nouns.txt.gz` was made: the nouns of WordNet 3.0 that a subject may be called by.

    python -m tests.benchmarks.english_nouns /usr/share/wordnet/data.noun > nouns.txt

The file is part of WordNet (Debian: wordnet-base). Kept are nouns of one word in small letters, of the files (numbered as in WordNet's
lexnames) that hold what can be seen, and the breeds of domestic animals, which WordNet writes with a capital as it does the genera.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# topmost, animals, artifacts, bodies, communication, food, groups, locations, objects, people, phenomena, plants, shapes, substances
FILES = {"03", "05", "06", "08", "10", "13", "14", "15", "17", "18", "19", "20", "25", "27"}
ANIMALS = "05"
DOMESTIC = {"domestic_animal", "dog", "domestic_cat", "horse", "cattle", "ox", "sheep", "pigeon", "chicken", "domestic_goat"}
SMALL, BREED = re.compile(r"(?!.$)[a-z]+(-[a-z]+)*"), re.compile(r"[A-Z][a-z]+(-[A-Za-z]+)*")


@dataclass(frozen=True)
class Sense:
    """One meaning: its words, the file that it is in, and the offsets of its kinds. `is_single`: it is one thing, such as a city."""

    file: str
    words: tuple[str, ...]
    kinds: tuple[str, ...]
    is_single: bool


def read_senses(data: Path) -> dict[str, Sense]:
    """WordNet's data.noun (see its wndb(5)): the meanings by their offset."""
    lines = [line.partition("|")[0].split() for line in data.read_text("latin-1").splitlines() if not line.startswith(" ")]
    return {offset: read_sense(file, count, rest) for offset, file, _, count, *rest in lines}


def read_sense(file: str, count: str, rest: list[str]) -> Sense:
    """The fields of a line after its offset: `count` words (a hexadecimal number), each with a number, then the pointers of four fields."""
    size = 2 * int(count, 16)
    pointers = rest[size + 1 :]
    marks = pointers[::4]
    kinds = tuple(offset for mark, offset in zip(marks, pointers[1::4], strict=True) if mark == "~")
    return Sense(file, tuple(rest[:size:2]), kinds, "@i" in marks)


def breeds(senses: dict[str, Sense]) -> Iterator[str]:
    """The names of the domestic animals' kinds and of the kinds of these."""
    seen = set[str]()
    to_see = [offset for offset, sense in senses.items() if sense.file == ANIMALS and sense.words[0] in DOMESTIC]
    while to_see:
        offset = to_see.pop()
        if offset not in seen:
            seen.add(offset)
            to_see.extend(senses[offset].kinds)
            yield from (word for word in senses[offset].words if BREED.fullmatch(word))


def table(data: Path) -> list[str]:
    """The words of the table."""
    senses = read_senses(data)
    kept = [sense for sense in senses.values() if sense.file in FILES and not sense.is_single]
    nouns = {word for sense in kept for word in sense.words if SMALL.fullmatch(word)}
    return sorted(nouns | {word.lower() for word in breeds(senses)})


if __name__ == "__main__":
    print("\n".join(table(Path(sys.argv[1]))))
