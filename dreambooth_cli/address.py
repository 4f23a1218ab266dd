"""Names for a repository on the Hugging Face hub: owner/name, owner/name@revision, or the address of one of its pages."""

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from .errors import ModelUnavailable
from .text import shortened

HOSTS = ("huggingface.co", "hf.co")
PAGES = re.compile(r"hf://|git@hf\.co:|(?:https?://(?:[^/@]*@)?)?(?:www\.)?(?P<host>[\w.-]+(?::\d+)?)/", re.IGNORECASE)
NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)[\w-][\w.-]{0,127}(?:/[\w-][\w.-]{0,127}){0,3}", re.ASCII)
OTHER_KINDS = {"datasets": "a dataset", "spaces": "a space", "collections": "a collection", "papers": "a paper"}
OF_A_REVISION = ("tree", "blob", "resolve", "raw", "commit", "commits")
WEIGHTS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
REPOSITORY = "repositories on the hub are named owner/name"


@dataclass(frozen=True)
class Address:
    """A repository, owner/name, and its revision: a branch, tag or commit, "" if none is given."""

    repository: str
    revision: str


def read_address(model: str) -> Address:
    """The repository and revision that a name or an address means. Raises ModelUnavailable, with what to do, if it can't be one."""
    path = _page(model)
    if path is None:
        if "://" in model:
            raise ModelUnavailable(
                f"{_shown(model)} is an address elsewhere: models are fetched only from the Hugging Face hub", _by_hand(model)
            )
        name, at, revision = model.rstrip("/").partition("@")
        return _checked(model, name.removesuffix(".git").split("/"), revision, has_revision=bool(at))
    parts = [unquote(part) for part in path.split("/") if part]
    if parts[:1] and parts[0] in OTHER_KINDS:
        raise ModelUnavailable(f"{_shown(model)} is {OTHER_KINDS[parts[0]]}, not a model", REPOSITORY)
    if parts[:1] == ["api"]:
        parts = parts[1:]
    if parts[:1] == ["models"]:
        parts = parts[1:]
    name, at, revision = "/".join(parts[:2]).partition("@")
    if len(parts) > 3 and parts[2] in OF_A_REVISION:
        inner = parts[4:] if parts[3] != "refs" else parts[6:]
        stated = "/".join(parts[3 : len(parts) - len(inner)])
        revision, at = ("", "") if stated == "main" else (stated, "@")  # every page of a repository says main
        _check_inner(model, name, parts[2], inner)
    return _checked(model, name.removesuffix(".git").split("/"), revision, has_revision=bool(at))


def _page(model: str) -> str | None:
    """The path of an address of the hub, or of the mirror that HF_ENDPOINT names; None for anything else."""
    found = PAGES.match(model)
    if found is None:
        return None
    mirror = re.sub(r"^https?://(?:[^/@]*@)?|/.*", "", os.environ.get("HF_ENDPOINT", ""))
    hosts = {*HOSTS, mirror} if mirror else {*HOSTS}
    if found["host"] is not None and found["host"].lower() not in hosts:
        return None
    return re.split(r"[?#]", model[found.end() :])[0]


def _check_inner(model: str, name: str, page: str, inner: list[str]) -> None:
    """Raises ModelUnavailable for the address of one file of weights, or of a folder, within a repository."""
    if not inner:
        return
    if len(inner) == 1 and inner[0].lower().endswith(WEIGHTS):
        raise ModelUnavailable(
            f"{_shown(model)} is one file of {name}, but only whole repositories are fetched",
            f"{_by_hand(inner[0])}; or take the repository, if it is in diffusers' layout: --model {name}",
        )
    if page == "tree":
        raise ModelUnavailable(
            f"{_shown(model)} is a folder within {name}, but only whole repositories are fetched", f"take all of it: --model {name}"
        )


def _checked(model: str, parts: list[str], revision: str, *, has_revision: bool) -> Address:
    """The address made of these parts. Raises ModelUnavailable if they can't be an owner, a name and a revision."""
    if len(parts) != 2 or not all(NAME.fullmatch(part) for part in parts):
        raise ModelUnavailable(
            f"{_shown(model)} can't be a repository on the hub", f"{REPOSITORY}, for example CompVis/stable-diffusion-v1-4"
        )
    if has_revision and not REVISION.fullmatch(revision):
        raise ModelUnavailable(
            f"{shortened(repr(revision))} can't be a revision", "name a branch, a tag or a commit: --model owner/name@main"
        )
    return Address("/".join(parts), revision)


def _shown(model: str) -> str:
    """An address for a message, without any password or token in it."""
    return shortened(re.sub(r"(?<=://)[^/@]*@|[?#].*", "", model, flags=re.DOTALL)) or "it"


def _by_hand(model: str) -> str:
    """What to do about a file that the user has to download."""
    name = PurePosixPath(re.split(r"[?#]", model)[0]).name
    if name.lower().endswith(PICKLES):
        return "that file is a pickle, which is never loaded: look for the same model as .safetensors, download that and name it"
    file = name if name.lower().endswith(".safetensors") else "model.safetensors"
    return f"download the file, then name it: --model ./{file}"
