"""What GPU is here and how much of its memory is free, without torch: NVML for NVIDIA, sysfs for AMD, psutil for Apple.

Looking never raises: a machine without a GPU is an ordinary machine. What could not be seen is said by `why_none`.
"""

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

Kind = Literal["cuda", "rocm", "mps"]

# Of a card sold as N GB, the part that a desktop and the driver have taken before a run begins.
TAKEN = 0.07
# Apple's memory is shared with everything else; Metal lets a process work on about two thirds of it.
APPLE_SHARE = 2 / 3
# An integrated AMD GPU shows the few hundred MB that the firmware gave it: nothing to train on.
LEAST_AMD_MEMORY = 2 * 2**30
AMD_VENDOR = "0x1002"
DRM, KFD, CPU = Path("/sys/class/drm"), Path("/dev/kfd"), Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU. `total` and `free` are bytes; `capability` is NVIDIA's compute capability, None where it is not known.

    `shared`: it works in the machine's own memory; `alone`: it is only asked about, so that the machine is not held against it.
    """

    name: str
    kind: Kind
    total: int
    free: int
    capability: tuple[int, int] | None = None
    shared: bool = False
    alone: bool = False

    def to_json(self) -> dict[str, Any]:
        """As `models --json` and `plan.json` show it; GB of 1e9 bytes."""
        return {
            "name": self.name,
            "kind": self.kind,
            "total_gb": round(self.total / 1e9, 1),
            "free_gb": round(self.free / 1e9, 1),
        }


def find_gpu() -> Gpu | None:
    """The GPU that torch would use, or None."""
    gpu, _ = _look()
    return gpu


def multiplies_bf16() -> bool:
    """Whether the processor itself multiplies bf16 (avx512_bf16 or AMX). Known on Linux alone; False elsewhere."""
    try:
        flags = CPU.read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def why_none() -> str:
    """What the search could not see, where it found no GPU: `no NVIDIA driver found`."""
    _, reason = _look()
    return reason


def describe(gpu: Gpu | None) -> str:
    """One line about a GPU: its name and its free memory; for None, what could not be seen."""
    if gpu is None:
        return why_none() or "no GPU"
    return f"{gpu.name}, {gpu.free / 1e9:.1f} of {gpu.total / 1e9:.1f} GB free"


def sold_as(gb: float) -> Gpu:
    """A card sold as `gb` GB, for the question whether another card would do: gb x 2^30 bytes, of which 7% are gone."""
    total = round(gb * 2**30)
    return Gpu(name=f"a card of {gb:g} GB", kind="cuda", total=total, free=round(total * (1 - TAKEN)), alone=True)


def _look() -> tuple[Gpu | None, str]:
    reasons = []
    for search in (_nvidia, _amd, _apple):
        gpu, reason = search()
        if gpu is not None:
            return gpu, ""
        reasons.append(reason)
    return None, "; ".join(filter(None, reasons))


def _nvidia() -> tuple[Gpu | None, str]:
    try:
        import pynvml
    except ImportError:
        return None, "" if sys.platform == "darwin" else "NVIDIA cards can't be seen without the package nvidia-ml-py"
    try:
        pynvml.nvmlInit()
    # NVML has two dozen errors, and a broken driver raises ctypes' own: all mean that there is no card to be had.
    except Exception:
        return None, "" if sys.platform == "darwin" else "no NVIDIA driver found"
    try:
        return _first_visible(pynvml)
    except Exception as error:
        return None, f"the NVIDIA driver does not answer: {error}"
    finally:
        pynvml.nvmlShutdown()


def _first_visible(nvml: Any) -> tuple[Gpu | None, str]:
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if not handles:
        return None, "the NVIDIA driver shows no card"
    # NVML counts by place on the bus. CUDA puts the fastest first, unless it is told otherwise.
    if os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        handles.sort(key=lambda handle: (_capability(nvml, handle) or (0, 0), _memory(nvml, handle)[0]), reverse=True)
    chosen = _chosen(nvml, handles, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if chosen is None:
        return None, "CUDA_VISIBLE_DEVICES hides every NVIDIA card"
    total, free = _memory(nvml, chosen)
    name = _text(nvml.nvmlDeviceGetName(chosen))
    return Gpu(name=name, kind="cuda", total=total, free=free, capability=_capability(nvml, chosen)), ""


def _chosen(nvml: Any, handles: list[Any], visible: str | None) -> Any:
    """The handle that CUDA would count as 0 under CUDA_VISIBLE_DEVICES; None where it hides all. NVML ignores that variable."""
    if visible is None:
        return handles[0]
    pick = visible.split(",")[0].strip()
    if pick.isdigit():
        return handles[int(pick)] if int(pick) < len(handles) else None
    if pick.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(pick)
    # A card's UUID may be cut short.
    return next((each for each in handles if pick and _text(nvml.nvmlDeviceGetUUID(each)).startswith(pick)), None)


def _memory(nvml: Any, handle: Any) -> tuple[int, int]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.total), int(memory.free)


def _capability(nvml: Any, handle: Any) -> tuple[int, int] | None:
    try:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    except Exception:
        return None
    return int(major), int(minor)


def _text(value: str | bytes) -> str:
    """Older bindings answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _amd(drm: Path = DRM, kfd: Path = KFD) -> tuple[Gpu | None, str]:
    cards = []
    try:
        for card in sorted(drm.glob("card*")):
            gpu = _amd_card(card / "device") if card.name[4:].isdigit() else None
            if gpu is not None and gpu.total >= LEAST_AMD_MEMORY:
                cards.append(gpu)
    except OSError:
        return None, ""
    if not cards:
        return None, ""
    if not kfd.exists():
        return None, f"{cards[0].name} is there, but no ROCm driver ({kfd})"
    return cards[0], ""


def _amd_card(device: Path) -> Gpu | None:
    try:
        if (device / "vendor").read_text().strip() != AMD_VENDOR:
            return None
        total = int((device / "mem_info_vram_total").read_text())
        used = int((device / "mem_info_vram_used").read_text())
    except (OSError, ValueError):
        return None
    try:
        name = (device / "product_name").read_text(errors="replace").strip()
    except OSError:
        name = ""
    return Gpu(name=name or "AMD GPU", kind="rocm", total=total, free=max(0, total - used))


def _apple() -> tuple[Gpu | None, str]:
    if sys.platform != "darwin" or platform.machine() != "arm64":
        return None, "" if sys.platform != "darwin" else "this Mac has no Apple GPU"
    memory = psutil.virtual_memory()
    free = min(memory.available, int(memory.total * APPLE_SHARE))
    return Gpu(name="Apple GPU (memory shared with the system)", kind="mps", total=memory.total, free=free, shared=True), ""
