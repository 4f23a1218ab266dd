"""What the libraries raise, in words: memory that runs out, each other's versions, and files that they can make nothing of."""

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
DAMAGED = "fetch the base model again: its files are not those of a whole base"


# What is said where memory runs out beneath torch's own allocator, in small letters: by the drivers, by CUDA's and AMD's libraries, which
# make their handles and workspaces themselves, by oneDNN, by Windows.
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
    "not_initialized when calling `cublascreate",  # its handle found no room
    "unable to find an engine to execute this computation",  # none of cuDNN's had room for its workspace
    "device not ready",  # WSL2, where the driver found none in the host
    "paging file is too small",
)
PAGING_FILE_TOO_SMALL = 1455  # Windows' number of the last
ONEDNN = "could not create a primitive"


def out_of_memory_words(error: Exception) -> str | None:
    """What to say where an error says that a GPU's or the machine's memory ran out; None for any other."""
    if isinstance(error, OSError) and error.errno is not None:  # its text may hold any file's name
        ran_out = error.errno == errno.ENOMEM or getattr(error, "winerror", None) == PAGING_FILE_TOO_SMALL
    else:
        told = str(error).lower()
        ran_out = told == ONEDNN or any(words in told for words in OUT_OF_MEMORY) or should_reduce_batch_size(error)
    return f"memory ran out: {first_line(error)}" if ran_out or isinstance(error, MemoryError) else None


def raise_if_out_of_memory(error: Exception, hint: str) -> None:
    """Raise DoesNotFit where an error says that a GPU's or the machine's memory ran out."""
    if words := out_of_memory_words(error):
        raise DoesNotFit(words, hint) from error


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
            raise DiskError(
                f"can't write to the folder for temporary files, {gettempdir()}: {full.strerror}",
                f"{ADVICE[full.errno or 0]}; TMPDIR names another folder",
            ) from error
        kind = f"{type(error).__name__}: " if isinstance(error, LookupError | AttributeError | TypeError) else ""
        raise ModelUnavailable(f"{what}: {kind}{shortened(first_line(error), 500)}", hint) from error
