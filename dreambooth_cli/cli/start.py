"""What comes before the work of a command: check the environment, install signal handlers, quiet the libraries, then import them."""

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
    """`loading` for torch, which sees only the chosen card where there are several."""
    from ..gpu import hand_over

    hand_over()
    with loading("torch"):
        yield


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Wrap the imports that the work needs. From here on signals only set the flag that `follow` looks at.

    Raises FileNotFoundError if the current folder was deleted, UsageError for an environment variable that the libraries would
    stumble over.
    """
    os.getcwd()  # if the current folder was deleted, Intel's MKL would kill the process without a useful message
    check_variables()
    quiet_libraries()
    stopping.install()
    with spinner(f"loading {what}..."), collector_off():
        yield


def quiet_libraries() -> None:
    """Silence the libraries' own progress bars and warnings; each library reads its variable when it is imported."""
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
    """A spinner beside these words; nothing if not on a terminal."""
    console = messages()
    return console.status(words) if is_live(console) else nullcontext()


@contextmanager
def collector_off() -> Iterator[None]:
    """Imports make a million objects that all stay; Python's garbage collector would go over them again and again, a third of the start
    time. It is off inside this block, and ignores those objects afterwards."""
    if gc.get_freeze_count():  # done before in this process
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
