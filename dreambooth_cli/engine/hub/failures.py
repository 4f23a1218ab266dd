"""What goes wrong between this machine and the hub, put into words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: what the client raises, whatever its library
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ...bases.base import BaseRequest
from ...bases.cache import hub_cache
from ...errors import DiskError, DreamboothError, ModelUnavailable
from .download import endpoint


def name_of(request: BaseRequest) -> str:
    """What a requested base is called in messages: its name in the catalogue, or what the user typed."""
    return request.entry.name if request.entry else request.asked


@contextmanager
def in_words(request: BaseRequest) -> Iterator[None]:
    """Turn what the hub's client raises into ModelUnavailable or DiskError, with what to do next."""
    try:
        yield
    except (HTTPError, OSError, ValueError, OverflowError) as error:
        raise _explain(error, request) from error


def _explain(error: Exception, request: BaseRequest) -> DreamboothError:
    repository = str(request.repository)
    match error:
        case OfflineModeIsEnabled():
            return _not_here(request, "HF_HUB_OFFLINE is set")
        case GatedRepoError():
            page = f"{endpoint()}/{repository}"
            return ModelUnavailable(
                f"{repository} is gated: its owner asks for consent first",
                f"log in at {page}, press Agree and access repository to accept its licence, then run: hf auth login",
            )
        case RevisionNotFoundError():
            return no_revision(request)
        case RepositoryNotFoundError() | DisabledRepoError():
            return _gone(repository)
        case HfHubHTTPError() if error.response.status_code in (401, 403, 404):
            return _gone(repository)
        case HfHubHTTPError():
            return ModelUnavailable(
                f"the hub can't serve {repository} right now (it answers {error.response.status_code})",
                "try again later; what has arrived so far is kept",
            )
        case HTTPError():
            return _not_here(request, f"the hub can't be reached ({str(error) or type(error).__name__})")
        case OSError():
            return _disk_error(error)
    return ModelUnavailable(
        f"what answers at {endpoint()} is not the hub: {error}", "check the network and HF_ENDPOINT"
    )


def no_revision(request: BaseRequest) -> ModelUnavailable:
    """The error for a revision that a repository does not have."""
    return ModelUnavailable(
        f"{request.repository} has no revision {request.revision}", "name another base: see `dreambooth models`"
    )


def _gone(repository: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"the repository {repository} is gone or private",
        "see `dreambooth models` for bases that are there; for a private one of your own, run: hf auth login",
    )


def _not_here(request: BaseRequest, why: str) -> ModelUnavailable:
    title = f"{request.entry.title} ({request.repository})" if request.entry else str(request.repository)
    return ModelUnavailable(
        f"{title} is not on this machine, and {why}",
        f"once there is a connection, fetch it: dreambooth models pull {name_of(request)}",
    )


def _disk_error(error: OSError) -> DiskError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskError(
            f"the disk that holds {hub_cache()} is full",
            "make room, or set HF_HOME to a folder on a larger disk; what has arrived so far is kept",
        )
    return DiskError(
        f"{error.filename or hub_cache()} can't be written: {error.strerror or error}",
        "check the folder, or set HF_HOME to another",
    )
