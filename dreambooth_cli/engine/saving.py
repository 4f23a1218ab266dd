"""Saving the finished model: a diffusers folder (full fine-tuning) or a LoRA file, laid out as other tools expect it."""

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import accelerate
import diffusers
import peft
import torch
import transformers
from diffusers import ModelMixin
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from ..bases.base import Base
from ..disk import write_json, write_whole
from ..errors import DiskError
from ..machine import give_back
from ..run import LORA_FILE
from .families.latent_diffusion import LatentDiffusion, denoiser_of
from .families.loading import bring_back, pipeline_class, text_encoders_of
from .families.lora import save_lora
from .families.parts import nested
from .tensor_file import write_tensors

OF_TORCH = {"format": "pt"}  # what the libraries write into the header of every weight file


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """Put into words whatever goes wrong while a model is written. Raises DiskError."""
    try:
        yield
    except Exception as error:
        # the tokenizers library raises a bare Exception
        if not isinstance(error, (OSError, SafetensorError)) and type(error) is not Exception:
            raise
        raise DiskError(
            f"the model can't be written to {folder}: {error}",
            "make room on that disk, then run the same command again",
        ) from error


def save_full(pipe: Any, base: Base, folder: Path, *, dtype: torch.dtype, at_most: int | None = None) -> None:
    """Write a whole pipeline as a diffusers folder, its weights in `dtype`. Networks that were freed are loaded from the base again, one
    at a time, and every network is freed once it is written. `at_most` limits the bytes of each file for a rehearsal, as in
    `write_tensors`. Raises DiskError."""
    with written(folder):
        for name in base.facts.family.networks:
            bring_back(pipe, base, dtype=dtype, device=torch.device("cpu"), only=[name])
            save_network(getattr(pipe, name), folder / name, dtype, at_most)
            getattr(pipe, name).to("meta")
            give_back()
        save_rest(pipe, base.facts.family.networks, folder)


def save_rest(pipe: Any, networks: Collection[str], folder: Path) -> None:
    """Write the parts of a pipeline that are not networks: its scheduler, its tokenizers, its index."""
    for name, part in pipe.components.items():
        if name not in networks and part is not None:
            part.save_pretrained(folder / name)
        if name.startswith("tokenizer"):
            # vocab.json and merges.txt besides tokenizer.json: programs older than transformers 5 read only those
            part.backend_tokenizer.model.save(str(folder / name))
    pipe.save_config(folder)
    forget_places(folder)


def save_network(network: Any, folder: Path, dtype: torch.dtype, at_most: int | None = None) -> None:
    """Write a network's config and its weights in `dtype`, from whatever device it is on, one tensor at a time."""
    file, weights = save_network_config(network, folder), nested(network, network.state_dict())
    write_tensors(file, weights, dtype=dtype, metadata=OF_TORCH, at_most=at_most)


def save_network_config(network: Any, folder: Path) -> Path:
    """Write a network's config into a new folder. Returns the path at which its weights belong."""
    folder.mkdir(parents=True)
    is_diffusers = isinstance(network, ModelMixin)
    if is_diffusers:
        network.save_config(folder)
        return Path(folder, diffusers.utils.SAFETENSORS_WEIGHTS_NAME)
    network.config.architectures = [type(network).__name__]
    # transformers loads a text encoder in its config's dtype, diffusers loads a denoiser in float32: the two must agree
    network.config.dtype = "float32"
    network.config.save_pretrained(folder)
    return Path(folder, transformers.utils.SAFE_WEIGHTS_NAME)


def forget_places(folder: Path) -> None:
    """Remove from a model's files the paths of this machine, and of the machine that its base was made on: a model may be published."""
    if (lora := folder / LORA_FILE).is_file():
        _forget_places_in_header(lora)
    for file in folder.rglob("*.json"):
        if file.stem not in ("model_index", "special_tokens_map") and not file.stem.endswith("config"):
            continue
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            continue
        kept = {key: value for key, value in values.items() if not (key.endswith("name_or_path") or _is_place(value))}
        if kept != values:
            write_json(file, kept)


def _forget_places_in_header(lora: Path) -> None:
    """The same for the header of a LoRA, where 0.1, with the peft of its time, wrote the text encoder's path."""
    try:
        with safe_open(lora, framework="pt") as file:
            texts = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{lora} can't be read: {error}") from error
    told = json.loads(texts.get(LORA_ADAPTER_METADATA_KEY, "{}"))
    kept = {key: None if key.endswith("name_or_path") else value for key, value in told.items()}
    if kept != told:
        text = json.dumps(kept, indent=2, sort_keys=True)
        write_whole(lora, save(load_file(lora), texts | {LORA_ADAPTER_METADATA_KEY: text}))


def _is_place(value: Any) -> bool:
    """Whether a config's value is a path or contains one: from a root, a home, the current folder or another machine."""
    if isinstance(value, dict | list):
        return any(map(_is_place, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and bool(re.match(r"(~?[\\/]{1,2}|[A-Za-z]:[\\/]|\.{1,2}[\\/]|file:/*)\w[\w.\\/-]+", value))


def save_adapter(family: LatentDiffusion, folder: Path, *, train_text_encoder: bool, dtype: torch.dtype) -> None:
    """Write the LoRA layers into a folder as `pytorch_lora_weights.safetensors`, which `load_lora_weights` reads. Raises DiskError."""
    modules = {family.record.denoiser: denoiser_of(family), **(text_encoders_of(family.pipe) if train_text_encoder else {})}
    with written(folder):
        save_lora(pipeline_class(family.record), folder, modules, dtype)


def library_versions() -> dict[str, str]:
    """The versions of the libraries that matter for a model, by name, for its card."""
    libraries = (torch, diffusers, transformers, peft, accelerate)
    return {library.__name__: str(library.__version__) for library in libraries}
