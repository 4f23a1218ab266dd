"""Backward passes on CUDA tensors where there is no driver.

torch's autograd engine asks CUDA's hooks whether a device has a primary context before it runs a graph with CUDA tensors in it,
and without a driver they raise instead of saying no. Everything else that it asks (streams, devices) is answered by the guard that torch
itself installs for fake tensors. So this one question is answered with yes for as long as a fake card is there: the hooks object gets
a copy of its table of functions in which that entry is ours, and its own table back at the end. The only change in torch's own memory is
the object's pointer to its table; which entry to replace is read from the header that comes with torch. Linux only.
"""

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

HEADER = Path(torch.__file__).parent / "include/ATen/detail/AcceleratorHooksInterface.h"
LIBRARY = Path(torch.__file__).parent / "lib/libtorch_cpu.so"
BEFORE, AFTER = 2, 62  # words of the table that are copied: its type lies before its address, the functions after it


def why_not() -> str:
    """Why there can be no fake card here, in words; "" if there can be one."""
    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is no CUDA build"
    if torch.cuda.is_available():
        return "there is a card: fake tensors would wake its driver"
    if not sys.platform.startswith("linux"):
        return "the autograd engine can be answered for CUDA on Linux alone"
    if not (HEADER.is_file() and "hasPrimaryContext" in virtual_functions()):
        return "this PyTorch's hooks have no question for a primary context"
    return ""


def virtual_functions() -> list[str]:
    """The names of the hooks' virtual functions, in the order of their table."""
    destructor, *others = re.findall(r"virtual [\w:<>*& ]*?(~?\w+)\(", HEADER.read_text())
    return [destructor, destructor, *others]  # a destructor takes two places


@contextmanager
def primary_context() -> Iterator[list[int]]:
    """Have the autograd engine believe that every CUDA device has a primary context. Yields the list of devices that it asked about."""
    asked: list[int] = []

    @ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int8)  # type: ignore[untyped-decorator]  # ctypes' own
    def has_primary_context(hooks: int, device: int) -> bool:
        asked.append(device)
        return True

    find_hooks = ctypes.CDLL(str(LIBRARY))._ZN2at6detail12getCUDAHooksEv
    find_hooks.restype = ctypes.c_void_p
    word = ctypes.c_void_p
    table = ctypes.cast(find_hooks(), ctypes.POINTER(word))
    own, size = table[0], ctypes.sizeof(word)
    assert own is not None
    copy = (word * (BEFORE + AFTER))()
    ctypes.memmove(copy, own - BEFORE * size, (BEFORE + AFTER) * size)
    copy[BEFORE + virtual_functions().index("hasPrimaryContext")] = ctypes.cast(has_primary_context, word).value
    torch._C._ensureCUDADeviceGuardSet()
    table[0] = ctypes.addressof(copy) + BEFORE * size
    try:
        yield asked
    finally:
        table[0] = own
