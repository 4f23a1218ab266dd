"""Checkpoints: weights and optimizer state as safetensors, with a manifest of sizes and hashes.

Written beside, synced and renamed, so that a folder with its final name is whole; the older ones are pruned only after the
new one has been read back. No random state is kept: every draw follows from (seed, step).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import DiskError

MANIFEST = "checkpoint.json"


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
        part.mkdir(parents=True)
        for name, tensors in (("weights", state.weights), ("optimizer", state.optimizer), ("ema", state.ema)):
            save_file(
                {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, part / f"{name}.safetensors"
            )
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in sorted(part.iterdir())
        }
        (part / MANIFEST).write_text(json.dumps({"step": state.step, "files": files}, indent=2))
        sync_folder(part)
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise DiskError(
            f"the checkpoint {final} can't be written: {error}",
            "make room on that disk, then run the same command again",
        ) from error
    if is_whole(final):
        prune(folder, keep)
    return final


def load_checkpoint(path: Path) -> State:
    """Read a checkpoint. Raises DiskError where it is damaged."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        parts = {name: load_file(path / f"{name}.safetensors") for name in ("weights", "optimizer", "ema")}
        return State(int(manifest["step"]), **parts)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise DiskError(
            f"the checkpoint {path} can't be read: {error}", "remove it; the run goes on from the one before"
        ) from error


def latest_checkpoint(folder: Path) -> tuple[Path | None, list[Path]]:
    """The newest whole checkpoint, if any, and the damaged ones newer than it."""
    damaged: list[Path] = []
    for path in reversed(checkpoints(folder)):
        if is_whole(path):
            return path, damaged
        damaged.append(path)
    return None, damaged


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def is_whole(path: Path) -> bool:
    """Whether every file of a checkpoint is there with the size and hash that its manifest says."""
    try:
        files: Mapping[str, Mapping[str, object]] = json.loads((path / MANIFEST).read_text())["files"]
        return all(
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


def sha256_of(file: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Have the disk keep a folder's files and the folder itself."""
    for file in folder.rglob("*"):
        sync(file)
    sync(folder)


def sync(path: Path) -> None:
    """fsync one file or folder; where the system can't sync a folder (Windows), that is left out."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
