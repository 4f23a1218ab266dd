"""The hub's cache on disk: where it keeps a repository, and which snapshots lie there."""

import os
import re
from contextlib import AbstractContextManager
from pathlib import Path

import filelock

from ..errors import DiskError, ModelUnavailable
from ..paths import in_home
from .base import BaseRequest
from .folder import missing_parts

COMMIT = re.compile("[0-9a-f]{40}")
# What may become a path in the hub's cache, whoever names it: no `..`, no separator, nothing that a system reserves.
REPOSITORY = re.compile(r"(?!.*(--|\.\.))\w([\w.-]{0,94}\w)?/\w([\w.-]{0,94}\w)?", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)\w([\w.-]*\w)?(/\w([\w.-]*\w)?)*", re.ASCII)
LONGEST_REVISION = 200  # characters


def hub_cache() -> Path:
    """Where huggingface_hub keeps its downloads; its own environment variables are obeyed. Raises UsageError where this user has
    no home."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return in_home(os.path.expandvars(named))


def repository_folder(repository: str) -> Path:
    """Where the hub's cache keeps a repository. Raises ModelUnavailable for what can't be a repository's name."""
    if not REPOSITORY.fullmatch(repository):
        raise ModelUnavailable(f"{repository!r} can't be a hub repository's name", "write it as owner/name")
    return hub_cache() / ("models--" + repository.replace("/", "--"))


def is_revision(revision: str) -> bool:
    """Whether this can be the name of a branch, a tag or a commit, and so of a file in the hub's cache."""
    return len(revision) <= LONGEST_REVISION and REVISION.fullmatch(revision) is not None


def check_inside(root: Path, path: Path) -> None:
    """Raise DiskError where a link below `root` would lead what is written to `path` out of it. `root` may be a link."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise DiskError(f"{path} leads out of {root} through a link; nothing is written there", "remove that link")


def take_download(repository: str) -> AbstractContextManager[object] | None:
    """Take a repository's downloads for this process, so that no two write to one half-fetched file.

    Leaving the context lets them go. None while another process has them. Raises DiskError where the lock is a link out of the cache.
    """
    path = hub_cache() / ".locks" / repository_folder(repository).name / "dreambooth.lock"
    check_inside(hub_cache(), path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return filelock.FileLock(path, blocking=False).acquire()
    except filelock.Timeout:
        return None


def find_snapshot(repository: str, revision: str) -> Path | None:
    """The folder of a hub repository's revision in the hub's cache, or None."""
    if not REPOSITORY.fullmatch(repository) or not is_revision(revision):
        return None
    folder = repository_folder(repository)
    commit = revision if COMMIT.fullmatch(revision) else _commit_of(folder / "refs" / revision)
    snapshot = folder / "snapshots" / commit if commit else None
    return snapshot if snapshot and os.path.isdir(snapshot) else None


def _commit_of(reference: Path) -> str | None:
    """The commit that the cache's note of a branch names; None where there is no note, or it holds anything else."""
    try:
        if not reference.is_file():
            return None
        with reference.open("rb") as opened:
            noted = opened.read(64).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return noted if COMMIT.fullmatch(noted) else None


def find_cached(request: BaseRequest) -> Path | None:
    """The folder of a requested hub base where it lies whole in the hub's cache, or None.

    The same revision from a repository that is gone by now, but was fetched when it was there, serves as well.
    """
    if request.repository is None:
        return None
    for repository in (request.repository, *(request.entry.aliases if request.entry else ())):
        snapshot = find_snapshot(repository, request.revision)
        if snapshot and not missing_parts(snapshot):
            return snapshot
    return None
