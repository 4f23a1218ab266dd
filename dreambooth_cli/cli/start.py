"""What comes before the work of a command: the environment looked at, signals taken, the libraries quiet, then their import."""

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from .. import stopping
from ..hub_variables import check_variables
from .console import is_live, messages

LIBRARIES = "torch|diffusers|transformers|huggingface_hub|peft|accelerate|bitsandbytes"


@contextmanager
def loading_torch() -> Iterator[None]:
    """`loading` of torch, which then sees the one card that was chosen, where there are several."""
    from ..gpu import hand_over

    hand_over()
    with loading("torch"):
        yield


@contextmanager
def loading(what: str) -> Iterator[None]:
    """The start of the work, around the imports that it needs. From here on signals only set the flag that `follow` looks at.

    Raises FileNotFoundError where the current folder was deleted, UsageError for a variable of the environment that the libraries
    would stumble over.
    """
    os.getcwd()  # where the current folder was deleted, Intel's MKL would end the process without a word that helps
    check_variables()
    quiet_libraries()
    stopping.install()
    with spinner(f"loading {what}..."), collector_off():
        yield


def quiet_libraries() -> None:
    """Keep the libraries' own bars and warnings out of ours; each reads its variable when it is imported."""
    wanted = {
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    for name in ("bitsandbytes", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for kind in (FutureWarning, DeprecationWarning, UserWarning):
        warnings.filterwarnings("ignore", category=kind, module=rf"({LIBRARIES})(\..*)?")


def spinner(words: str) -> AbstractContextManager[Any]:
    """Something that turns beside these words, on a terminal."""
    console = messages()
    return console.status(words) if is_live(console) else nullcontext()


@contextmanager
def collector_off() -> Iterator[None]:
    """Imports make a million objects that all stay: Python's garbage collector would go over them again and again, a third of the
    start. It goes on after, and never looks through them."""
    if gc.get_freeze_count():  # what is imported was put aside before
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
