"""What GPU is here and how much of its memory is free, without torch: NVML for NVIDIA, sysfs for AMD, psutil for Apple.

Looking never raises: a machine without a GPU is an ordinary machine. `why_none` says what could not be seen. If there are several GPUs,
`hand_over` makes torch use the one that was chosen, and as much of its memory as a plan counts on.
"""

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from .machine import free_memory, machine_memory

Kind = Literal["cuda", "rocm", "mps"]

# Of a card sold as N GB, the part that a desktop and the driver have taken before a run begins.
TAKEN = 0.07
# Apple's memory is shared with everything else; Metal lets a process work on about two thirds of it.
APPLE_SHARE = 2 / 3
# An integrated AMD GPU shows the few hundred MB that the firmware gave it: nothing to train on.
LEAST_AMD_MEMORY = 2 * 2**30
AMD_VENDOR = "0x1002"
DRM, KFD, CPU = Path("/sys/class/drm"), Path("/dev/kfd"), Path("/proc/cpuinfo")
TOPOLOGY = "kfd/kfd/topology/nodes"  # beside DRM: what ROCm counts its cards by
BOARD = Path("/proc/device-tree/model")  # on a Jetson: what it is, with a NUL at the end
SHARED = " (memory shared with the system)"
NOT_SUPPORTED = 3  # NVML's answer for a memory that is not the card's own: GB10, Jetson
THERMAL, POWER_BRAKE = 0x20 | 0x40, 0x80  # of NVML's reasons for a lower clock
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # torch's, the newer name first
NVIDIA_PICK, ROCM_PICK = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
# AMD's runtime takes cards away by the first of these; what is above it counts those that are left, whichever variable it reads
ROCM_PICKS_LEFT = ("HIP_VISIBLE_DEVICES", NVIDIA_PICK, "GPU_DEVICE_ORDINAL")


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU. `total` and `free` are bytes; `capability` is NVIDIA's compute capability, None where it is not known.

    `shared`: it uses the machine's own memory; `alone`: it is only imagined, so plans ignore this machine's memory; `pick`: the
    environment variable, and its value, that makes torch use this one of several, if the user has not chosen; `tflops`: what an NVIDIA
    card's cores can do in float32 at their highest clock; `virtual`: a hypervisor lends a part of a card (vGPU).
    """

    name: str
    kind: Kind
    total: int
    free: int
    capability: tuple[int, int] | None = None
    shared: bool = False
    alone: bool = False
    pick: tuple[str, str] | None = field(default=None, compare=False)
    tflops: float | None = field(default=None, compare=False)
    virtual: bool = field(default=False, compare=False)

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


def hand_over() -> None:
    """Make torch see only the chosen card if there are several and the user has not chosen; and have its allocator grow segments of memory
    instead of adding new ones, which is what a plan counts on, if the user has not set the allocator. Must come before torch starts: CUDA,
    ROCm and the allocator read their variables only once."""
    gpu = find_gpu()
    if gpu is None:
        return
    if gpu.pick is not None:
        variable, value = gpu.pick
        os.environ[variable] = value
    if may_grow(gpu) and not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


def may_grow(gpu: Gpu) -> bool:
    """Whether torch's allocator can grow a segment on this card. It takes virtual memory management: not on Windows, ROCm, Jetson and vGPU,
    and under WSL2 not with drivers before 615 (pytorch/pytorch#192330)."""
    on_linux = sys.platform == "linux" and "microsoft" not in platform.release().lower()
    return on_linux and gpu.kind == "cuda" and not (gpu.shared or gpu.virtual)


def held_back() -> str | None:
    """Why an NVIDIA card says that it runs slower than it could: its heat or its power supply; None if it says no such thing."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            cards = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            card = _chosen(pynvml, cards, os.environ.get(NVIDIA_PICK, "0"))
            reasons = int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(card))
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # no driver, a card that can't tell: nothing is known
        return None
    return "its heat" if reasons & THERMAL else "its power supply" if reasons & POWER_BRAKE else None


@dataclass(frozen=True)
class Driver:
    """NVIDIA's driver: its version, the newest CUDA version it supports, and all its cards, hidden ones too, as (name, capability)."""

    version: str
    cuda: tuple[int, int]
    cards: tuple[tuple[str, tuple[int, int] | None], ...]


def nvidia_driver() -> Driver | None:
    """NVIDIA's driver, whatever CUDA_VISIBLE_DEVICES hides; None if there is none, or it does not answer."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            cards = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())  # 13000 is 13.0
            shown = tuple((_text(pynvml.nvmlDeviceGetName(card)), _capability(pynvml, card)) for card in cards)
            return Driver(_text(pynvml.nvmlSystemGetDriverVersion()), (cuda // 1000, cuda % 1000 // 10), shown)
        finally:
            pynvml.nvmlShutdown()
    except Exception:
        return None


def multiplies_bf16() -> bool:
    """Whether the processor multiplies bf16 natively (avx512_bf16 or AMX). Known only on Linux; False elsewhere."""
    try:
        flags = CPU.read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def why_none() -> str:
    """Why no GPU was found: `no NVIDIA driver found`."""
    _, reason = _look()
    return reason


def describe(gpu: Gpu | None) -> str:
    """One line about a GPU: its name and free memory; for None, why none was found."""
    if gpu is None:
        return why_none() or "no GPU"
    return f"{gpu.name}, {gpu.free / 1e9:.1f} of {gpu.total / 1e9:.1f} GB free"


def sold_as(gb: float) -> Gpu:
    """An imagined card sold as `gb` GB, to see whether another card would do: gb x 2^30 bytes, 7% of which are taken."""
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
        no_bindings = "" if sys.platform == "darwin" else "NVIDIA cards can't be seen without the package nvidia-ml-py"
        return _jetson(), no_bindings
    try:
        pynvml.nvmlInit()
    # NVML has two dozen errors, and a broken driver raises ctypes' own: all mean that there is no card to be had.
    except Exception:
        return _jetson(), "" if sys.platform == "darwin" else "no NVIDIA driver found"
    try:
        return _first_visible(pynvml)
    except Exception as error:
        return None, f"the NVIDIA driver does not answer: {error}"
    finally:
        pynvml.nvmlShutdown()


def _jetson() -> Gpu | None:
    """A Jetson's GPU, which older systems do not show to NVML."""
    try:
        board = BOARD.read_text(errors="replace").rstrip("\0\n")
    except OSError:
        return None
    return _sharing(board, None) if "Jetson" in board else None


def _sharing(name: str, capability: tuple[int, int] | None) -> Gpu:
    """An NVIDIA GPU that works in the machine's memory."""
    total, free = machine_memory(), free_memory()
    return Gpu(name=name + SHARED, kind="cuda", total=total, free=free, capability=capability, shared=True)


def _first_visible(nvml: Any) -> tuple[Gpu | None, str]:
    cards = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if not cards:
        return None, "the NVIDIA driver shows no card"

    def speed(card: Any) -> tuple[tuple[int, int], int]:
        return _capability(nvml, card) or (0, 0), (_memory(nvml, card) or (0, 0))[0]

    # NVML counts by place on the bus. CUDA puts the fastest first, unless it is told otherwise.
    by_bus = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not by_bus:
        cards.sort(key=speed, reverse=True)
    visible = os.environ.get(NVIDIA_PICK)
    if visible is not None:
        chosen = _chosen(nvml, cards, visible)
        return (None, f"{NVIDIA_PICK} hides every NVIDIA card") if chosen is None else (_gpu_of(nvml, chosen), "")
    # a card that is cut up can't be used as a whole
    devices = [(card, each) for card in cards for each in _slices(nvml, card) or [card]]
    if not devices:
        return None, "the NVIDIA driver shows no card"
    best = max(devices, key=lambda pair: (speed(pair[0])[0], _memory(nvml, pair[1]) or (0, 0)))
    _, chosen = devices[0] if by_bus else best
    pick = (NVIDIA_PICK, _text(nvml.nvmlDeviceGetUUID(chosen))) if len(devices) > 1 else None
    return _gpu_of(nvml, chosen, pick), ""


def _gpu_of(nvml: Any, device: Any, pick: tuple[str, str] | None = None) -> Gpu:
    name, capability, memory = _text(nvml.nvmlDeviceGetName(device)), _capability(nvml, device), _memory(nvml, device)
    if memory is None:
        return _sharing(name, capability)
    total, free = memory
    tflops, virtual = _tflops(nvml, device), _is_virtual(nvml, device)
    return Gpu(name=name, kind="cuda", total=total, free=free, capability=capability, pick=pick, tflops=tflops, virtual=virtual)


def _tflops(nvml: Any, device: Any) -> float | None:
    """Cores x clock x 2 (a product and a sum each); None for a part of a card, and where the driver can't tell."""
    with suppress(Exception):
        cores, mhz = nvml.nvmlDeviceGetNumGpuCores(device), nvml.nvmlDeviceGetMaxClockInfo(device, nvml.NVML_CLOCK_SM)
        return round(2 * int(cores) * int(mhz) / 1e6, 1)
    return None


def _is_virtual(nvml: Any, device: Any) -> bool:
    with suppress(Exception):  # a driver that can't tell
        return bool(nvml.nvmlDeviceGetVirtualizationMode(device) == nvml.NVML_GPU_VIRTUALIZATION_MODE_VGPU)
    return False


def _chosen(nvml: Any, cards: Sequence[Any], visible: str) -> Any:
    """The device that CUDA would number 0 under CUDA_VISIBLE_DEVICES; None if that hides all. NVML ignores the variable."""
    pick = visible.split(",")[0].strip()
    if pick.startswith("MIG-"):
        return nvml.nvmlDeviceGetHandleByUUID(pick)
    if pick.isdigit():
        card = cards[int(pick)] if int(pick) < len(cards) else None
    else:  # a card's UUID may be cut short
        card = next((each for each in cards if pick and _text(nvml.nvmlDeviceGetUUID(each)).startswith(pick)), None)
    return None if card is None else next(iter(_slices(nvml, card)), card)


def _slices(nvml: Any, card: Any) -> list[Any]:
    """The parts that a card is divided into (MIG); empty if it is whole."""
    found: list[Any] = []
    with suppress(Exception):  # most cards can't be cut
        mode, _ = nvml.nvmlDeviceGetMigMode(card)
        for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(card) if mode else 0):
            with suppress(Exception):  # this place is empty
                found.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(card, index))
    return found


