"""Uploading a folder to a repository of one's own on the hub. Weights go to its store in chunks (Xet), small files with the commit. Files
and chunks that are there already are recognised by their hash and not sent again, so repeating a call that was cut off continues it."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: what the client raises, whatever its library
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from ... import stopping
from ...errors import DiskError, ModelUnavailable, UsageError
from .download import endpoint

LOG_IN = "log in with a token that has write access: hf auth login, or set HF_TOKEN"
# The store's client raises ConnectionError, whatever happened; what the hub has answered stands only in its text.
REFUSED = re.compile(r"HTTP status client error \((40[134])\b")


def check_token() -> None:
    """Before any work: raise UsageError if there is no token, or if HF_HUB_OFFLINE is set. The token itself is never shown."""
    if constants.HF_HUB_OFFLINE:
        raise UsageError("HF_HUB_OFFLINE is set, but a push needs the hub", "unset it")
    if not get_token():
        raise UsageError("there is no token for the hub", LOG_IN)


def upload(folder: Path, repository: str, *, public: bool) -> str:
    """Send a folder's files to a repository, which is created if it does not exist, and return its address. Raises ModelUnavailable if
    the hub refuses it, DiskError if the upload is cut off, Interrupted if a signal has come."""
    with _in_words(repository):
        api = HfApi(endpoint=endpoint(), token=get_token())
        address = str(api.create_repo(repository, private=not public, exist_ok=True))
        _until_stopped(lambda: api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add the model"))
    return address


def _until_stopped(work: Callable[[], Any]) -> None:
    """Do work that may take an hour and calls nothing back: in a thread, which is left to itself if a signal comes."""
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    while not wait([done], timeout=0.2).done:
        stopping.check()
    done.result()


@contextmanager
def _in_words(repository: str) -> Iterator[None]:
    try:
        yield
    except OfflineModeIsEnabled as error:
        raise UsageError("HF_HUB_OFFLINE is set, but a push needs the hub", "unset it") from error
    except RepositoryNotFoundError as error:
        raise ModelUnavailable(f"the hub does not know {repository}, or does not show it to this token", LOG_IN) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status < 500 and status != 429:
            raise ModelUnavailable(f"the hub refuses {repository} (it answers {status})", LOG_IN) from error
        raise _cut(repository, f"it answers {status}") from error
    except (HTTPError, OSError) as error:
        if (refused := REFUSED.search(str(error))) is not None:
            raise ModelUnavailable(f"the hub refuses {repository} (it answers {refused[1]})", LOG_IN) from error
        raise _cut(repository, type(error).__name__) from error


def _cut(repository: str, why: str) -> DiskError:
    return DiskError(f"the upload to {repository} was cut off: {why}", "run the same command again: it sends what is still missing")
