"""What every run on the tests' small bases begins with, done once per process for bases with the same description. It used to take a fifth
of the suite's time. A base that is damaged or rewritten has another description and is tried again."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any


def read_each_base_once() -> None:
    """From now on, the trial of networks without weights, and the reading of tokenizers, happen once for each base."""
    from dreambooth_cli.engine.families import loading, parts

    if not hasattr(loading.try_networks, "__wrapped__"):
        loading.try_networks = _trying_once(loading.try_networks)
        parts.load_tokenizer = _reading_once(parts.load_tokenizer)


def _trying_once(really_try: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    tried: set[Any] = set()

    @wraps(really_try)
    def try_networks(family: Any, device: Any) -> None:
        parts = family.pipe.components.values()
        base = type(family), *(repr(part.config) if hasattr(part, "config") else repr(part) for part in parts)
        if device.type != "meta" or base not in tried:
            really_try(family, device)
            tried.update({base} if device.type == "meta" else ())

    return try_networks


def _reading_once(really_read: Callable[[Path, Any, int], Any]) -> Callable[[Path, Any, int], Any]:
    read: dict[Any, Any] = {}

    @wraps(really_read)
    def load_tokenizer(source: Path, Tokenizer: Any, positions: int) -> Any:
        files = [path.stat() for path in sorted(source.glob("*"))]
        asked = source, tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in files), Tokenizer, positions
        if asked not in read:
            read[asked] = really_read(source, Tokenizer, positions)
        return read[asked]

    return load_tokenizer
