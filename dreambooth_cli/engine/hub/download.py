"""Downloading one file from the hub to its place in huggingface_hub's cache; it resumes after a broken connection, a crash or a kill.

huggingface_hub's own download starts every file from the beginning in each new process, checks no file against its hash, and takes the
name of a blob from a header. So only its client (proxies, certificates, tokens), its kinds of errors and its cache's layout are used.
What the hub sends is not trusted: its length, its hash, its redirects and the number of requests are all bounded here.
"""

import base64
import hashlib
import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: what the client raises, whatever its library
    DeviceCodeError,
    HfHubHTTPError,
    HTTPError,
    OIDCError,
    RemoteEntryNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

from ... import stopping
from ...bases.cache import check_inside
from ...disk import make_folder, settle, sync
from ...errors import ModelUnavailable, UsageError
from ...hub_variables import split_endpoint

CHUNK = 1 << 20  # bytes written at a time; a request that brings fewer than this counts as a failure
PAUSES: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0, 8.0)  # seconds before each retry, when the hub can't serve right now or sends nothing
LONGEST_PAUSE = 60.0  # seconds, when the hub itself says how long to wait
EVENT_EVERY = 0.1  # least number of seconds between two progress events
TIMEOUT = 20.0  # seconds without a byte
WINDOW, SLOWEST = 60.0, 1024.0  # seconds; bytes a second: fewer than these over this long count as nothing
MOST_REQUESTS = 200  # for one file in one call
MOST_REDIRECTS = 10
ERROR_HEADERS = (b"x-error-code", b"x-error-message", b"retry-after")
PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a hub repository. `size` is in bytes; `digest` is its sha256 (64 hex digits) or git's hash of it (40), or None."""

    name: str
    size: int
    digest: str | None


class _Difference(Exception):
    """What arrives is not what the hub lists; its text says how, to follow the file's name."""


def endpoint() -> str:
    """The hub's address, without any password. Raises UsageError if HF_ENDPOINT is malformed."""
    return split_endpoint(constants.ENDPOINT)[0]


def read_answer(url: str, most: int) -> bytes:
    """The body of a short answer from the hub; asked for again after a pause if the hub can't serve it right now.

    Raises HTTPError, ValueError if it is longer than `most` bytes or not a plain answer, ModelUnavailable, UsageError.
    """
    for pause in PAUSES:
        try:
            return _read_once(url, most)
        except HfHubHTTPError as error:
            if not is_passing(error):
                raise
            _wait(max(pause, _asked_pause(error)))
    return _read_once(url, most)


def bytes_there(file: RemoteFile, store: Path, commit: str) -> int:
    """How many bytes of a file are already in `store`, the cache's folder of its repository."""
    if _holds(_pointer(file, store, commit), file) or (file.digest and _holds(store / "blobs" / file.digest, file)):
        return file.size
    part = _part(file, store, commit)
    return min(part.stat().st_size, file.size) if _is_plain(part) else 0


def bring(url: str, file: RemoteFile, store: Path, commit: str) -> Generator[int, None, None]:
    """Download one file into its snapshot; yields how many bytes of it are on disk, and at the end its size.

    `store` is the cache's folder of the repository; the file's name must have been checked to be safe as a path below it. A file that
    differs from what is listed leaves nothing behind; of one that breaks off, what has arrived is kept. Raises HTTPError, OSError,
    ValueError, DiskError, Interrupted, or ModelUnavailable if what is sent is not what was listed.
    """
    stopping.check()
    pointer, part = _pointer(file, store, commit), _part(file, store, commit)
    blob = store / "blobs" / file.digest if file.digest else None
    if not _holds(pointer, file):
        if blob is None or not _holds(blob, file):
            try:
                yield from _fetch(url, file, store, part)
                blob = store / "blobs" / _checked_digest(file, part)
            except _Difference as difference:
                part.unlink(missing_ok=True)
                raise ModelUnavailable(
                    f"{file.name} {difference}", "run this again: that file is then fetched from the start"
                ) from None
            settle(part, blob)
        _point(pointer, blob, store)
    yield file.size


def is_passing(error: HTTPError) -> bool:
    """Whether trying again may help: too many requests, a server that is out of order, a broken connection."""
    return (
        not isinstance(error, HfHubHTTPError)
        or error.response.status_code in (408, 429)
        or error.response.status_code >= 500
    )


# In the cache


def _pointer(file: RemoteFile, store: Path, commit: str) -> Path:
    return store / "snapshots" / commit / file.name


