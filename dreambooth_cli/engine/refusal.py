"""What the libraries raise, put into words: memory that runs out, versions that don't work together, and files that can't be used."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import gettempdir

from accelerate.utils.memory import should_reduce_batch_size

from ..disk import ADVICE
from ..errors import DiskError, DoesNotFit, DreamboothError, ModelUnavailable
from ..libraries import refusal_of
from ..text import shortened

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DAMAGED = "fetch the base model again: its files are damaged or incomplete"

# What is said, in small letters, when memory runs out below torch's own allocator: by drivers, by CUDA's and AMD's libraries, which
# allocate their handles and workspaces themselves, by oneDNN, by Windows.
OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "cannot allocate memory",
    "can't allocate memory",
    "std::bad_alloc",
    "memoryallocation",  # cudaErrorMemoryAllocation
    "outofmemory",  # hipErrorOutOfMemory
    "_alloc_failed",  # cuBLAS, cuDNN, cuSPARSE, hipBLAS
    "_allocation_failed",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    "statusallocfailed",  # MIOpen
    "rocblas_status_memory_error",
    "not_initialized when calling `cublascreate",  # there was no room for its handle
    "unable to find an engine to execute this computation",  # none of cuDNN's engines had room for its workspace
    "device not ready",  # WSL2, when the driver found no memory in the host
    "paging file is too small",
)
PAGING_FILE_TOO_SMALL = 1455  # Windows' error number for the last one
ONEDNN = "could not create a primitive"  # all that oneDNN says


def out_of_memory_words(error: Exception) -> str | None:
    """What to tell the user if an error means that the GPU's or the machine's memory ran out; None for any other error."""
    if isinstance(error, OSError) and error.errno is not None:  # not by its text, which may contain any file's name
        ran_out = error.errno == errno.ENOMEM or getattr(error, "winerror", None) == PAGING_FILE_TOO_SMALL
    else:
        told = str(error).lower()
        ran_out = told == ONEDNN or any(words in told for words in OUT_OF_MEMORY) or should_reduce_batch_size(error)
    return f"memory ran out: {first_line(error)}" if ran_out or isinstance(error, MemoryError) else None


def raise_if_out_of_memory(error: Exception, hint: str) -> None:
    """Raise DoesNotFit, with this hint, if an error means that the GPU's or the machine's memory ran out."""
    if words := out_of_memory_words(error):
        raise DoesNotFit(words, hint) from error


def with_causes(error: BaseException | None) -> Iterator[Exception]:
    """An error, the one that caused it, and so on: a library may wrap what happened in an error of its own."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: Exception) -> str:
    """The first line of what an error says, or its class where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


@contextmanager
def refused(what: str, hint: str = DAMAGED) -> Iterator[None]:
    """Put into words whatever the libraries raise over damaged or hostile files: `what` failed, and why. Any error in this block is
    blamed on the files, unless memory or a disk ran out, or a library refuses another one's version.

    Raises ModelUnavailable, MemoryError, LibraryRefused, or DiskError where there is no room for temporary files.
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
            # reading writes too: tokenizers are copied to a temporary folder first
            raise DiskError(
                f"can't write to the folder for temporary files, {gettempdir()}: {full.strerror}",
                f"{ADVICE[full.errno or 0]}, or set TMPDIR to another folder",
            ) from error
        kind = f"{type(error).__name__}: " if isinstance(error, LookupError | AttributeError | TypeError) else ""
        raise ModelUnavailable(f"{what}: {kind}{shortened(first_line(error), 500)}", hint) from error
