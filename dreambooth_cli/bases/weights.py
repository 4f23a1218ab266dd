"""What a weight file is, judged by its content and never by its name: safetensors, or something else, which an error names."""

import stat
import struct
from pathlib import Path

from ..errors import ModelUnavailable

MOST_HEADER = 10 * 2**20  # bytes; kohya's headers contain the tags of every training picture
PICKLE = "a pickle, which is never loaded: it could run any program"
PICKLES = (".bin", ".ckpt", ".pt", ".pth")  # the suffixes of pickles
CONVERT = "ask its maker for safetensors, or convert it on a machine you can spare"
FETCH = "fetch it again: it is not the file that it should be"
STARTS = {
    b"version https://git-lfs": ("a Git LFS pointer, not the weights themselves", "fetch them: git lfs pull"),
    b"GGUF": ("a GGUF file, which is not read", "use the safetensors that it was made of"),
    b"\x89HDF": ("an HDF5 file, which is not read", "use safetensors"),
    b"<": ("a web page, not weights", FETCH),
    b"\x89PNG": ("a picture, not weights", FETCH),
    b"\xff\xd8\xff": ("a picture, not weights", FETCH),
}


def check_is_safetensors(path: Path, most_header: int = MOST_HEADER) -> None:
    """Check that a file is safetensors, whatever it is called, with a header of at most `most_header` bytes.

    Raises ModelUnavailable that says what it is instead: a pickle, a device, a Git LFS pointer, a web page.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelUnavailable(f"{path} is not a file", "name a weight file or its folder")
        with path.open("rb") as file:
            start = file.read(512)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{path} can't be read: {getattr(error, 'strerror', None) or error}", "check the file") from error
    again = CONVERT if path.suffix.lower() in PICKLES else "fetch it again"
    if len(start) < 8:
        what = "is empty" if not start else "is cut off"
        raise ModelUnavailable(f"{path} {what}", again)
    (length,) = struct.unpack("<Q", start[:8])
    if length <= status.st_size - 8 and start[8:9] == b"{":
        if length > most_header:
            raise ModelUnavailable(
                f"{path} has a header of {length:,} bytes, more than any real one ({most_header:,})", "fetch it again"
            )
        return
    if is_pickle(start):
        raise ModelUnavailable(f"{path} is {PICKLE}", CONVERT)
    for sign, (what, hint) in STARTS.items():
        if start.lstrip().startswith(sign):
            raise ModelUnavailable(f"{path} is {what}", hint)
    raise ModelUnavailable(f"{path} is not a whole safetensors file", again)


def is_pickle(start: bytes) -> bool:
    """Whether a file's first bytes are those of a pickle: a bare one, torch's zip, or torch's older tar."""
    bare = start[:1] == b"\x80" and start[1] in range(1, 6)
    return bare or start[:4] == b"PK\x03\x04" or start[257:262] == b"ustar" or start[:2] in (b"(d", b"(l", b"co", b"cp")
