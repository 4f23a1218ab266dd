"""What the environment says about the hub, checked before huggingface_hub reads it: bad values would be a traceback at its import."""

import os
import stat
from contextlib import suppress
from urllib.parse import unquote, urlsplit, urlunsplit

from .errors import UsageError

NUMBERS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT", "DIFFUSERS_TIMEOUT_REMOTE_CODE")
LONGEST_TOKEN = 100_000  # bytes of its file; a true one has 40
DEFAULT_ENDPOINT = "https://huggingface.co"


def check_variables() -> None:
    """Raise UsageError for a variable that would make the libraries' import fail, or read a device endlessly."""
    for name in NUMBERS:
        value = os.environ.get(name)
        if value is not None and not value.strip().isdecimal():
            raise UsageError(f"{name} is {value!r}, not a whole number of seconds", f"set it to a number, or unset {name}")
    try:
        urlsplit(os.environ.get("HF_ENDPOINT", "")).port  # noqa: B018 - read for its ValueError
    except ValueError:
        raise _no_address() from None  # what the library says may quote a password
    with suppress(OSError):  # if it can't be read, that is reported later
        token = os.stat(os.environ.get("HF_TOKEN_PATH") or os.devnull)
        if token.st_size > LONGEST_TOKEN or (stat.S_ISCHR(token.st_mode) and not os.path.samestat(token, os.stat(os.devnull))):
            raise UsageError("HF_TOKEN_PATH is not a file with a token", "name the file, or unset HF_TOKEN_PATH")


def split_endpoint(endpoint: str) -> tuple[str, str | None]:
    """An endpoint's address without credentials, and those as `user:password` or None. An empty one is the hub's own.

    Raises UsageError, without the value, which may hold a password.
    """
    if not endpoint:
        return DEFAULT_ENDPOINT, None
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or parts.query or parts.fragment or not endpoint.isascii() or not endpoint.isprintable():
        raise _no_address()
    if " " in endpoint or "\\" in endpoint:
        raise _no_address()
    credentials, _, host = parts.netloc.rpartition("@")
    address = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    return address, unquote(credentials) if credentials else None


def _no_address() -> UsageError:
    return UsageError("HF_ENDPOINT is not a web address", f"write it like {DEFAULT_ENDPOINT}, or unset it")
