"""What can go wrong, in words. Each kind has an exit code that scripts can rely on.

The first line of each docstring is the line of the README's table of exit codes.
"""

LONGEST = 2000  # characters of a message: some libraries put half a file into theirs


class DreamboothError(Exception):
    """A failure with no kind of its own."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        """`message` says what and where; `hint` says what to do next."""
        if len(message) > LONGEST:
            message = f"{message[:LONGEST]}..."
        super().__init__(message)
        self.message = message
        self.hint = hint


class LibraryRefused(DreamboothError):
    """Two libraries whose versions don't work together; the message says which command fixes it."""

    exit_code = 1


class ExportDiffers(DreamboothError):
    """An export that another program would read differently; it is kept under another name."""

    exit_code = 1


class UsageError(DreamboothError):
    """Wrong usage: an option, a value or a prompt."""

    exit_code = 2


class PhotoError(DreamboothError):
    """Bad photos: none that can be used."""

    exit_code = 3


class ProjectError(DreamboothError):
    """A project that is missing, broken or in use by another run."""

    exit_code = 3


class DoesNotFit(DreamboothError):
    """The run does not fit in the memory of the GPU, or of the machine."""

    exit_code = 4


class ModelUnavailable(DreamboothError):
    """A base model or a LoRA that can't be fetched or read: gone, gated, offline, broken, or a pickle."""

    exit_code = 5


class DiskError(DreamboothError):
    """A full disk, a file that can't be written, or damaged files."""

    exit_code = 6


class TrainingFailed(DreamboothError):
    """Training went wrong: the loss is not finite, or no weight changed."""

    exit_code = 7


class Interrupted(DreamboothError):
    """Interrupted by Ctrl-C; the message says what was saved."""

    exit_code = 130


class Terminated(Interrupted):
    """Interrupted by SIGTERM; the message says what was saved."""

    exit_code = 143


class HangUp(Interrupted):
    """Interrupted by SIGHUP, as when the terminal or its connection closes; the message says what was saved."""

    exit_code = 129
