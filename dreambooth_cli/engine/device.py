"""The card as torch sees it: whether this build has kernels for it, how much of its memory is free, and a limit where it would spill."""

import os
import platform
import sys
from collections.abc import Collection
from dataclasses import replace

import torch

from ..errors import UsageError
from ..gpu import Gpu, Kind, held_back
from ..machine import free_memory, machine_memory, resident_memory
from ..memory.ledger import CONTEXT
from ..memory.plan import Plan
from ..torch_builds import BUILDS, has_kernels, processor_kind, reinstall_line

FULL = 0.03  # a memory counts as full when less than this part of it is free
BUSY = 1.5  # the processor counts as busy above so many runnable programs for each core
WITHOUT = 'or train without it: CUDA_VISIBLE_DEVICES=""'


def as_torch_has_it(gpu: Gpu | None) -> Gpu | None:
    """The card that torch computes on, in place of the one that was found without torch: it may be one of several, a slice of one, or
    one that only torch can see. A card that torch can't reach is returned unchanged. Raises UsageError if this build has no kernels
    for it.

    The CUDA context that this very question creates counts as free memory, since a plan counts the context itself.
    """
    if (gpu is not None and gpu.kind == "mps") or not torch.cuda.is_available():
        return gpu
    found = torch.cuda.get_device_properties(0)
    is_nvidia = torch.version.hip is None
    capability = (int(found.major), int(found.minor)) if is_nvidia else None
    if capability is not None:
        check_kernels(found.name, capability, torch.cuda.get_arch_list())
    shared = is_integrated()
    if shared:
        # what CUDA calls free leaves out the caches that the system would give back
        total, free = machine_memory(), free_memory()
    else:
        total, free = int(found.total_memory), torch.cuda.mem_get_info(0)[0] + CONTEXT
        if gpu is not None and is_same(gpu, found.name, total):
            return replace(gpu, free=min(gpu.free, free), capability=capability or gpu.capability)
    kind: Kind = "cuda" if is_nvidia else "rocm"
    return Gpu(name=found.name, kind=kind, total=total, free=min(total, free), capability=capability, shared=shared)


def is_same(gpu: Gpu, name: str, total: int) -> bool:
    """Whether a card that was found without torch is the one that torch has: by its name (AMD's drivers give none) and its memory in
    bytes, which the two report slightly differently."""
    return (gpu.name == name or gpu.kind == "rocm") and abs(gpu.total - total) <= 0.05 * total


def check_kernels(name: str, capability: tuple[int, int], architectures: Collection[str], processor: str = "") -> None:
    """Raise UsageError if a PyTorch build for these architectures has no kernels for a card; the hint names a build that has them, if
    one is known. `processor` defaults to this machine's."""
    if not architectures or has_kernels(capability, architectures):
        return
    number = ".".join(map(str, capability))
    has = ", ".join(architectures)
    message = f"{name} has compute capability {number}, and this PyTorch ({torch.__version__}) has no kernels for it, only for {has}"
    build = next((one for one in BUILDS if has_kernels(capability, one.architectures[processor_kind(processor)])), None)
    if build is None:
        raise UsageError(message, f"no build of PyTorch known here has them; {WITHOUT.removeprefix('or ')}")
    raise UsageError(
        message,
        f"the build {build.index} has them ({build.source}): {reinstall_line(build)}; {WITHOUT}",
    )


def bound_memory(plan: Plan) -> None:
    """Have torch refuse to take more memory than is free now, on cards where asking for too much would raise no error; a run that needs
    more then steps down, as it does everywhere else. On Windows and WSL2 the driver would spill into the machine's memory, which is ten
    times slower; where the card shares the machine's memory, the system would kill the run. Elsewhere the driver itself refuses."""
    if plan.device != "cuda":
        return
    shared = is_integrated()
    if shared or spills():
        free, total = torch.cuda.mem_get_info(0)
        free = free_memory() if shared else free
        torch.cuda.set_per_process_memory_fraction(fraction_of(free + torch.cuda.memory_reserved(0), total), 0)


def held_memory(device: torch.device) -> int:
    """Bytes that this process holds. On a GPU: the most that torch's allocator has held, plus the driver's context as the plan counts
    it. On the CPU: resident memory, including the program and its libraries."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) + CONTEXT
    return resident_memory()


def memory_of(device: torch.device) -> int:
    """The GPU's total memory in bytes; the machine's if the device is not a GPU."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else machine_memory()


def peak_memory_gb(device: torch.device) -> float | None:
    """The most GPU memory that this process has held so far, in GB of 1e9 bytes; None on a CPU."""
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else None


def is_integrated() -> bool:
    """Whether torch's card is an NVIDIA one that shares the machine's memory. AMD cards are left out: they also report this for
    graphics processors that have memory of their own set apart."""
    return torch.version.hip is None and bool(getattr(torch.cuda.get_device_properties(0), "is_integrated", False))


def why_slow(device: torch.device) -> str:
    """Why steps take much longer than they did, as far as that can be seen now, and what to do about it."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(0)
        if free < FULL * total:
            moved = ", and what does not fit spills into the machine's, which is far slower" if spills() else ""
            return f"the GPU's memory is full{moved}; close other programs that use it, or start another run with a smaller --resolution"
        if (heat := held_back()) is not None:
            return f"the GPU is slowing itself down because of {heat}"
    if free_memory() < FULL * machine_memory():
        return "the machine's memory is full and it is swapping; close other programs"
    if device.type == "cpu" and hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY * (os.cpu_count() or 1):
        return "other programs are keeping the processor busy"
    return "no reason was found here; it may be other programs, heat or a laptop's power supply"


def fraction_of(free: int, total: int) -> float:
    """The part of a card's memory, 0 to 1, that torch may take: what is free, including what torch itself holds."""
    return min(1.0, max(0.0, free / total))


def spills() -> bool:
    """Whether this system's driver moves what does not fit on a card into the machine's memory."""
    return sys.platform == "win32" or "microsoft" in platform.release().lower()
