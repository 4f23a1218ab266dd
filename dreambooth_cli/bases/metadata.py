"""Reading a base's JSON within bounds: its configs, and the headers of its weights. No torch is needed: a safetensors header is JSON after
an 8-byte length."""

import json
import math
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelUnavailable
from ..settings import LARGEST_SEED
from ..text import shortened
from .weights import check_is_safetensors

REFETCH = "fetch the base model again"
MOST_AXES = 8  # of a tensor
MOST_JSON = 10_000_000  # bytes of a config or an index; real ones have a few thousand


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ModelUnavailable if the file is missing, too large, not JSON or not an object."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("it is not a file")
        if state.st_size > MOST_JSON:
            raise ValueError(f"{state.st_size:,} bytes are more than any config has")
        value = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows put a byte order mark before the text
    except (OSError, ValueError, RecursionError) as error:
        raise ModelUnavailable(f"{path} can't be read: {error}", REFETCH) from error
    if not isinstance(value, dict):
        raise ModelUnavailable(f"{path} is not a JSON object", REFETCH)
    return value


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name -> dtype, shape, offsets. Raises ModelUnavailable if it is broken or the file is
    something else."""
    check_is_safetensors(path)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is not a JSON object")
        _check_header(header)
    except (OSError, ValueError, struct.error, RecursionError) as error:
        raise ModelUnavailable(f"{path} is not a whole safetensors file: {error}", "fetch it again") from error
    return header


def _check_header(header: Mapping[str, Any]) -> None:
    """Raise ValueError if an entry is not a tensor with a shape."""
    for name, entry in header.items():
        if name == "__metadata__":
            if not isinstance(entry, dict):
                raise ValueError("its metadata is not a JSON object")
            continue
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(is_count(axis) for axis in shape):
            raise ValueError(f"its header does not say what {shortened(repr(name))} is")


def is_count(value: Any) -> bool:
    """Whether a JSON value is a whole number of reasonable size, 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_SEED


def count_parameters(header: Mapping[str, Any], prefix: str = "") -> int:
    """The number of values in a safetensors header's tensors whose names begin with `prefix`."""
    return sum(
        math.prod(tensor["shape"])
        for name, tensor in header.items()
        if name != "__metadata__" and name.startswith(prefix) and not name.endswith("position_ids")
    )