def _memory(nvml: Any, device: Any) -> tuple[int, int] | None:
    """Total and free bytes; None if the card has no memory of its own."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
    except Exception as error:
        if getattr(error, "value", None) == NOT_SUPPORTED:
            return None
        raise
    return (int(memory.total), int(memory.free)) if memory.total else None


def _capability(nvml: Any, device: Any) -> tuple[int, int] | None:
    try:
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(device)
    except Exception:
        return None
    return int(major), int(minor)


def _text(value: str | bytes) -> str:
    """Older bindings answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


@dataclass(frozen=True)
class _AmdCard:
    """A card of AMD's: the number that ROCm's runtime gives it (None: it has none there) and its UUID ("": it has none)."""

    gpu: Gpu
    number: int | None
    uuid: str


def _amd(drm: Path = DRM, kfd: Path = KFD) -> tuple[Gpu | None, str]:
    cards = []
    try:
        agents = _agents(drm.parent / TOPOLOGY)
        for card in sorted(drm.glob("card*")):
            gpu = _amd_card(card / "device") if card.name[4:].isdigit() else None
            if gpu is not None:
                cards.append(_AmdCard(gpu, *agents.get(_render_minor(card / "device"), (None, ""))))
    except OSError:
        return None, ""
    large = [card for card in cards if card.gpu.total >= LEAST_AMD_MEMORY]
    if not large:
        return None, ""
    if not kfd.exists():
        return None, f"{large[0].gpu.name} is there, but no ROCm driver ({kfd})"
    named = [name for name in (ROCM_PICK, *ROCM_PICKS_LEFT) if name in os.environ]
    if named:
        left = _left_by(os.environ, sorted(cards, key=lambda card: (card.number is None, card.number)))
        if not left:
            return None, f"{' and '.join(named)} hide{'' if len(named) > 1 else 's'} every AMD card"
        return left[0].gpu, ""
    best = max(large, key=lambda card: card.gpu.total)
    if len(cards) == 1 or best.number is None:
        return best.gpu, ""
    return replace(best.gpu, pick=(ROCM_PICK, best.uuid or str(best.number))), ""


