"""The run that faults are tried on: the direct form of `train` on a small base, from photos to the delivered model."""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from dreambooth_cli.disk import remove

from .watched import GO, Change, run_followed, run_watched

STEPS, EVERY = 4, 2
SETTINGS = {
    "--steps": STEPS,
    "--checkpoint-every": EVERY,
    "--keep-checkpoints": 1,
    "--class-images": 2,
    "--class-image-steps": 2,
    "--sample-every": EVERY,
    "--sample-steps": 2,
    "--learning-rate": 1e-3,
    "--identifier": "sks",
}
LEFTOVERS = re.compile(r".*\.(part|old|making)|\.(dreambooth-|making|removing|verify).*", re.DOTALL)


@dataclass(frozen=True)
class Scenario:
    """The folders of the base, the photos and the homes of all tries."""

    folder: Path
    base: Path
    photos: Path
    settings: Mapping[str, Any] = field(default_factory=lambda: SETTINGS)
    as_json: bool = True

    def home(self, name: str) -> Path:
        """An empty home for a try."""
        home = self.folder / name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        return home

    def run(self, home: Path) -> int:
        """The command, in this process. Returns its exit status."""
        from dreambooth_cli import stopping
        from dreambooth_cli.cli.app import run

        os.environ["DREAMBOOTH_HOME"] = str(home / "dreambooth")
        stopping.reset()
        return run(self.words(home))

    def words(self, home: Path) -> list[str]:
        """The command's words."""
        paths = [
            "--model_name",
            str(self.base),
            "--instance_data_dir",
            str(self.photos),
            "--output-dir",
            str(home / "out"),
        ]
        settings = [str(word) for pair in self.settings.items() for word in pair]
        form = ["--json"] if self.as_json else []
        return ["train", *form, "--class_prompt", "a photo of a dog", *paths, *settings]

    @cached_property
    def undisturbed(self) -> tuple[list[Change], dict[str, str]]:
        """All changes that an undisturbed run makes, in order, and its weights."""
        home, output = self.home("undisturbed"), self.folder / "undisturbed.out"
        code, changes = run_watched(lambda: self.run(home), home, output, lambda _: GO)
        if code != 0:
            raise RuntimeError(output.read_text())
        return changes, weights_of(home)

    @cached_property
    def phases(self) -> dict[str, float]:
        """The phases of an undisturbed run and how long each took, in seconds."""
        home, begun = self.home("undisturbed"), list[tuple[str, float]]()

        def heard(child: int, line: str) -> None:
            if phase := phase_in(line):
                begun.append((phase, time.monotonic()))

        run_followed(lambda: self.run(home), self.folder / "undisturbed.out", heard)
        begun.append(("end", time.monotonic()))
        return {name: later - since for (name, since), (_, later) in pairwise(begun)}


@dataclass(frozen=True)
class Exporting(Scenario):
    """`export` of a model in a format to `out/dog`. Where one lies there, its name is taken: then the same is done under another name,
    and thrown away."""

    model: Path = Path()
    format: str = "single-file"

    def run(self, home: Path) -> int:
        code = super().run(home)
        for path in (home / "out").glob("again*"):
            remove(path)
        return code

    def words(self, home: Path) -> list[str]:
        place = home / "out" / ("again" if list((home / "out").glob("dog*")) else "dog")
        return ["export", "--json", "--model-path", str(self.model), "--model", str(self.base), "--to", self.format, "-o", str(place)]


def phase_in(line: str) -> str | None:
    """The name of the phase that a printed line begins."""
    found = re.match(r'\{"event": "phase", "name": "([^"]*)"', line)
    return found[1] if found else None


def every_so_often(count: int, every: int) -> tuple[range, str]:
    """The numbers, from 0, of every `every`-th of so many changes, from the middle of the first stretch on, and how a row names them."""
    numbers = range(min(every, count) // 2, count, every)  # at least one, however few the changes
    if every == 1:
        return numbers, "each"
    return numbers, f"change {', '.join(str(number + 1) for number in numbers[:2])}{', ...' if len(numbers) > 2 else ''}"


def weights_of(home: Path) -> dict[str, str]:
    """The sha256 of every file of weights of the delivered model, its header in order: the library's own order is another each time."""
    found = {}
    for file in sorted((home / "out").rglob("*.safetensors")):
        content = file.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.dumps(json.loads(content[8:end]), sort_keys=True).encode()
        found[str(file.relative_to(home / "out"))] = hashlib.sha256(header + content[end:]).hexdigest()
    return found


def events_in(output: Path) -> list[dict[str, Any]]:
    """The events that a run has printed; a last line that was cut is left out."""
    found = []
    for line in output.read_text(errors="replace").splitlines() if output.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [event for event in found if isinstance(event, dict)]


def leftovers(home: Path) -> list[str]:
    """Files that a finished run should not have left."""
    return [str(path.relative_to(home)) for path in home.rglob("*") if LEFTOVERS.fullmatch(path.name)]
