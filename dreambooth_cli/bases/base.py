"""A base model: what the user named, and where it is on disk."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ..address import read_address
from ..errors import ModelUnavailable
from ..paths import expanded, real_path
from .catalog import BaseFacts, CatalogEntry, find_entry, nearest_name


@dataclass(frozen=True)
class BaseRequest:
    """What the user named (`asked`): a local path, or a hub repository with a revision; and the catalogue's entry, if there is one."""

    asked: str
    path: Path | None
    repository: str | None
    revision: str
    entry: CatalogEntry | None


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base model on disk. `path` is a diffusers folder or a single .safetensors file; `identity` is its commit on the hub, or
    `sha256:...` of its files; `vae_path` is a VAE that is safe in fp16; `config_path` is the folder with a single file's configs;
    `denoiser_path` is a file with another denoiser, in its makers' layout."""

    name: str
    path: Path
    repository: str | None
    identity: str
    facts: BaseFacts
    vae_path: Path | None = None
    denoiser_path: Path | None = None
    config_path: Path | None = None

    @property
    def is_single_file(self) -> bool:
        """Whether it is one .safetensors checkpoint, not a folder."""
        return self.path.is_file()

    @property
    def vocabulary(self) -> Path | None:
        """The folder with its configs and tokenizers; None for a single file without them."""
        return self.config_path if self.is_single_file else self.path


def ask_for_base(model: str) -> BaseRequest:
    """What a model's name stands for: a path on disk, a name in the catalogue (or the guide's name for it), or a hub repository, which may
    be given by the address of its page or with a revision.

    Raises ModelUnavailable if it can't be any of these.
    """
    model = model.strip()
    model = unquote(re.sub("^file://[^/]*", "", model)) if model.startswith("file://") else model
    path = expanded(model)
    if path.name == "model_index.json" and os.path.isfile(path):  # stands for the folder that it is in
        model, path = str(path.parent), path.parent
    entry = find_entry(model)
    if entry is None and model and os.path.exists(path):
        # a file keeps the name that was given: it may link to a blob in the hub's cache, but its configs are beside the link
        return BaseRequest(model, real_path(path) if path.is_dir() else path.absolute(), None, "", None)
    entry = entry or find_entry(model.rstrip("/"))
    if entry is not None:
        return BaseRequest(model.rstrip("/"), entry.folder, entry.repository, entry.revision, entry)
    is_address = "://" in model or "@" in model or model.lower().startswith(("huggingface.co/", "hf.co/", "www.", "git@"))
    if not is_address:
        _check_may_be_repository(model, path)
    found = read_address(model)
    entry = find_entry(found.repository)
    if entry is not None and found.revision in ("", "main", entry.revision):
        return BaseRequest(found.repository, entry.folder, entry.repository, entry.revision, entry)
    repository = entry.repository if entry and entry.repository else found.repository
    asked = f"{repository}@{found.revision}" if found.revision else repository
    return BaseRequest(asked, None, repository, found.revision or "main", None)


def _check_may_be_repository(model: str, path: Path) -> None:
    """Raise ModelUnavailable for what was evidently meant as a path, or as a name in the catalogue."""
    parts = model.rstrip("/").split("/")
    is_path = model.startswith((".", "/", "~")) or "\\" in model or len(parts) > 2
    if is_path or path.suffix.lower() in (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf"):
        raise ModelUnavailable(f"there is no model at {model}", "check the path, or see `dreambooth models`")
    if len(parts) != 2 or not all(parts):
        near = nearest_name(model)
        hint = f"did you mean {near}?" if near else "see `dreambooth models`, or name a hub repository as owner/name"
        raise ModelUnavailable(f"there is no base model called {model!r}", hint)
