"""What shapes the weights of a run is said here, and nowhere else.

The run's digest names it; all of it is held by content:
- the settings that `settings.py` marks with `shapes`, as they were asked for;
- the prepared photos, in their order: it decides which example stands at which step. How they were prepared (resolution, crop)
  counts by the pixels that came of it; what a photo is called counts by its place in the order; their captions and masks, where they
  have any;
- the user's own class images, likewise;
- of the base every file that is read: the weights that are loaded (of several variants the one), its configs, its tokenizers' files,
  the scheduler's config; of a single file also the configs that it is loaded with. Not what else lies in its folder, not where it lies,
  and not the hub's word for it.

Frozen in plan.json at the first start, and held from then on: the plan (precision, means, learning rates) and the prompts.

Kept in plan.json as well, and told at resume where it differs, since it can't be undone: the class images that the run was trained on
(they follow from all the above, but another machine's may differ in a bit), the versions of dreambooth and the libraries, the
processor or the GPU, and on a CPU the number of threads.

It is not in it, because no weight depends on it: how often is saved and sampled, the number format of the saved model, and SDXL's
fp16-safe VAE, which only draws and is saved (its revision is the catalogue's): photos are encoded by the base's own.
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

MOST_FORMER = 10_000  # files and folders of a base's folder that 0.1 is taken to have gone through


def run_digest(*, asked: Mapping[str, Any], photos: Sequence[str], class_photos: Sequence[str], base: str) -> str:
    """The name of what shapes a run's weights: settings as asked, sha256 of each prepared photo and own class image in their order,
    the base's content."""
    return _digest({"asked": dict(asked), "photos": list(photos), "class_photos": list(class_photos), "base": base})


def former_run_digest(*, asked: Mapping[str, Any], photos: Sequence[str], class_photos: Sequence[str], base: str) -> str:
    """The name that version 0.1 gave it: in no order, by the base's `identity` of then."""
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
    """What version 0.1 may have called this base: by the hub's revision, by the whole file, or by every .safetensors, .json and .txt
    file in its folder, which that version took for the base; not where that is a folder of everything. Raises OSError."""
    yield base.identity
    if not base.is_single_file and base.repository is None and (found := _former_files(base.path)) is not None:
        yield identify_files(base.path, found)


def _former_files(folder: Path) -> list[Path] | None:
    within = list(islice(folder.rglob("*"), MOST_FORMER + 1))
    if len(within) > MOST_FORMER:
        return None
    return [file for file in within if file.suffix in (".safetensors", ".json", ".txt") and file.is_file()]


def is_same_base(base: Base, identity: object) -> bool:
    """Whether a base is the one that a record names by its identity, of this version or of 0.1."""
    return any(identity == known for known in former_identities(base))
