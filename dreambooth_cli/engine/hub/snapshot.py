"""Downloading the chosen files of one repository, at one revision, into the cache."""

import shutil
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import OfflineModeIsEnabled

from ... import stopping
from ...bases.base import BaseRequest
from ...bases.cache import COMMIT, check_inside, hub_cache, is_revision, repository_folder, take_download
from ...bases.catalog import KNOWN_WEIGHTS
from ...disk import clear_leftovers, make_folder, write_whole
from ...errors import DiskError, ModelUnavailable
from ...events import BytesFetched, Event, Noted, PhaseStarted, Warned
from . import listing
from .download import RemoteFile, bring, bytes_there, endpoint, read_answer
from .failures import name_of, no_revision
from .files import is_weight

LOOK_AGAIN = 0.2  # seconds between two checks whether another process has finished


def fetch_snapshot(
    request: BaseRequest, choose: Callable[[list[str]], list[str]], look: Callable[[Path], None] | None = None
) -> Generator[Event, None, Path]:
    """Fetch the files of a repository that `choose` picks from their names, configs first, yielding events of progress; `look` may check
    the folder, and raise, before any weights are fetched. Returns the snapshot's folder. To be called within `failures.in_words`."""
    repository, store = str(request.repository), repository_folder(str(request.repository))
    if not is_revision(request.revision):
        raise no_revision(request)
    if is_offline_mode():
        raise OfflineModeIsEnabled("HF_HUB_OFFLINE is set")
    commit, files, licence = _list_files(repository, request.revision, choose)
    if request.entry is not None and licence and licence != request.entry.licence.lower().replace(" ", "-"):
        known = f"the catalogue has {request.entry.licence}"
        yield Warned(message=f"the hub gives {licence} as the licence of {repository}, but {known}: read it before you pass a model on")
    unknown = [file.name for file in files if file.digest is None]
    if unknown:
        yield Warned(message=f"{endpoint()} lists no hash for {', '.join(unknown)}; only the size can be checked")
    held = yield from _wait_for_turn(repository)
    with held:
        there = {file.name: bytes_there(file, store, commit) for file in files}
        total, done = sum(file.size for file in files), sum(there.values())
        _check_room(name_of(request), total - done)
        yield PhaseStarted(name=f"download {name_of(request)}", total=total, done=done, unit="B")
        for file in files:
            if look is not None and is_weight(file.name):
                look(store / "snapshots" / commit)
                look = None
            before = done - there[file.name]
            url = f"{endpoint()}/{repository}/resolve/{commit}/{file.name}"
            with closing(bring(url, file, store, commit)) as brought:
                for so_far in brought:
                    yield BytesFetched(file=file.name, done=before + so_far, total=total)
            done = before + file.size
        _write_reference(store, request.revision, commit)
    return store / "snapshots" / commit


def _list_files(
    repository: str, revision: str, choose: Callable[[list[str]], list[str]]
) -> tuple[str, list[RemoteFile], str]:
    """The commit that a revision stands for, its chosen files, configs first, and the licence that the hub gives."""
    url = f"{endpoint()}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
    answer = read_answer(url, listing.LIMIT)
    commit, listed = listing.read_listing(answer, revision)
    chosen = set(choose([file.name for file in listed]))
    files = [file for file in listed if file.name in chosen]
    listing.check_chosen(files, (name for name in chosen if not is_weight(name)))
    files = _held_against_known(repository, revision, files)
    return commit, sorted(files, key=lambda file: (is_weight(file.name), file.name)), listing.licence_in(answer)


def _wait_for_turn(repository: str) -> Generator[Event, None, AbstractContextManager[object]]:
    """Take the lock on a repository's downloads as soon as no other process has it; a `with` releases it. Raises Interrupted."""
    told = False
    while (held := take_download(repository)) is None:
        if not told:
            yield Noted(message=f"another process is fetching {repository}; waiting for it")
        told = True
        stopping.check()
        time.sleep(LOOK_AGAIN)
    return held


def _held_against_known(repository: str, revision: str, files: list[RemoteFile]) -> list[RemoteFile]:
    """The files that the hub lists, compared with the hashes that the catalogue knows for a pinned revision.

    Where the hub lists no hash, the catalogue's is taken. Raises ModelUnavailable if the two differ.
    """
    known = KNOWN_WEIGHTS.get((repository, revision), {})
    files = [replace(file, digest=file.digest or known.get(file.name)) for file in files]
    other = next((file for file in files if known.get(file.name, file.digest) != file.digest), None)
    if other is not None:
        raise ModelUnavailable(
            f"{endpoint()} serves a changed {other.name} of {repository} (its sha256 is not the catalogue's)",
            "check HF_ENDPOINT and the network; to use those weights all the same, download them and name their folder",
        )
    return files


def _check_room(name: str, missing: int) -> None:
    cache = hub_cache()
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if missing > free:
        raise DiskError(
            f"{name} takes {missing / 1e9:.1f} GB more, but {cache} has only {free / 1e9:.1f} GB free",
            "make room, or set HF_HOME to a folder on a larger disk",
        )


def _write_reference(store: Path, revision: str, commit: str) -> None:
    """Note in the cache which commit a branch stood for. This comes last: a newer commit that is only half fetched must not hide an older
    whole one."""
    if not COMMIT.fullmatch(revision):
        reference = store / "refs" / revision
        check_inside(store, reference.parent)
        make_folder(reference.parent)
        clear_leftovers(reference.parent)
        write_whole(reference, commit.encode())
