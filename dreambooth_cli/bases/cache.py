"""The hub's cache on disk: where it keeps a repository, and which snapshots are there."""

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
# What may become a path in the hub's cache, whoever names it: no `..`, no other separators, nothing that a system reserves.
REPOSITORY = re.compile(r"(?!.*(--|\.\.))\w([\w.-]{0,94}\w)?/\w([\w.-]{0,94}\w)?", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)\w([\w.-]*\w)?(/\w([\w.-]*\w)?)*", re.ASCII)
LONGEST_REVISION = 200  # characters


def hub_cache() -> Path:
    """Where huggingface_hub keeps its downloads, by the same environment variables. Raises UsageError if this user has no home."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return in_home(os.path.expandvars(named))


def repository_folder(repository: str) -> Path:
    """Where the hub's cache keeps a repository. Raises ModelUnavailable if this can't be a repository's name."""
    if not REPOSITORY.fullmatch(repository):
        raise ModelUnavailable(f"{repository!r} can't be a hub repository's name", "write it as owner/name")
    return hub_cache() / ("models--" + repository.replace("/", "--"))


def is_revision(revision: str) -> bool:
    """Whether this can be the name of a branch, tag or commit, and so of a file in the hub's cache."""
    return len(revision) <= LONGEST_REVISION and REVISION.fullmatch(revision) is not None


def check_inside(root: Path, path: Path) -> None:
    """Raise DiskError if a link below `root` would make a write to `path` end up outside `root`, which may itself be a link."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise DiskError(f"{path} leads out of {root} through a link; nothing is written there", "remove that link")


def take_download(repository: str) -> AbstractContextManager[object] | None:
    """Lock a repository's downloads for this process, so that no two processes write to the same half-fetched file.

    Leaving the context releases the lock. None while another process has it. Raises DiskError if the lock is a link out of the cache.
    """
    path = hub_cache() / ".locks" / repository_folder(repository).name / "dreambooth.lock"
    check_inside(hub_cache(), path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return filelock.FileLock(path, blocking=False).acquire()
    except filelock.Timeout:
        return None


def find_snapshot(repository: str, revision: str) -> Path | None:
    """The folder of this revision of a repository in the hub's cache, whole or not; None if there is none."""
    if not REPOSITORY.fullmatch(repository) or not is_revision(revision):
        return None
    folder = repository_folder(repository)
    commit = revision if COMMIT.fullmatch(revision) else _commit_of(folder / "refs" / revision)
    snapshot = folder / "snapshots" / commit if commit else None
    return snapshot if snapshot and os.path.isdir(snapshot) else None


def _commit_of(reference: Path) -> str | None:
    """The commit in the cache's note of a branch; None if there is no note, or if it contains anything else."""
    try:
        if not reference.is_file():
            return None
        with reference.open("rb") as opened:
            noted = opened.read(64).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return noted if COMMIT.fullmatch(noted) else None


def find_cached(request: BaseRequest) -> Path | None:
    """The folder of a requested hub base if all of it is in the hub's cache, else None.

    The same revision, fetched at the time from a repository that is now gone, will do as well.
    """
    if request.repository is None:
        return None
    for repository in (request.repository, *(request.entry.aliases if request.entry else ())):
        snapshot = find_snapshot(repository, request.revision)
        if snapshot and not missing_parts(snapshot):
            return snapshot
    return None
