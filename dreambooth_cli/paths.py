"""Where this user's files lie, and what a path means that was typed."""

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from .errors import UsageError


def expanded(path: Path | str) -> Path:
    """A path with `~` as the user's home; the home of somebody who is not known stays as it is written."""
    return Path(os.path.expanduser(path))


def in_home(path: Path | str) -> Path:
    """A path of the program's own, which may begin with `~`. Raises UsageError where this user has no home."""
    found = expanded(path)
    if str(found).startswith("~"):
        raise no_home()
    return found


def no_home() -> UsageError:
    """The error for a user without a home, as containers have them."""
    return UsageError(
        "there is no home directory: HOME is not set, and this user is not known to the system",
        "set HOME, or DREAMBOOTH_HOME for the projects and HF_HOME for the models",
    )


def real_path(path: Path | str) -> Path:
    """The same path from the root, links followed; where they lead round in a circle, as far as they lead."""
    return Path(os.path.realpath(expanded(path)))


def home_folder() -> Path:
    """The per-user data directory; `DREAMBOOTH_HOME` moves it. Raises UsageError where this user has no home."""
    moved = os.environ.get("DREAMBOOTH_HOME")
    return expanded(moved) if moved else _of_user(platformdirs.user_data_dir)


def _of_user(find: Callable[..., str]) -> Path:
    """One of the per-user directories. Raises UsageError where this user has no home."""
    try:
        return in_home(find("dreambooth", appauthor=False))
    except RuntimeError as error:
        raise no_home() from error


def cache_folder() -> Path:
    """What can be made again: class images, digests. Beside the projects where `DREAMBOOTH_HOME` is set. Raises UsageError where
    this user has no home."""
    if os.environ.get("DREAMBOOTH_HOME"):
        return home_folder() / "cache"
    return _of_user(platformdirs.user_cache_dir)


PRIVATE = 0o700  # of the folder of all projects, which holds people's photos


def projects_folder() -> Path:
    """Where the projects lie."""
    return home_folder() / "projects"
