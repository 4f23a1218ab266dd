"""One training run of a project: its files, its record, and whether its model is whole."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .disk import (
    begins_as,
    clear_leftovers,
    digests_of,
    disk_errors,
    is_intact,
    is_of_the_system,
    read_text,
    write_json,
)
from .errors import DiskError, ProjectError
from .record import Record
from .schemas import check_schema, with_schema

PART_OF_0_1 = ".part"  # in an output folder: where 0.1 copied a model before it took its place
LORA_FILE = "pytorch_lora_weights.safetensors"  # as diffusers calls it
CHECKPOINT = re.compile(r"step-([0-9]{1,18})")  # folder of a checkpoint: after which step it was saved
SAMPLE = re.compile(r"step-([0-9]{6,18})-([0-9]{1,9})(?:-([0-9]{1,9}))?\.png")  # its step, its prompt's number, which of that name
WEIGHTS = "weights.safetensors"  # in it
OPTIMIZER = "optimizer.safetensors"  # in it: what only a further step needs
MANIFEST = "checkpoint.json"  # in it: its step, its run, its files
LIGHT = "weights alone"  # in a manifest: the optimizer's state was let go
CARD = "dreambooth.json"  # beside a model: facts about it; written last, so a folder that has it is whole


@dataclass(frozen=True)
class Run:
    """One training run of a project."""

    path: Path

    @property
    def number(self) -> int:
        """Its number within the project."""
        return int(self.path.name)

    @property
    def id(self) -> str:
        """Its id, which its checkpoints and its model's card name; "" if it never began. Raises ProjectError."""
        return self.record().id if self.has_begun else ""

    @property
    def has_begun(self) -> bool:
        """Whether it has a plan."""
        return self.plan.is_file()

    @property
    def plan(self) -> Path:
        """What was asked for and planned, fixed at the run's first start, and what changed later."""
        return self.path / "plan.json"

    @property
    def events(self) -> Path:
        """What happened, one JSON line per event."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Where the run can continue from."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """Pictures drawn while it trained."""
        return self.path / "samples"

    @property
    def report(self) -> Path:
        """All of it on one page."""
        return self.path / "report.html"

    @property
    def judged(self) -> Path:
        """What a judge said about its steps."""
        return self.path / "judged.json"

    @property
    def model(self) -> Path:
        """The finished model; it is there only when it is whole."""
        return self.path / "model"

    @property
    def manifest(self) -> Path:
        """The list of the finished model's files, each with its size and sha256; written before the model gets its name."""
        return self.path / "model.json"

    @property
    def is_finished(self) -> bool:
        """Whether the finished model is there."""
        return (self.model / CARD).is_file()

    def steps(self) -> list[int]:
        """The steps whose weights are there, in order: those of its checkpoints, and the last one if the model is finished."""
        names = [path.name for path in self.checkpoints.glob("step-*") if (path / WEIGHTS).is_file()]
        found = {int(match[1]) for match in map(CHECKPOINT.fullmatch, names) if match is not None}
        if self.is_finished:
            found.add(int(self.record().asked["train"]["steps"]))
        return sorted(found)

    def samples_of(self, step: int | None = None) -> list[Path]:
        """The pictures drawn after a step, or after the last that has any, in the order of their prompts; of a prompt the newest."""
        drawn = {path: match for path in self.samples.glob("step-*.png") if (match := SAMPLE.fullmatch(path.name)) is not None}
        last = max((int(match[1]) for match in drawn.values()), default=0) if step is None else step
        found = sorted((int(match[2]), int(match[3] or 1), path) for path, match in drawn.items() if int(match[1]) == last > 0)
        return list({number: path for number, _, path in found}.values())

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step is, if it exists."""
        return self.checkpoints / f"step-{step:06d}"

    def model_files(self) -> dict[str, dict[str, Any]]:
        """The files of the finished model, by their names in its folder, each with its size in bytes and sha256 as saved.

        A run of 0.1 has no such list; for it, the files as they are now. Raises ProjectError if the list is damaged.
        """
        if not self.manifest.exists():
            return digests_of(self.model)
        try:
            kept = json.loads(read_text(self.manifest))
            check_schema(self.manifest, kept)
            files = kept["files"]
            whole = CARD in files and all(
                (type(entry["bytes"]), type(entry["sha256"])) == (int, str)
                and not Path(name).is_absolute()
                and ".." not in Path(name).parts
                for name, entry in files.items()
            )
            if not whole:
                raise ValueError("it does not list a model's files")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ProjectError(f"{self.manifest} can't be read: {error}", self._how_to_make_anew()) from error
        return dict(files)

    def write_manifest(self, model: Path) -> None:
        """Write the list of the finished model's files, while it is still in a temporary folder. Raises OSError."""
        write_json(self.manifest, with_schema(self.manifest.name, {"files": digests_of(model)}))

    def check_model(self) -> dict[str, dict[str, Any]]:
        """Check the finished model against what was saved, and return its files. Raises DiskError, which names the first that differs."""
        try:
            files = self.model_files()
            other = next((name for name, entry in files.items() if not is_intact(self.model / name, entry)), None)
        except OSError as error:
            raise DiskError(f"the model {self.model} can't be read: {error}", "check who may read it") from error
        if other is not None:
            raise DiskError(
                f"{self.model / other} is missing or is not what was saved",
                f"put it back, or {self._how_to_make_anew()}",
            )
        return files

    def _how_to_make_anew(self) -> str:
        return f"remove {self.model} and train again: the model is made anew from the last checkpoint"

    def has_part_at(self, folder: Path) -> bool:
        """Whether a folder holds only files of the finished model, byte for byte, as after a delivery that was cut short."""
        names, former = [], folder / PART_OF_0_1 if self.has_part_of_0_1_at(folder) else None
        for path in folder.rglob("*"):
            own = self.model / path.relative_to(folder)
            if is_of_the_system(path.name) or former in (path, *path.parents):
                continue
            if path.is_symlink() or not own.exists() or own.is_dir() != path.is_dir():
                return False  # right away: somebody's folder may be large
            if not path.is_dir():
                names.append(path.relative_to(folder).as_posix())
        files = self.model_files() if self.is_finished else {}
        return bool(files) and all(name in files and is_intact(folder / name, files[name]) for name in names)

    def has_part_of_0_1_at(self, folder: Path) -> bool:
        """Whether a folder holds what 0.1 had copied of this model when it was cut short: files that are beginnings of its own."""
        part, files = folder / PART_OF_0_1, 0
        for path in () if part.is_symlink() else part.rglob("*"):
            own = self.model / path.relative_to(part)
            if path.is_symlink() or path.is_dir() != own.is_dir() or not (own.is_dir() or begins_as(path, own)):
                return False
            files += own.is_file()
        return files > 0

    def record(self) -> Record:
        """What plan.json holds. Raises ProjectError if it is missing or damaged."""
        try:
            values = json.loads(self.plan.read_text(encoding="utf-8-sig"))
            if not isinstance(values, dict):
                raise ValueError("it is not a JSON object")
            json.dumps(values, ensure_ascii=False).encode()  # if it can't be written again, it is damaged
            check_schema(self.plan, values)
            return Record.read(values)
        except (OSError, ValueError, RecursionError) as error:
            raise ProjectError(f"{self.plan} can't be read: {error}", "start a new run with --restart") from error

    def clear_up(self) -> None:
        """Remove unfinished files of killed processes. The caller holds the project's lock."""
        clear_leftovers(self.path, old=r"plan\.json\.part|\.model\.part")
        clear_leftovers(self.checkpoints, old=r"\.step-[0-9]{6,}\.part")
        clear_leftovers(self.samples, old=r"\.step-[0-9]{6,}-[0-9]+\.[0-9]+\.part")
        for step in self.steps():
            clear_leftovers(self.checkpoint(step))

    def write_record(self, record: Record) -> None:
        """Write plan.json. Raises DiskError."""
        with disk_errors(self.plan):
            write_json(self.plan, with_schema(self.plan.name, record.written()))


def lighten(path: Path) -> None:
    """Delete the optimizer's state of a checkpoint; if killed in between, the checkpoint is still whole. Raises OSError."""
    if not is_light(path):
        manifest = json.loads(read_text(path / MANIFEST))
        files = {name: entry for name, entry in manifest["files"].items() if name != OPTIMIZER}
        write_json(path / MANIFEST, manifest | {LIGHT: True, "files": files})
    (path / OPTIMIZER).unlink(missing_ok=True)


def is_light(path: Path) -> bool:
    """Whether a checkpoint's manifest says that its optimizer state was deleted. Raises OSError, ValueError if it is damaged."""
    return json.loads(read_text(path / MANIFEST)).get(LIGHT) is True
