"""What the hub says a repository holds. Nothing in it is believed until it has been checked, since it becomes paths and sizes."""

import json
import re
import reprlib
from collections.abc import Iterable
from typing import Any

from ...bases.cache import COMMIT
from .download import RemoteFile

LIMIT = 8_000_000  # bytes of a listing: some 30,000 files
LARGEST = 10**12  # bytes of one file
LARGEST_CONFIG = 100_000_000  # bytes of a file without weights
MOST_FILES = 200  # fetched for one base
LONGEST_NAME = 200  # characters
DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
NAME = re.compile(r"\w([\w.-]*\w)?(/\w([\w.-]*\w)?)*", re.ASCII)
LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # by Windows, with any suffix


def read_listing(content: bytes, revision: str) -> tuple[str, list[RemoteFile]]:
    """The commit that a revision stands for, and its files, from the hub's answer to `/api/models/...?blobs=true`.

    Raises ValueError if the answer is anything else.
    """
    try:
        listing = json.loads(content)
    except RecursionError:
        raise ValueError("its listing is nested too deeply") from None
    if not isinstance(listing, dict):
        raise ValueError("its listing is not a JSON object")
    commit, siblings = listing.get("sha"), listing.get("siblings")
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise ValueError(f"it lists {_shown(commit)} as its commit")
    if COMMIT.fullmatch(revision) and commit != revision:
        raise ValueError(f"asked for commit {revision}, it lists {commit}")
    if not isinstance(siblings, list):
        raise ValueError(f"it lists {_shown(siblings)} as its files")
    return commit, [_read_file(sibling) for sibling in siblings]


def licence_in(content: bytes) -> str:
    """The repository's licence by the same answer, as the hub spells licences: `apache-2.0`; "" if it gives none."""
    told = json.loads(content).get("cardData")
    said = told.get("license") if isinstance(told, dict) else None
    return said if isinstance(said, str) and LICENCE.fullmatch(said) else ""


def _read_file(sibling: Any) -> RemoteFile:
    if not isinstance(sibling, dict) or not isinstance(sibling.get("rfilename"), str):
        raise ValueError(f"it lists a file without a name: {_shown(sibling)}")
    name, size, lfs = sibling["rfilename"], sibling.get("size"), sibling.get("lfs")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= LARGEST:
        raise ValueError(f"it lists {_shown(size)} as the size of {_shown(name)}")
    if lfs is not None and not isinstance(lfs, dict):
        raise ValueError(f"it lists {_shown(lfs)} as the hash of {_shown(name)}")
    return RemoteFile(name, size, _digest(sibling.get("blobId") if lfs is None else lfs.get("sha256")))


def _digest(listed: Any) -> str | None:
    """A hash as it is listed; None for anything that is not a hash, such as mirrors and proxies send."""
    return listed if isinstance(listed, str) and DIGEST.fullmatch(listed) else None


def check_chosen(files: Iterable[RemoteFile], configs: Iterable[str]) -> None:
    """Check that the names, number and sizes of the files to fetch are possible for one base. Raises ValueError."""
    files, configs = list(files), set(configs)
    if len(files) > MOST_FILES:
        raise ValueError(f"it lists {len(files):,} files for one base, more than any has")
    seen: dict[str, str] = {}
    for file in files:
        if len(file.name) > LONGEST_NAME or not NAME.fullmatch(file.name) or _is_reserved(file.name):
            raise ValueError(f"it lists a file with a name that no file can have: {_shown(file.name)}")
        twin = seen.get(file.name.casefold())
        if twin is not None:  # these are one file on a disk that ignores case
            raise ValueError(f"it lists both {twin} and {file.name}")
        seen[file.name.casefold()] = file.name
        if file.name in configs and file.size > LARGEST_CONFIG:
            raise ValueError(f"it lists {file.name} with {file.size:,} bytes, too many for a config")


def _is_reserved(name: str) -> bool:
    return any(RESERVED.match(part) for part in name.split("/"))


_short = reprlib.Repr()
_short.maxstring, _short.maxother, _short.maxlevel = 80, 80, 2


def _shown(value: Any) -> str:
    """A value from outside, for a message: shortened, and with no control characters that a terminal would obey."""
    return _short.repr(value)
