"""What the libraries raise, in words: memory that runs out, each other's versions, and files that they can make nothing of."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from accelerate.utils.memory import should_reduce_batch_size

from ..disk import ADVICE
from ..errors import DiskError, DreamboothError, ModelUnavailable
from ..libraries import refusal_of
from ..settings import shortened

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DAMAGED = "fetch the base model again: its files are not those of a whole base"


def out_of_memory_words(error: Exception) -> str | None:
    """What to say where an error says that a GPU's or the machine's memory ran out; None for any other."""
    told = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "Cannot allocate memory")
    on_cpu = str(error) == "could not create a primitive"  # oneDNN's word for it
    if (
        isinstance(error, MemoryError)
        or should_reduce_batch_size(error)
        or on_cpu
        or any(t in str(error) for t in told)
    ):
        return f"memory ran out: {first_line(error)}"
    return None


def with_causes(error: BaseException | None) -> Iterator[Exception]:
    """An error, what it was raised from, and so on: a library may wrap what happened in words of its own."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: Exception) -> str:
    """The first line of what a library says, or the error's kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def refused(what: str, hint: str = DAMAGED) -> Iterator[None]:
    """What the libraries make of damaged or hostile files, in words: any error in here is the files', but for memory or a disk that
    runs out, and a library that refuses another's version.

    Raises ModelUnavailable, MemoryError, LibraryRefused, DiskError where there is no room for what is written on the way.
    """
    try:
        yield
    except DreamboothError:
        raise
    except Exception as error:
        short = next((one for one in with_causes(error) if out_of_memory_words(one)), None)
        if short is not None:
            raise MemoryError(first_line(short)) from error
        if (versions := refusal_of(error)) is not None:
            raise versions from error
        full = next((one for one in with_causes(error) if getattr(one, "errno", None) in NO_ROOM), None)
        if isinstance(full, OSError):
            # something is written even here: what a library is to read lies in a temporary folder
            raise DiskError(f"{what}: {full.strerror}", ADVICE[full.errno or 0]) from error
        kind = f"{type(error).__name__}: " if isinstance(error, LookupError | AttributeError | TypeError) else ""
        raise ModelUnavailable(f"{what}: {kind}{shortened(first_line(error), 500)}", hint) from error