def _left_by(variables: Mapping[str, str], cards: list[_AmdCard]) -> list[_AmdCard]:
    """The cards that these variables leave, in the order that they give them."""
    second = next((name for name in ROCM_PICKS_LEFT if name in variables), None)
    for name in (ROCM_PICK, second):
        if name is None or name not in variables:
            continue
        left = []
        for word in variables[name].split(","):
            pick = word.strip()
            of = [card for place, card in enumerate(cards) if pick in (str(place), card.uuid)] if pick else []
            if not of:  # what comes after a word that names no card is not read
                break
            left += of
        cards = left
    return cards


def _agents(nodes: Path) -> dict[int, tuple[int, str]]:
    """By a card's render node: its number, in the order of the kernel's nodes without the processors, and its UUID, as ROCm has both."""
    found: dict[int, tuple[int, str]] = {}
    for node in sorted((node for node in nodes.glob("*") if node.name.isdigit()), key=lambda node: int(node.name)):
        with suppress(OSError, ValueError):  # a card that this process may not use shows nothing
            lines = (line.split() for line in (node / "properties").read_text().splitlines())
            values = {words[0]: int(words[1]) for words in lines if len(words) == 2}
            if values.get("simd_count"):
                unique = values.get("unique_id", 0)
                found[values.get("drm_render_minor", 0)] = (len(found), f"GPU-{unique:016x}" if unique else "")
    return found


def _render_minor(device: Path) -> int:
    """The number of a card's render node: 128 of renderD128; -1 where it has none."""
    return next((int(node.name[7:]) for node in device.glob("drm/renderD*") if node.name[7:].isdigit()), -1)


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
    return Gpu(name="Apple GPU" + SHARED, kind="mps", total=memory.total, free=free, shared=True), ""
