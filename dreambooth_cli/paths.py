"""Where this user's files are, and what a typed path means."""

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from .errors import UsageError


def expanded(path: Path | str) -> Path:
    """A path with `~` replaced by the user's home; if that is not known, unchanged."""
    return Path(os.path.expanduser(path))


def in_home(path: Path | str) -> Path:
    """One of the program's own paths, which may begin with `~`. Raises UsageError if this user has no home."""
    found = expanded(path)
    if str(found).startswith("~"):
        raise no_home()
    return found


def no_home() -> UsageError:
    """The error for a user without a home directory, as in some containers."""
    return UsageError(
        "there is no home directory: HOME is not set, and the system does not know this user",
        "set HOME, or DREAMBOOTH_HOME for the projects and HF_HOME for the models",
    )


def real_path(path: Path | str) -> Path:
    """The absolute path with links followed, as far as possible if they lead round in a circle."""
    return Path(os.path.realpath(expanded(path)))


def home_folder() -> Path:
    """The per-user data directory; `DREAMBOOTH_HOME` moves it. Raises UsageError if this user has no home."""
    moved = os.environ.get("DREAMBOOTH_HOME")
    return expanded(moved) if moved else _of_user(platformdirs.user_data_dir)


def _of_user(find: Callable[..., str]) -> Path:
    """One of the per-user directories. Raises UsageError if this user has no home."""
    try:
        return in_home(find("dreambooth", appauthor=False))
    except RuntimeError as error:
        raise no_home() from error


def cache_folder() -> Path:
    """The folder for what can be made again: class images, digests; beside the projects if `DREAMBOOTH_HOME` is set. Raises UsageError if
    this user has no home."""
    if os.environ.get("DREAMBOOTH_HOME"):
        return home_folder() / "cache"
    return _of_user(platformdirs.user_cache_dir)


PRIVATE = 0o700  # of the folder of all projects, which holds people's photos


def projects_folder() -> Path:
    """The folder of all projects."""
    return home_folder() / "projects"