def _part(file: RemoteFile, store: Path, commit: str) -> Path:
    """Where a file grows while it is downloaded: named by its hash, or if none is known by a hash of commit, name and size."""
    name = file.digest or hashlib.sha256(f"{commit}/{file.name}/{file.size}".encode()).hexdigest()
    return store / "blobs" / f"{name}.incomplete"


def _holds(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _is_plain(part: Path) -> bool:
    """Whether this is a regular file with no other name: through a link, pipe or device something else would be written."""
    return part.is_file() and not part.is_symlink() and part.stat().st_nlink == 1


def _point(pointer: Path, blob: Path, store: Path) -> None:
    """Put a blob into the snapshot as huggingface_hub does: as a relative link, or as the file itself where links can't be made."""
    check_inside(store, pointer.parent)
    make_folder(pointer.parent)
    pointer.unlink(missing_ok=True)  # a link whose blob is gone
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        blob.replace(pointer)
    sync(pointer.parent)


def _checked_digest(file: RemoteFile, part: Path) -> str:
    """Compare what arrived with the hash that the hub lists for it, sha256 or git's. Raises _Difference.

    Returns the hash; for a file without one, the hash that huggingface_hub would name it by.
    """
    is_large = len(file.digest) == 64 if file.digest else file.name.endswith(".safetensors")
    start = b"" if is_large else b"blob %d\0" % file.size
    kind, hashed = ("sha256", hashlib.sha256) if is_large else ("git hash", hashlib.sha1)
    with part.open("rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashed(start, usedforsecurity=False)).hexdigest()
    if file.digest not in (None, digest):
        raise _Difference(f"arrived damaged (its {kind} is not the hub's)")
    return digest


# Over the network


def _fetch(url: str, file: RemoteFile, store: Path, part: Path) -> Generator[int, None, None]:
    """Stream a file to `part` on disk, starting from where that ends, and go on after each broken connection."""
    check_inside(store, part.parent)
    make_folder(part.parent)
    if os.path.lexists(part) and not _is_plain(part):
        part.unlink()
    part.touch()
    failures, last_event = 0, 0.0
    for _ in range(MOST_REQUESTS):
        if (have := part.stat().st_size) > file.size:
            os.truncate(part, have := 0)
        if have == file.size:
            return
        broken: HTTPError | None = None
        try:
            with closing(_stream(url, file, part, have)) as streamed:
                for so_far in streamed:
                    if time.monotonic() - last_event > EVENT_EVERY:
                        yield so_far
                        last_event = time.monotonic()
        except HTTPError as error:
            if not is_passing(error):
                raise
            broken = error
        has_come = part.stat().st_size - have >= min(CHUNK, file.size - have)
        failures = 0 if has_come else failures + 1
        if failures > len(PAUSES):
            raise broken or HTTPError("the hub stopped sending")
        if failures:
            _wait(max(PAUSES[failures - 1], _asked_pause(broken) if broken else 0.0))
    raise HTTPError("the hub broke off again and again")


def _stream(url: str, file: RemoteFile, part: Path, start: int) -> Generator[int, None, None]:
    """Append to `part` what the hub sends from byte `start` on; yields how many bytes are on disk. Raises _Difference, HTTPError."""
    try:
        with _answer(url, start) as response:
            have = start if _continues(response, file, start) else 0
            with _open_part(part) as opened:
                if start and not have:
                    opened.truncate(0)  # the whole file is sent, though only the rest was asked for
                for piece in _pieces(response):
                    have += len(piece)
                    if have > file.size:
                        raise _Difference(f"is longer than the {file.size:,} bytes that the hub lists")
                    opened.write(piece)
                    yield have
    except RemoteEntryNotFoundError:
        raise _Difference("is listed by the hub but is not there") from None
    except HfHubHTTPError as error:
        if error.response.status_code == 416:  # the file ends before the rest begins
            raise _Difference(f"is shorter than the {file.size:,} bytes that the hub lists") from None
        raise
    except ValueError as error:
        raise _Difference(f"does not arrive as the hub lists it: {error}") from None


def _open_part(part: Path) -> Any:
    return part.open("ab", buffering=CHUNK)


def _continues(response: Any, file: RemoteFile, start: int) -> bool:
    """Whether an answer goes on from byte `start` (True) or brings the whole file (False). Raises _Difference if it is neither."""
    announced = response.headers.get("Content-Length", "")
    if response.status_code != 206:
        if announced.isdecimal() and int(announced) != file.size:
            raise _Difference(f"is {int(announced):,} bytes long, but the hub lists {file.size:,}")
        return False
    sent = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
    if not sent or int(sent[1]) != start or sent[2] not in ("*", str(file.size)):
        raise _Difference(f"arrives from another position than the one asked for (byte {start:,} of {file.size:,})")
    return True


def _read_once(url: str, most: int) -> bytes:
    content = bytearray()
    with _answer(url) as response:
        for piece in _pieces(response):
            content += piece
            if len(content) > most:
                raise ValueError(f"it answers with more than {most:,} bytes")
    return bytes(content)


@contextmanager
def _answer(url: str, start: int = 0) -> Iterator[Any]:
    """The hub's answer to a GET from byte `start` on, with redirects followed and no body read yet.

    The client's own way of following redirects is not used: it reads their bodies, however long. Raises HTTPError, ValueError.
    """
    client = _client()
    request = client.build_request("GET", url, headers=_headers(start), timeout=TIMEOUT)
    for _ in range(MOST_REDIRECTS + 1):
        response = client.send(request, stream=True, follow_redirects=False)
        with closing(response):
            if not response.has_redirect_location:
                _check_plain(response)
                yield response
                return
            request = response.next_request  # the client leaves out the token if it leads to another host
            if request is None or request.url.scheme not in ("http", "https"):
                raise ValueError(f"it redirects to something that is not a web address: {response.headers['Location'][:80]!r}")
    raise ValueError("it redirects from one address to the next without end")


def _check_plain(response: Any) -> None:
    """Raise one of huggingface_hub's kinds of HTTPError for a refusal, ValueError for any other answer than the plain content."""
    if response.status_code >= 400:
        # the refusal's body is not read: it may be of any length
        headers = [(name, value) for name, value in response.headers.raw if name.lower() in ERROR_HEADERS]
        hf_raise_for_status(type(response)(response.status_code, headers=headers, request=response.request))
    if response.status_code not in (200, 206):
        raise ValueError(f"it answers {response.status_code}")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise ValueError(f"it compresses what was asked for uncompressed ({encoding[:80]!r})")


def _pieces(response: Any) -> Iterator[bytes]:
    """The body, piece by piece, as it arrives. Raises HTTPError if it arrives too slowly to ever end, Interrupted."""
    since, came = time.monotonic(), 0
    for piece in response.iter_raw():
        stopping.check()
        yield piece
        came += len(piece)
        passed = time.monotonic() - since
        if passed > WINDOW:
            if came < passed * SLOWEST:
                raise HTTPError("the hub is sending next to nothing")
            since, came = time.monotonic(), 0


def _client() -> Any:
    """huggingface_hub's client. Raises ModelUnavailable if the environment's proxy settings can't be used."""
    named = [name for upper in PROXIES for name in (upper, upper.lower()) if os.environ.get(name)]
    try:
        return get_session()
    except ImportError:
        raise ModelUnavailable(
            f"a socks proxy ({', '.join(named)}) needs the package socksio, which is not installed",
            "pipx inject dreambooth-cli socksio (or pip install socksio), or name an http proxy",
        ) from None
    except Exception:  # these errors have no common class; `from None`, since they may quote a proxy's password
        raise ModelUnavailable(
            f"no connection can be made with the settings in {', '.join(named) or 'the environment'}",
            "correct those variables, or unset them",
        ) from None


def _headers(start: int) -> dict[str, str]:
    """The headers of a request from byte `start` on. Raises ModelUnavailable if the token can't be read, UsageError if it can't be
    sent."""
    credentials = split_endpoint(constants.ENDPOINT)[1]
    try:
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    except (OIDCError, DeviceCodeError, OSError, ValueError) as error:
        raise ModelUnavailable(
            f"the token for the hub can't be read: {type(error).__name__}", "run: hf auth login, or set HF_TOKEN"
        ) from error
    if credentials is not None:
        headers["authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
    if not re.fullmatch("[!-~]+ [!-~]+", headers.get("authorization", "Bearer none")):
        raise UsageError(
            "the token for the hub contains a character that no token has (an accent, a space, a line break?)",
            "copy it again from https://huggingface.co/settings/tokens into HF_TOKEN, or run: hf auth login",
        )
    if not re.fullmatch("[ -~]*", headers["user-agent"]):
        raise UsageError("HF_HUB_USER_AGENT_ORIGIN contains characters other than plain ASCII", "unset it")
    return headers | ({"Range": f"bytes={start}-"} if start else {})


def _asked_pause(error: HTTPError) -> float:
    """How many seconds the hub asks to wait; 0 if it does not ask."""
    asked = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return min(float(asked), LONGEST_PAUSE) if asked.isdecimal() else 0.0


def _wait(seconds: float) -> None:
    """Wait this long. Raises Interrupted as soon as a signal comes."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        stopping.check()
        time.sleep(min(left, 0.1))
