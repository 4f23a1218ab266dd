"""The card as torch has it: whether this build has kernels for it, what is free of its memory, and a bound where it would spill."""

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

FULL = 0.03  # part of a memory that is free where it is called full
BUSY = 1.5  # runnable programs for each core
WITHOUT = 'or train without it: CUDA_VISIBLE_DEVICES=""'


def as_torch_has_it(gpu: Gpu | None) -> Gpu | None:
    """The card that torch computes on, in place of what was seen without it: one of several, a slice, or one that nothing else
    shows. What torch can't reach stays as it was seen. Raises UsageError where this build has no kernels for it.

    Its free memory has room for the context that CUDA makes by this very question, as a plan counts that itself.
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
        # what CUDA calls free leaves out what the system would give back
        total, free = machine_memory(), free_memory()
    else:
        total, free = int(found.total_memory), torch.cuda.mem_get_info(0)[0] + CONTEXT
        if gpu is not None and is_same(gpu, found.name, total):
            return replace(gpu, free=min(gpu.free, free), capability=capability or gpu.capability)
    kind: Kind = "cuda" if is_nvidia else "rocm"
    return Gpu(name=found.name, kind=kind, total=total, free=min(total, free), capability=capability, shared=shared)


def is_same(gpu: Gpu, name: str, total: int) -> bool:
    """Whether a card that was seen without torch is torch's: by its name, and by its memory, of which the driver shows a little less
    to one than to the other. AMD's have no name there."""
    return (gpu.name == name or gpu.kind == "rocm") and abs(gpu.total - total) <= 0.05 * total


def check_kernels(name: str, capability: tuple[int, int], architectures: Collection[str], processor: str = "") -> None:
    """Raises UsageError where a build of PyTorch for these architectures has no kernels for a card, naming one that has, if any is
    known. `processor` is this machine's, unless one is given."""
    if not architectures or has_kernels(capability, architectures):
        return
    number = ".".join(map(str, capability))
    has = ", ".join(architectures)
    message = f"{name} has compute capability {number}, and this PyTorch ({torch.__version__}) has no kernels for it, only for {has}"
    build = next((one for one in BUILDS if has_kernels(capability, one.architectures[processor_kind(processor)])), None)
    if build is None:
        raise UsageError(message, f"no build of PyTorch is known that has them; {WITHOUT.removeprefix('or ')}")
    raise UsageError(
        message,
        f"the build {build.index} has them ({build.source}): {reinstall_line(build)}; {WITHOUT}",
    )


def bound_memory(plan: Plan) -> None:
    """Where a card would take more than its memory without an error, have torch refuse what is more than is free now: a run that needs
    more then steps down as anywhere. On Windows and WSL2 it spills into the machine's memory, ten times slower; where it shares that
    memory, the system ends the run. Elsewhere the driver refuses it itself."""
    if plan.device != "cuda":
        return
    shared = is_integrated()
    if shared or spills():
        free, total = torch.cuda.mem_get_info(0)
        free = free_memory() if shared else free
        torch.cuda.set_per_process_memory_fraction(fraction_of(free + torch.cuda.memory_reserved(0), total), 0)


def held_memory(device: torch.device) -> int:
    """Bytes that this process holds: on a GPU the most that its allocator has had, and the driver's context as the plan counts
    it; without one what is resident, the program and its libraries with it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) + CONTEXT
    return resident_memory()


def memory_of(device: torch.device) -> int:
    """Bytes of the GPU's memory in all; of the machine's where there is none."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else machine_memory()


def peak_memory_gb(device: torch.device) -> float | None:
    """The most GPU memory that this process has held so far, in GB of 1e9 bytes; None on a CPU."""
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else None


def is_integrated() -> bool:
    """Whether torch's NVIDIA card works in the machine's memory. AMD's say so of processors' graphics with memory set apart for them."""
    return torch.version.hip is None and bool(getattr(torch.cuda.get_device_properties(0), "is_integrated", False))


def why_slow(device: torch.device) -> str:
    """What can be seen now of why steps take much longer than they did, and what to do."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(0)
        if free < FULL * total:
            moved = " and what has no room there lies in the machine's, which is far slower" if spills() else ""
            return f"the GPU's memory is full{moved}; close other programs that use it, or begin another run with a smaller --resolution"
        if (heat := held_back()) is not None:
            return f"the GPU holds itself back because of {heat}"
    if free_memory() < FULL * machine_memory():
        return "the machine's memory is full, and it swaps; close other programs"
    if device.type == "cpu" and hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY * (os.cpu_count() or 1):
        return "other programs keep the processor busy"
    return "nothing seen here says why; other programs, heat or a laptop's power supply may"


def fraction_of(free: int, total: int) -> float:
    """The part of a card's memory that torch may take: what is free, its own included."""
    return min(1.0, max(0.0, free / total))


def spills() -> bool:
    """Whether this system's driver moves what a card has no room for into the machine's memory."""
    return sys.platform == "win32" or "microsoft" in platform.release().lower()
