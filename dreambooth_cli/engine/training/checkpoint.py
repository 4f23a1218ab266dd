"""Checkpoints: weights and optimizer state as safetensors, with a manifest that says which run and step they are of, and the size and
hash of each file.

A checkpoint is a folder called `step-` and digits; anything with another name is never loaded, renamed or removed. It counts as whole
if its manifest names that step and this run, and every file is as the manifest says.

It is written under another name, hashed on the way, synced and renamed, so that a folder with its final name is whole; older ones are
removed only after the new one has been read back. No random state is kept: every random number follows from (seed, step, row).
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

OLD_PART = r"\.step-[0-9]{6,}\.part"  # what 0.1 left behind when it was killed while saving
PARTS = ("weights", "optimizer", "ema")
NAME = re.compile(r"step-([0-9]{1,18})")


class ForeignCheckpoint(DiskError):
    """A checkpoint that is whole in itself, but whose tensors do not fit the run that it is in."""


@dataclass(frozen=True)
class State:
    """All that a run needs to go on: the step reached, the trained weights, the optimizer state, and their moving average (EMA) if it is
    on. From a checkpoint, each tensor is read when it is asked for."""

    step: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]


def save_checkpoint(folder: Path, state: State, *, keep: int | None, run: str = "", at_most: int | None = None) -> Path:
    """Write a checkpoint into `folder`, read it back, then remove all but the newest `keep` (None: the caller does that). `run` is the
    run's id; `at_most` limits the bytes of each file for a rehearsal, as in `write_tensors`. Returns its folder. Raises DiskError."""
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
    """The tensors of a state by the name of the checkpoint's file that holds them."""
    return {f"{name}.safetensors": getattr(state, name) for name in PARTS}


def load_checkpoint(path: Path) -> State:
    """Open a checkpoint. Raises DiskError if it is damaged."""
    try:
        there = {name: path / f"{name}.safetensors" for name in PARTS if name != "optimizer" or not is_light(path)}
        return State(step_of(path), **{"optimizer": {}} | {name: TensorFile(file) for name, file in there.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DiskError(
            f"the checkpoint {path} can't be read: {error}", "remove it; the run then goes on from the one before"
        ) from error


def load_weights(path: Path) -> State:
    """Open the weights of a checkpoint, and their average if one was kept, without the optimizer state, which may be gone. Raises
    DiskError."""
    try:
        average = path / "ema.safetensors"
        return State(step_of(path), TensorFile(path / WEIGHTS), {}, TensorFile(average) if average.is_file() else {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DiskError(f"the weights of {path} can't be read: {error}", "choose another step") from error


def check_belongs(state: State, trained: Mapping[str, Tensor], *, steps: int, averaged: bool) -> None:
    """Compare the names and shapes of a checkpoint's tensors with what a run of `steps` steps trains; `averaged`: whether it keeps an
    average. Raises ForeignCheckpoint if they differ."""
    if state.step > steps:
        raise ForeignCheckpoint(f"it was saved after step {state.step}, but the run has only {steps} steps")
    wanted = shapes_of(trained)
    for kind, held in (("weights", state.weights), ("average", state.ema)):
        shapes, found = wanted if kind == "weights" or averaged else {}, shapes_of(held)
        if odd := sorted(found.keys() ^ shapes.keys()):
            raise ForeignCheckpoint(f"its {kind} and the run's differ: {odd[0]}")
        for name, shape in shapes.items():
            if found[name] != shape:
                raise ForeignCheckpoint(f"{name} is {found[name]} in its {kind}, but {shape} in the run")
    for key, shape in shapes_of(state.optimizer).items():
        name, _, slot = key.rpartition("|")
        if name != "scaler" and name not in wanted:
            raise ForeignCheckpoint(f"its optimizer has state for a weight that the run does not train: {name}")
        if slot in ("exp_avg", "exp_avg_sq") and shape != wanted[name]:
            raise ForeignCheckpoint(f"{name} is {shape} in its optimizer, but {wanted[name]} in the run")


def latest_checkpoint(folder: Path, run: str = "") -> Path | None:
    """The newest checkpoint that a run can go on from, or None."""
    return next((path for path in reversed(checkpoints(folder)) if is_whole(path, run)), None)


def last_weights(folder: Path, step: int, run: str = "") -> Path | None:
    """The checkpoint of a run's last step, if its weights are whole; no optimizer state is needed after that step. None otherwise."""
    return next((path for path in checkpoints(folder) if step_of(path) == step and has_weights(path, run)), None)


def put_damaged_aside(folder: Path, run: str = "") -> list[Path]:
    """Rename damaged checkpoints, and those of another run, so that they are not in the way of later ones; they are kept.
    Returns their new paths. Raises DiskError."""
    with disk_errors(folder):
        found = [path for path in checkpoints(folder) if not is_whole(path, run)]
        return [put_aside(path) for path in found if not (has_weights(path, run) and is_light(path))]


def put_aside(path: Path) -> Path:
    """Rename a checkpoint that is in the way, if there is one: `step-000004` -> `damaged-step-000004`, or `...-2` and so on, whichever
    name is free. Returns the new path."""
    names = (f"damaged-{path.name}{f'-{number}' if number > 1 else ''}" for number in count(1))
    aside = next(place for name in names if not os.path.lexists(place := path.with_name(name)))
    if path.exists():
        path.replace(aside)
        sync(path.parent)
    return aside


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first: folders called `step-` and digits."""
    found = (path for path in folder.glob("step-*") if NAME.fullmatch(path.name))
    return sorted((path for path in found if path.is_dir() and not path.is_symlink()), key=lambda path: (step_of(path), path.name))


def step_of(checkpoint: Path | None) -> int:
    """The step that a checkpoint was saved after, from its name; 0 for None."""
    return int(checkpoint.name.removeprefix("step-")) if checkpoint is not None else 0


def is_whole(path: Path, run: str = "") -> bool:
    """Whether a run can go on from a checkpoint: its weights, optimizer state and average are as they were saved."""
    return _holds(path, run, PARTS)


def has_weights(path: Path, run: str = "") -> bool:
    """Whether a checkpoint's weights are as they were saved, so that it can be drawn with; the optimizer state may be gone."""
    return _holds(path, run, PARTS[:1])


def _holds(path: Path, run: str, parts: Sequence[str]) -> bool:
    """Whether a checkpoint's manifest has the step of the folder's name and this run's id (0.1 wrote none; "": any run), lists at least
    these parts, and every file has the size and hash that it gives."""
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
    """Remove what a killed save left half written, and all but the newest `keep` checkpoints up to step `saved`; of the steps in `outlive`
    only the optimizer state goes. Checkpoints of later steps neither go nor count: this run has not reached them yet."""
    clear_leftovers(folder, old=OLD_PART)
    for path in [path for path in checkpoints(folder) if step_of(path) <= saved][:-keep]:
        _let_go(path, outlive)


def keep_weights(folder: Path, steps: Collection[int]) -> None:
    """After a run: keep the weights of these steps' checkpoints, and remove everything else. Raises OSError."""
    for path in checkpoints(folder):
        _let_go(path, steps)


def _let_go(path: Path, steps: Collection[int]) -> None:
    """Remove a checkpoint, or only its optimizer state if it is of one of these steps. Raises OSError."""
    if step_of(path) in steps:
        with suppress(ValueError, KeyError, TypeError, AttributeError, FileNotFoundError):  # without a manifest it is not a checkpoint
            lighten(path)
            return
    shutil.rmtree(path)
