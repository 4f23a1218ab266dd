"""Checkpoints: weights and optimizer state as safetensors, with a manifest: whose they are, of which step, sizes and hashes.

Ours is a folder called `step-` and digits alone, nothing else beside it is loaded, renamed or removed; it counts where its manifest
names that very step, the run, and every file as it is.

Written beside, hashed on the way, synced and renamed, so that a folder with its final name is whole; the older ones are pruned only
after the new one has been read back. No random state is kept: every random number follows from (seed, step).
"""

import json
import os
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from torch import Tensor

from ...disk import clear_leftovers, disk_errors, make_folder, read_text, settle, sha256_of, sync, temporary, write_json
from ...errors import DiskError
from ...run import MANIFEST, WEIGHTS, is_light, lighten
from ..tensor_file import TensorFile, shapes_of, write_tensors

OLD_PART = r"\.step-[0-9]{6,}\.part"  # what a save of 0.1 left when it was killed
PARTS = ("weights", "optimizer", "ema")
NAME = re.compile(r"step-([0-9]{1,18})")


class ForeignCheckpoint(DiskError):
    """A checkpoint, whole in itself, whose tensors are not those of the run that it lies in."""


@dataclass(frozen=True)
class State:
    """All that a run needs to go on: the step reached, the trained weights, optimizer state, and EMA where it is on; of a checkpoint,
    each tensor is read when it is asked for."""

    step: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]


def save_checkpoint(folder: Path, state: State, *, keep: int | None, run: str = "", at_most: int | None = None) -> Path:
    """Write a checkpoint under `folder`, read it back, then prune to the newest `keep` (None: the caller prunes). `run` is the run's id;
    `at_most` bytes of each file are written for a rehearsal, as `write_tensors` does it. Raises DiskError."""
    final = folder / f"step-{state.step:06d}"
    try:
        make_folder(folder)
        with temporary(folder) as part:
            part.mkdir()
            hashes = {name: write_tensors(part / name, held, at_most=at_most) for name, held in parts_of(state).items()}
            files = {name: {"bytes": (part / name).stat().st_size, "sha256": digest} for name, digest in sorted(hashes.items())}
            write_json(part / MANIFEST, {"run": run, "step": state.step, "files": files})
            put_aside(final)
            settle(part, final)
        if not is_whole(final, run):
            raise OSError("what was read back is not what was written")
        if keep is not None:
            prune(folder, keep, saved=state.step)
    except OSError as error:
        raise DiskError(
            f"the checkpoint {final} can't be written: {error}",
            "make room on that disk, then run the same command again",
        ) from error
    return final


def parts_of(state: State) -> dict[str, Mapping[str, Tensor]]:
    """What each file of a checkpoint holds."""
    return {f"{name}.safetensors": getattr(state, name) for name in PARTS}


