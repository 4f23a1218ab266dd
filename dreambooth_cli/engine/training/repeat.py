"""Running the same steps twice: kernels that give the same bits each time, and how far two states differ."""

import os
import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ... import __version__
from ..saving import library_versions
from .checkpoint import PARTS, State


def circumstances(device: torch.device) -> dict[str, str | int]:
    """What the last bits of a run's weights depend on besides its settings: versions, the GPU or processor, the number of threads."""
    versions: dict[str, str | int] = {"dreambooth": __version__, **library_versions()}
    if device.type == "cuda":
        return versions | {"GPU": torch.cuda.get_device_name(device)}
    kernels = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return versions | {"processor": kernels, "threads": torch.get_num_threads()}


def copied(state: State) -> State:
    """A copy of a state, in the machine's memory, which later steps do not change."""
    parts = {name: {key: value.cpu().clone() for key, value in getattr(state, name).items()} for name in PARTS}
    return State(state.step, **parts)


def largest_difference(found: State, expected: State) -> tuple[float, str]:
    """The largest absolute difference of any value and the name of its tensor; 0 and "" if all bits are equal."""
    largest, name = 0.0, ""
    for part in PARTS:
        theirs = getattr(expected, part)
        for key, value in getattr(found, part).items():
            if not torch.equal(value.cpu(), theirs[key]):
                apart = (value.cpu().double() - theirs[key].double()).abs().max().item()
                largest, name = max((largest, name), (apart, key))
    return largest, name


class NoFixedForm(Exception):
    """A kernel, given by its name, that has no deterministic form: it gives different bits each time."""


@contextmanager
def deterministic() -> Iterator[None]:
    """Use only kernels that give the same bits each time. Raises NoFixedForm where there is none for what is computed.

    Not torch's `warn_only`, under which attention's backward stays as it is.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, when CUDA wakes
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if (name := _kernel_in(str(error))) is None:
            raise
        raise NoFixedForm(name) from error
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def nearly_deterministic() -> Iterator[set[str]]:
    """Use kernels that give the same bits each time as far as there are any. The names of the other kernels that were used are added to
    the set that this yields."""
    names: set[str] = set()

    def note(message: Warning | str, *rest: object, **options: object) -> None:
        if name := _kernel_in(str(message)):
            names.add(name)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        always = torch.is_warn_always_enabled()
        torch.set_warn_always(True)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield names
        finally:
            torch.use_deterministic_algorithms(False)
            torch.set_warn_always(always)


def _kernel_in(words: str) -> str | None:
    """The kernel that torch's error or warning names as not deterministic; None if it is about something else."""
    found = re.match(r"(\S+) does not have a deterministic implementation", words)
    found = found or re.match(r"(.+? [Aa]ttention) defaults to a non-deterministic algorithm", words)
    return found[1] if found else None
