"""What shapes the weights of a run, and so identifies it, is defined here and nowhere else.

The run's digest covers the following, all by content:
- the settings that `settings.py` marks with `shapes`, as they were asked for;
- the prepared photos, in order, which decides which example comes at which step. How they were prepared (resolution, crop) counts
  through the resulting pixels, and file names count through the order; also their captions and masks, if they have any;
- the user's own class images, likewise;
- every file that is read of the base: the weights that are loaded (the chosen one of several variants), its configs, its tokenizers'
  files, the scheduler's config; for a single file also the configs that it is loaded with. Other files in its folder, its path, and its
  name on the hub do not count.

Fixed in plan.json at the first start, and used from then on: the plan (precision, means of saving memory, learning rates) and the prompts.

Also recorded in plan.json, and reported on resuming if different, since that can't be undone: the class images that the run was trained
on (they follow from all of the above, but another machine's may differ in a bit), the versions of dreambooth and the libraries, the
processor or the GPU, and on a CPU the number of threads.

Not included, because no weight depends on it: how often checkpoints and samples are made, the number format of the saved model, and
SDXL's fp16-safe VAE, which is only drawn with and saved (at the catalogue's revision): photos are encoded by the base's own.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .bases.base import Base
from .bases.fingerprint import check_lengths, identify, identify_files
from .bases.folder import config_files

MOST_FORMER = 10_000  # files and folders in a base's folder; 0.1 can't be assumed to have hashed more


def run_digest(*, asked: Mapping[str, Any], photos: Sequence[str], class_photos: Sequence[str], base: str) -> str:
    """The digest of what shapes a run's weights: settings as asked for, the sha256 of each prepared photo and own class image in order,
    and the base's content."""
    return _digest({"asked": dict(asked), "photos": list(photos), "class_photos": list(class_photos), "base": base})


def former_run_digest(*, asked: Mapping[str, Any], photos: Sequence[str], class_photos: Sequence[str], base: str) -> str:
    """The digest that version 0.1 gave it: regardless of order, and with the base's `identity` as computed then."""
    return run_digest(asked=asked, photos=sorted(photos), class_photos=sorted(class_photos), base=base)


def _digest(parts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def content_of(base: Base) -> str:
    """`sha256:...` over every file that is read of a base. Raises ModelUnavailable, OSError."""
    content = identify(base.path)
    if not base.is_single_file or base.config_path is None:
        return content
    files = config_files(base.config_path)
    check_lengths(files)
    configs = identify_files(base.config_path, files)
    return "sha256:" + _digest({"weights": content, "configs": configs, "predicts": base.facts.prediction_type})


def former_identities(base: Base) -> Iterator[str]:
    """The identities that version 0.1 may have given this base: the hub's revision, the hash of the whole file, or that of every
    .safetensors, .json and .txt file in its folder, unless that is a folder of too many files. Raises OSError."""
    yield base.identity
    if not base.is_single_file and base.repository is None and (found := _former_files(base.path)) is not None:
        yield identify_files(base.path, found)


def _former_files(folder: Path) -> list[Path] | None:
    within = list(islice(folder.rglob("*"), MOST_FORMER + 1))
    if len(within) > MOST_FORMER:
        return None
    return [file for file in within if file.suffix in (".safetensors", ".json", ".txt") and file.is_file()]


def is_same_base(base: Base, identity: object) -> bool:
    """Whether a base is the one with this identity, as computed by this version or by 0.1."""
    return any(identity == known for known in former_identities(base))
