"""Uploading a folder to a repository of one's own on the hub. Files that are there already are recognised by their hash and not sent again,
so repeating a call that was cut off goes on from there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: what the client raises, whatever its library
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from ...errors import DiskError, ModelUnavailable, UsageError
from .download import endpoint

LOG_IN = "log in with a token that may write: hf auth login, or set HF_TOKEN"


def check_token() -> None:
    """Before any work: raise UsageError if there is no token, or if HF_HUB_OFFLINE is set. The token itself is never shown."""
    if constants.HF_HUB_OFFLINE:
        raise UsageError("HF_HUB_OFFLINE is set, but a push needs the hub", "unset it")
    if not get_token():
        raise UsageError("there is no token for the hub", LOG_IN)


def upload(folder: Path, repository: str, *, public: bool) -> str:
    """Send a folder's files to a repository, which is created if it does not exist, and return its address. Raises ModelUnavailable if
    the hub refuses it, DiskError if the upload is cut off."""
    with _in_words(repository):
        api = HfApi(endpoint=endpoint(), token=get_token())
        address = str(api.create_repo(repository, private=not public, exist_ok=True))
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add the model")
    return address


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
        raise _cut(repository, type(error).__name__) from error


def _cut(repository: str, why: str) -> DiskError:
    return DiskError(f"the upload to {repository} was cut off: {why}", "run the same command again: it sends what is still missing")
