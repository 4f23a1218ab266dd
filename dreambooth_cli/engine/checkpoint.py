"""Checkpoints: weights and optimizer state as safetensors, with a manifest of sizes and hashes.

Written beside, synced and renamed, so that a folder with its final name is whole; the older ones are pruned only after the
new one has been read back. No random state is kept: every draw follows from (seed, step).
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..disk import disk_errors, make_folder, settle, sha256_of, sync, write_json
from ..errors import DiskError

MANIFEST = "checkpoint.json"
PARTS = ("weights", "optimizer", "ema")


@dataclass(frozen=True)
class State:
    """All that a run needs to go on: the step reached, the trained weights, optimizer state, and EMA where it is on."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    ema: dict[str, Tensor]


def save_checkpoint(folder: Path, state: State, *, keep: int) -> Path:
    """Write a checkpoint under `folder`, read it back, then prune to the newest `keep`. Raises DiskError."""
    final = folder / f"step-{state.step:06d}"
    part = folder / f".{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        make_folder(folder)
        part.mkdir()
        for name in PARTS:
            tensors = {key: value.detach().cpu().contiguous() for key, value in getattr(state, name).items()}
            save_file(tensors, part / f"{name}.safetensors")
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in sorted(part.iterdir())
        }
        write_json(part / MANIFEST, {"step": state.step, "files": files})
        put_aside(final)
        settle(part, final)
        if not is_whole(final):
            raise OSError("what was read back is not what was written")
        prune(folder, keep)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise DiskError(
            f"the checkpoint {final} can't be written: {error}",
            "make room on that disk, then run the same command again",
        ) from error
    return final


def load_checkpoint(path: Path) -> State:
    """Read a checkpoint. Raises DiskError where it is damaged."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        parts = {name: load_file(path / f"{name}.safetensors") for name in PARTS}
        return State(int(manifest["step"]), **parts)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DiskError(
            f"the checkpoint {path} can't be read: {error}", "remove it; the run goes on from the one before"
        ) from error


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint, if any."""
    return next((path for path in reversed(checkpoints(folder)) if is_whole(path)), None)


def put_damaged_aside(folder: Path) -> list[Path]:
    """Take the damaged checkpoints out of the way of those that are saved later, and keep them. Returns where they lie now.
    Raises DiskError."""
    with disk_errors(folder):
        return [put_aside(path) for path in checkpoints(folder) if not is_whole(path)]


def put_aside(path: Path) -> Path:
    """Rename a checkpoint that is in the way, if it is there: `step-000004` -> `damaged-step-000004`."""
    aside = path.with_name(f"damaged-{path.name}")
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
        path.replace(aside)
        sync(path.parent)
    return aside


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = (path for path in folder.glob("step-*") if path.is_dir())
    return sorted(found, key=lambda path: (len(path.name), path.name))  # step-1000000 comes after step-999999


def is_whole(path: Path) -> bool:
    """Whether every file of a checkpoint is there with the size and hash that its manifest says."""
    try:
        files: Mapping[str, Mapping[str, object]] = json.loads((path / MANIFEST).read_text())["files"]
        return {f"{name}.safetensors" for name in PARTS} <= files.keys() and all(
            (path / name).stat().st_size == entry["bytes"] and sha256_of(path / name) == entry["sha256"]
            for name, entry in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what a killed save left half written."""
    for path in folder.glob(".step-*.part"):
        shutil.rmtree(path)
    for path in checkpoints(folder)[:-keep]:
        shutil.rmtree(path)
