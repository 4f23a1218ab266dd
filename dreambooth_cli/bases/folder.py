"""A base in diffusers' layout: its parts, and which files of each are read."""

import re
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import ModelUnavailable
from ..families.family import VAE, tokenizer_of
from ..families.known import denoiser_names, families_of, text_encoder_names
from .metadata import REFETCH, read_json

MOST_FILES = 1000  # that are looked at in a part's folder
# the same weights in different number formats, of which the first that is there is loaded; other variants (ema, non_ema) are other weights
VARIANTS = ("", "fp32", "fp16", "bf16")
_VARIANT = r"(?:\.(fp32|fp16|bf16))?"
# a part's weights as the libraries name them: a whole file, a shard, or the index of shards
WEIGHTS = re.compile(
    rf"(diffusion_pytorch_model|model){_VARIANT}(-(\d{{1,5}})-of-(\d{{1,5}}))?{_VARIANT}\.(safetensors|sft)", re.IGNORECASE
)
INDEX = re.compile(rf".*?{_VARIANT}\.safetensors\.index{_VARIANT}\.json", re.IGNORECASE)
TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)


def missing_parts(folder: Path) -> list[str]:
    """The files that training needs and that are missing from a diffusers folder."""
    needed = ["model_index.json", "scheduler/scheduler_config.json"]
    missing = [name for name in needed if not (folder / name).is_file()]
    for part in network_parts(folder):
        if not (folder / part / "config.json").is_file():
            missing.append(f"{part}/config.json")
        missing += [f"{part}/{name}" for name in missing_weights(folder / part)]
    for part in text_encoder_parts(folder):
        tokenizer = folder / tokenizer_of(part)
        if not (tokenizer / "tokenizer.json").is_file():
            missing += [
                f"{tokenizer.name}/{name}" for name in ("vocab.json", "merges.txt") if not (tokenizer / name).is_file()
            ]
    return missing


def missing_weights(folder: Path) -> list[str]:
    """The weight files of one part that are missing: shards that its index or the other shards' names announce, or all."""
    files, named = weight_files(folder), set(_shards(folder))
    if not files:
        return sorted(named) or ["*.safetensors"]
    there = {file.name for file in files}
    found = [WEIGHTS.fullmatch(name) for name in sorted(there)]
    if not all(match and match[3] for match in found):
        # one whole file; an index that does not name it is left over from weights in shards
        return sorted(name for name in named if not (folder / name).is_file()) if named & there else []
    first = found[0]
    assert first is not None
    count = int(first[5])
    if count > MOST_FILES:
        raise ModelUnavailable(f"{folder} says that its weights are in {count:,} files", REFETCH)
    before, after = (f".{variant}" if variant else "" for variant in (first[2], first[6]))
    width, before, after = len(first[4]), f"{first[1]}{before}", f"{after}.{first[7]}"
    counted = {f"{before}-{number:0{width}}-of-{first[5]}{after}" for number in range(1, count + 1)}
    return sorted((counted | named) - there)


def _shards(folder: Path) -> list[str]:
    """The files that a part's index names, if its weights are split into several."""
    indexes = [file for file in files_in(folder) if variant_of(file.name) == "" and INDEX.fullmatch(file.name)]
    maps = [read_json(index).get("weight_map", {}) for index in indexes]
    if not all(isinstance(each, dict) and all(_is_file_name(name) for name in each.values()) for each in maps):
        raise ModelUnavailable(f"the index of the weights in {folder} can't be read", REFETCH)
    return sorted({name for each in maps for name in each.values()})


def _is_file_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) < 200 and re.fullmatch(r"[\w.\-]+", name) is not None


def network_parts(folder: Path) -> list[str]:
    """The names of a diffusers folder's networks, from its model_index.json: the denoiser, the VAE, its text encoders."""
    families = families_of(index_of(folder))
    return [families[0].denoiser if families else denoiser_names()[0], VAE, *text_encoder_parts(folder)]


def text_encoder_parts(folder: Path) -> list[str]:
    """The names of a diffusers folder's text encoders, from its model_index.json."""
    names, index = text_encoder_names(), index_of(folder)
    parts = {name: index.get(name) for name in names}
    return [name for name, part in parts.items() if isinstance(part, list) and part and part[0]] or [names[0]]


def index_of(folder: Path) -> dict[str, Any]:
    """The model_index.json of a diffusers folder; empty where there is none."""
    return read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one part that are loaded: the whole file rather than shards, in one number format of VARIANTS.

    They are chosen by name, but a pickle is not loaded under any name: `read_header` looks at what a file contains.
    """
    found = [(file, match) for file in files_in(folder) if (match := WEIGHTS.fullmatch(file.name))]
    for variant in VARIANTS:
        ours = [(file, match) for file, match in found if variant_of(file.name) == variant]
        whole = [file for file, match in ours if not match[3]]
        if whole:
            return whole[:1]
        if ours:
            count = ours[0][1][5]
            return [file for file, match in ours if match[5] == count]
    return []


def variant_of(name: str) -> str | None:
    """Which of VARIANTS a weight file or an index is; None for any other file."""
    if match := WEIGHTS.fullmatch(name):
        return (match[2] or match[6] or "").lower()
    match = INDEX.fullmatch(name)
    return (match[1] or match[2] or "").lower() if match else None


def files_in(folder: Path) -> list[Path]:
    """The files in a part's folder, sorted, at most MOST_FILES of them; without hidden ones, such as macOS's (`._name`)."""
    with suppress(OSError):
        return sorted(file for file in islice(folder.iterdir(), MOST_FILES) if file.name[:1] != "." and file.is_file())
    return []


def files_read(folder: Path) -> list[Path]:
    """The files of a diffusers folder that are read when it is loaded. Raises ModelUnavailable."""
    return [*config_files(folder), *(file for part in network_parts(folder) for file in weight_files(folder / part))]


def config_files(folder: Path) -> list[Path]:
    """The files of a diffusers folder that say how it is built: configs, indexes of weights, tokenizers. Raises ModelUnavailable."""
    found = [folder / "model_index.json", folder / "scheduler" / "scheduler_config.json"]
    for part in network_parts(folder):
        variant = variant_of(next((file.name for file in weight_files(folder / part)), "")) or ""
        indexes = [file for file in files_in(folder / part) if INDEX.fullmatch(file.name) and variant_of(file.name) == variant]
        found += [folder / part / "config.json", *indexes]
    for encoder in text_encoder_parts(folder):
        tokenizer = folder / tokenizer_of(encoder)
        found += [tokenizer / name for name in TOKENIZER_FILES]
    return [file for file in found if file.is_file()]