def load_checkpoint(path: Path) -> State:
    """Open a checkpoint. Raises DiskError where it is damaged."""
    try:
        there = {name: path / f"{name}.safetensors" for name in PARTS if name != "optimizer" or not is_light(path)}
        return State(step_of(path), **{"optimizer": {}} | {name: TensorFile(file) for name, file in there.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DiskError(
            f"the checkpoint {path} can't be read: {error}", "remove it; the run goes on from the one before"
        ) from error


def load_weights(path: Path) -> State:
    """Open the weights of a checkpoint, and their average where one was kept, without what only a further step needs. Raises DiskError."""
    try:
        average = path / "ema.safetensors"
        return State(step_of(path), TensorFile(path / WEIGHTS), {}, TensorFile(average) if average.is_file() else {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DiskError(f"the weights of {path} can't be read: {error}", "name another step") from error


def check_belongs(state: State, trained: Mapping[str, Tensor], *, steps: int, averaged: bool) -> None:
    """Hold a checkpoint's tensors against what a run trains: their names and shapes. Raises ForeignCheckpoint."""
    if state.step > steps:
        raise ForeignCheckpoint(f"it was saved after step {state.step}, and the run has {steps}")
    wanted = shapes_of(trained)
    for kind, held in (("weights", state.weights), ("average", state.ema)):
        shapes, found = wanted if kind == "weights" or averaged else {}, shapes_of(held)
        if odd := sorted(found.keys() ^ shapes.keys()):
            raise ForeignCheckpoint(f"its {kind} and the run's are not the same: {odd[0]}")
        for name, shape in shapes.items():
            if found[name] != shape:
                raise ForeignCheckpoint(f"{name} is {found[name]} in its {kind}, and {shape} in the run")
    for key, shape in shapes_of(state.optimizer).items():
        name, _, slot = key.rpartition("|")
        if name != "scaler" and name not in wanted:
            raise ForeignCheckpoint(f"its optimizer knows a weight that the run does not train: {name}")
        if slot in ("exp_avg", "exp_avg_sq") and shape != wanted[name]:
            raise ForeignCheckpoint(f"{name} is {shape} in its optimizer, and {wanted[name]} in the run")


def latest_checkpoint(folder: Path, run: str = "") -> Path | None:
    """The newest checkpoint from which a run can go on, if any."""
    return next((path for path in reversed(checkpoints(folder)) if is_whole(path, run)), None)


def last_weights(folder: Path, step: int, run: str = "") -> Path | None:
    """The checkpoint of a run's last step, after which no optimizer state is needed, if its weights are there."""
    return next((path for path in checkpoints(folder) if step_of(path) == step and has_weights(path, run)), None)


def put_damaged_aside(folder: Path, run: str = "") -> list[Path]:
    """Take the damaged checkpoints, and those of another run, out of the way of those that are saved later, and keep them.
    Returns where they lie now. Raises DiskError."""
    with disk_errors(folder):
        found = [path for path in checkpoints(folder) if not is_whole(path, run)]
        return [put_aside(path) for path in found if not (has_weights(path, run) and is_light(path))]


def put_aside(path: Path) -> Path:
    """Rename a checkpoint that is in the way, if it is there: `step-000004` -> `damaged-step-000004`, or `...-2`: a free name."""
    names = (f"damaged-{path.name}{f'-{number}' if number > 1 else ''}" for number in count(1))
    aside = next(place for name in names if not os.path.lexists(place := path.with_name(name)))
    if path.exists():
        path.replace(aside)
        sync(path.parent)
    return aside


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first: folders called `step-` and digits alone, by number."""
    found = (path for path in folder.glob("step-*") if NAME.fullmatch(path.name))
    return sorted((path for path in found if path.is_dir() and not path.is_symlink()), key=lambda path: (step_of(path), path.name))


def step_of(checkpoint: Path | None) -> int:
    """The step that a checkpoint was saved after, by its name; 0 for none."""
    return int(checkpoint.name.removeprefix("step-")) if checkpoint is not None else 0


def is_whole(path: Path, run: str = "") -> bool:
    """Whether a run can go on from a checkpoint: its weights, optimizer state and average are there as they were saved."""
    return _holds(path, run, PARTS)


def has_weights(path: Path, run: str = "") -> bool:
    """Whether a checkpoint's weights are there as they were saved, to draw with: what only a further step needs may be gone."""
    return _holds(path, run, PARTS[:1])


def _holds(path: Path, run: str, parts: Sequence[str]) -> bool:
    """Whether a checkpoint's manifest is of the step of its name and of this run (0.1 named none; "": any) and lists these parts at
    least, and every file is there with the size and hash that it says."""
    try:
        manifest = json.loads(read_text(path / MANIFEST))
        files: Mapping[str, Mapping[str, object]] = manifest["files"]
        return (
            type(manifest["step"]) is int
            and manifest["step"] == step_of(path)
            and (not run or manifest.get("run", run) == run)
            and {f"{name}.safetensors" for name in parts} <= files.keys()
            and all(
                (path / name).stat().st_size == entry["bytes"] and sha256_of(path / name) == entry["sha256"]
                for name, entry in files.items()
            )
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def prune(folder: Path, keep: int, *, saved: int, outlive: Collection[int] = ()) -> None:
    """Remove all but the newest `keep` checkpoints up to the one just saved, of those steps that `outlive` them all but the weights, and
    what a killed save left half written. One of a later step is not this run's yet: it neither goes nor counts."""
    clear_leftovers(folder, old=OLD_PART)
    for path in [path for path in checkpoints(folder) if step_of(path) <= saved][:-keep]:
        _let_go(path, outlive)


def keep_weights(folder: Path, steps: Collection[int]) -> None:
    """After a run: of its checkpoints let these steps' weights stay, and nothing else. Raises OSError."""
    for path in checkpoints(folder):
        _let_go(path, steps)


def _let_go(path: Path, steps: Collection[int]) -> None:
    """Remove a checkpoint; of one of these steps the optimizer's state alone. Raises OSError."""
    if step_of(path) in steps:
        with suppress(ValueError, KeyError, TypeError, AttributeError, FileNotFoundError):  # what has no manifest is no checkpoint
            lighten(path)
            return
    shutil.rmtree(path)
