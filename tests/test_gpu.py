import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from dreambooth_cli import gpu
from dreambooth_cli.gpu import ALLOCATOR, Gpu, describe, find_gpu, hand_over, held_back, sold_as, why_none

GIB = 2**30


class Driver(ModuleType):
    """A stand-in for NVIDIA's driver, which no test machine has; its cards are in bus order."""

    def __init__(self, *cards: SimpleNamespace) -> None:
        super().__init__("pynvml")
        self.cards, self.closed = cards, 0

    def nvmlInit(self) -> None:
        pass

    def nvmlShutdown(self) -> None:
        self.closed += 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> SimpleNamespace:
        return self.cards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> SimpleNamespace:
        return next(card for card in self.cards for slice_ in card.slices if slice_.uuid == uuid for card in [slice_])

    def nvmlDeviceGetName(self, card: SimpleNamespace) -> str | bytes:
        return card.name

    def nvmlDeviceGetUUID(self, card: SimpleNamespace) -> str:
        return card.uuid

    def nvmlDeviceGetMemoryInfo(self, card: SimpleNamespace) -> SimpleNamespace:
        return SimpleNamespace(total=card.total, free=card.free)

    def nvmlDeviceGetCudaComputeCapability(self, card: SimpleNamespace) -> tuple[int, int]:
        if card.capability is None:
            raise RuntimeError("Not Supported")
        return card.capability


def card(name: str | bytes, gib: int, capability: tuple[int, int] | None, uuid: str) -> SimpleNamespace:
    return SimpleNamespace(
        name=name, total=gib * GIB, free=(gib - 1) * GIB, capability=capability, uuid=uuid, slices=[]
    )


OLD = card("GTX 1080", 8, (6, 1), "GPU-aaaa-1")
NEW = card("RTX 3060", 12, (8, 6), "GPU-bbbb-2")


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No CUDA variables, no AMD card, no Mac, whatever machine runs the tests."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setattr(gpu._amd, "__defaults__", (tmp_path / "no-drm", tmp_path / "no-kfd"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(gpu, "BOARD", tmp_path / "no-board")
    monkeypatch.setattr(platform, "release", lambda: "6.12.0-amd64")
    for name in ALLOCATOR:
        monkeypatch.setenv(name, "to be put back")
        monkeypatch.delenv(name)


def install(monkeypatch: pytest.MonkeyPatch, driver: ModuleType | None) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver)  # type: ignore[arg-type]  # None: as if it were not installed


def test_an_nvidia_card_with_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(NEW)
    install(monkeypatch, driver)
    found = find_gpu()
    assert found == Gpu(name="RTX 3060", kind="cuda", total=12 * GIB, free=11 * GIB, capability=(8, 6))
    assert describe(found) == "RTX 3060, 11.8 of 12.9 GB free"
    assert driver.closed == 1


def test_the_fastest_card_is_the_first_as_for_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Driver(OLD, NEW))
    assert (found := find_gpu()) is not None
    assert found.name == "RTX 3060"


@pytest.mark.parametrize(
    ("order", "visible", "expected"),
    [
        ("PCI_BUS_ID", None, "GTX 1080"),
        ("PCI_BUS_ID", "1", "RTX 3060"),
        ("PCI_BUS_ID", " 1 ,0", "RTX 3060"),
        ("FASTEST_FIRST", "1", "GTX 1080"),
        ("FASTEST_FIRST", "GPU-aaaa", "GTX 1080"),
        ("FASTEST_FIRST", "", None),
        ("FASTEST_FIRST", "-1", None),
        ("FASTEST_FIRST", "7", None),
        ("FASTEST_FIRST", "GPU-cccc", None),
    ],
)
def test_cuda_visible_devices_is_obeyed(
    monkeypatch: pytest.MonkeyPatch, order: str, visible: str | None, expected: str | None
) -> None:
    install(monkeypatch, Driver(OLD, NEW))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_gpu()
    assert (found and found.name) == expected
    if expected is None:
        assert why_none() == "CUDA_VISIBLE_DEVICES hides every NVIDIA card"


def test_a_slice_of_a_card_has_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = card("H200", 140, (9, 0), "GPU-dddd")
    whole.slices = [card("H200 MIG 1g.18gb", 18, (9, 0), "MIG-eeee")]
    install(monkeypatch, Driver(whole))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-eeee")
    assert (found := find_gpu()) is not None
    assert found.total == 18 * GIB


def test_old_bindings_and_unknown_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Driver(card(b"Quadro", 8, None, "GPU-x")))
    assert find_gpu() == Gpu(name="Quadro", kind="cuda", total=8 * GIB, free=7 * GIB, capability=None)


def test_a_driver_without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Driver())
    assert find_gpu() is None
    assert why_none() == "the NVIDIA driver shows no card"


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(NEW)
    driver.nvmlInit = lambda: (_ for _ in ()).throw(OSError("libnvidia-ml.so.1 not found"))  # type: ignore[method-assign]
    install(monkeypatch, driver)
    assert find_gpu() is None
    assert describe(None) == "no NVIDIA driver found"


def test_no_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    assert find_gpu() is None
    assert "nvidia-ml-py" in why_none()


def test_a_driver_that_breaks_is_said_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(NEW)
    driver.nvmlDeviceGetMemoryInfo = lambda card: 1 / 0  # type: ignore[method-assign,assignment]
    install(monkeypatch, driver)
    assert find_gpu() is None
    assert why_none() == "the NVIDIA driver does not answer: division by zero"
    assert driver.closed == 2


def amd_card(root: Path, number: int, *, gib: float, used: float = 1, vendor: str = "0x1002", name: str = "") -> Path:
    device = root / f"card{number}" / "device"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "mem_info_vram_total").write_text(f"{int(gib * GIB)}\n")
    (device / "mem_info_vram_used").write_text(f"{int(used * GIB)}\n")
    if name:
        (device / "product_name").write_text(f"{name}\n")
    return device


def test_an_amd_card(tmp_path: Path) -> None:
    amd_card(tmp_path, 0, gib=0.5, used=0.1)  # the processor's own
    amd_card(tmp_path, 1, gib=16, name="Radeon RX 7800 XT")
    (tmp_path / "card1-HDMI-A-1").mkdir()
    (tmp_path / "kfd").touch()
    found, reason = gpu._amd(tmp_path, tmp_path / "kfd")
    assert found == Gpu(name="Radeon RX 7800 XT", kind="rocm", total=16 * GIB, free=15 * GIB)
    assert reason == ""


def test_an_amd_card_without_rocm_and_cards_that_are_none(tmp_path: Path) -> None:
    amd_card(tmp_path, 0, gib=16)
    found, reason = gpu._amd(tmp_path, tmp_path / "kfd")
    assert found is None
    assert reason.startswith("AMD GPU is there, but no ROCm driver")
    (tmp_path / "card0/device/mem_info_vram_used").write_text("?")
    assert gpu._amd(tmp_path, tmp_path / "kfd") == (None, "")


def test_an_apple_gpu_shares_the_systems_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(gpu.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(gpu.psutil, "virtual_memory", lambda: SimpleNamespace(total=48 * GIB, available=40 * GIB))
    assert (found := find_gpu()) is not None
    assert (found.kind, found.total, found.free) == ("mps", 48 * GIB, 32 * GIB)


def test_a_card_as_it_is_sold() -> None:
    eight = sold_as(8)
    assert eight.total == 8 * GIB
    assert eight.free == round(8 * GIB * 0.93)
    assert eight.to_json() == {"name": "a card of 8 GB", "kind": "cuda", "total_gb": 8.6, "free_gb": 8.0}
    assert sold_as(7.5).name == "a card of 7.5 GB"


def test_the_search_does_not_load_torch() -> None:
    code = "import sys; from dreambooth_cli.gpu import find_gpu; print('pynvml' in sys.modules); find_gpu(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]


# ---- one of several, a part of one, and none of its own memory


def cut(whole: SimpleNamespace, *slices: SimpleNamespace) -> SimpleNamespace:
    """A card that is divided by MIG; the third of its seven places is empty."""
    whole.slices = list(slices)
    return whole


class CuttingDriver(Driver):
    """A driver with MIG, and with memory that is not the card's own."""

    def nvmlDeviceGetMigMode(self, card: SimpleNamespace) -> tuple[int, int]:
        return (1, 1) if card.slices else (0, 0)

    def nvmlDeviceGetMaxMigDeviceCount(self, card: SimpleNamespace) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: SimpleNamespace, index: int) -> SimpleNamespace:
        places = [*card.slices[:2], None, *card.slices[2:]]
        if index >= len(places) or places[index] is None:
            raise RuntimeError("Not Found")
        return places[index]  # type: ignore[no-any-return]

    def nvmlDeviceGetMemoryInfo(self, card: SimpleNamespace) -> SimpleNamespace:
        if card.total == -1:
            error = RuntimeError("Not Supported")
            error.value = 3  # type: ignore[attr-defined]
            raise error
        return super().nvmlDeviceGetMemoryInfo(card)


SMALL_SLICE, LARGE_SLICE = (card(f"H100 MIG {gib}gb", gib, (9, 0), f"MIG-{gib}") for gib in (10, 40))
H100 = cut(card("H100", 80, (9, 0), "GPU-h"), SMALL_SLICE, card("H100 MIG 20gb", 20, (9, 0), "MIG-20"), LARGE_SLICE)


@pytest.mark.parametrize(
    ("cards", "order", "visible", "name", "pick"),
    [
        ([NEW], "", None, "RTX 3060", None),
        ([OLD, NEW], "", None, "RTX 3060", "GPU-bbbb-2"),
        ([OLD, NEW], "PCI_BUS_ID", None, "GTX 1080", "GPU-aaaa-1"),
        ([OLD, NEW], "", "1", "GTX 1080", None),
        ([OLD, NEW], "", "GPU-bb", "RTX 3060", None),
        ([H100], "", None, "H100 MIG 40gb", "MIG-40"),
        ([OLD, H100], "", None, "H100 MIG 40gb", "MIG-40"),
        ([H100], "", "0", "H100 MIG 10gb", None),
        ([H100], "", "GPU-h", "H100 MIG 10gb", None),
        ([H100], "", "MIG-20", "H100 MIG 20gb", None),
        ([cut(card("A30", 24, (8, 0), "GPU-x"), SMALL_SLICE)], "", None, "H100 MIG 10gb", None),
    ],
)
def test_the_chosen_card_is_handed_to_torch(
    cards: list[SimpleNamespace],
    order: str,
    visible: str | None,
    name: str,
    pick: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If there are several and the user has named none; from then on only that one is visible."""
    install(monkeypatch, CuttingDriver(*cards))
    if order:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "to be put back")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert (found := find_gpu()) is not None
    assert found.name == name
    hand_over()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == (pick or visible)
    assert find_gpu() == found


VIRTUAL = 2  # NVML's number for a part of a card that a hypervisor lends


@pytest.mark.parametrize(
    ("system", "release", "virtual", "variables", "told"),
    [
        ("linux", "6.12.0-amd64", 0, {}, "expandable_segments:True"),
        ("linux", "6.12.0-amd64", 1, {}, "expandable_segments:True"),  # the whole card, passed through to a virtual machine
        ("linux", "6.12.0-amd64", VIRTUAL, {}, None),
        ("linux", "6.6.87.2-microsoft-standard-WSL2", 0, {}, None),
        ("win32", "11", 0, {}, None),
        ("linux", "6.12.0-amd64", 0, {"PYTORCH_ALLOC_CONF": "backend:native"}, "backend:native"),
        ("linux", "6.12.0-amd64", 0, {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128"}, None),
    ],
)
def test_the_allocator_grows_its_segments_where_it_can(
    system: str, release: str, virtual: int, variables: dict[str, str], told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured on an H200: decoding at 1024 px runs out of memory in 3.9 GB otherwise, though it needs 3.6."""

    class TellingDriver(Driver):
        NVML_GPU_VIRTUALIZATION_MODE_VGPU = VIRTUAL

        def nvmlDeviceGetVirtualizationMode(self, card: SimpleNamespace) -> int:
            return virtual

    install(monkeypatch, TellingDriver(NEW))
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "release", lambda: release)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    hand_over()
    assert os.environ.get("PYTORCH_ALLOC_CONF") == told


def test_the_roomier_of_two_equal_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, idle = (card("RTX 4090", 24, (8, 9), uuid) for uuid in ("GPU-busy", "GPU-idle"))
    busy.free = 2 * GIB
    install(monkeypatch, CuttingDriver(busy, idle))
    assert (found := find_gpu()) is not None
    assert found.free == 23 * GIB
    assert found.pick == ("CUDA_VISIBLE_DEVICES", "GPU-idle")


@pytest.mark.parametrize("total", [-1, 0])
def test_a_card_without_memory_of_its_own_works_in_the_machines(total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """GB10 and Jetson: NVML answers NOT_SUPPORTED or 0."""
    shared = card("NVIDIA GB10", 1, (12, 1), "GPU-gb10")
    shared.total = total
    install(monkeypatch, CuttingDriver(shared))
    monkeypatch.setattr(gpu, "machine_memory", lambda: 128 * GIB)
    monkeypatch.setattr(gpu, "free_memory", lambda: 100 * GIB)
    name = "NVIDIA GB10 (memory shared with the system)"
    expected = Gpu(name=name, kind="cuda", total=128 * GIB, free=100 * GIB, capability=(12, 1), shared=True)
    assert find_gpu() == expected


@pytest.mark.parametrize(("board", "is_one"), [("NVIDIA Jetson Orin Nano Developer Kit\0", True), ("Raspberry Pi 5\0", False)])
def test_a_jetson_whose_driver_shows_nothing(
    board: str, is_one: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, None)
    (tmp_path / "model").write_text(board)
    monkeypatch.setattr(gpu, "BOARD", tmp_path / "model")
    found = find_gpu()
    assert (found is not None) == is_one
    if found is not None:
        assert (found.name, found.shared) == ("NVIDIA Jetson Orin Nano Developer Kit (memory shared with the system)", True)


def agent(sys_class: Path, node: int, minor: int, *, unique: int = 0, simds: int = 64) -> None:
    """One of ROCm's nodes: a card with its render node, or a processor, which has no SIMDs."""
    folder = sys_class / "kfd/kfd/topology/nodes" / str(node)
    folder.mkdir(parents=True)
    (folder / "properties").write_text(f"simd_count {simds}\nunique_id {unique}\ndrm_render_minor {minor}\nname of it\n")


@pytest.fixture
def two_amd_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The processor's own graphics, which ROCm counts first, a large card, and a larger one without a UUID."""
    for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"):
        monkeypatch.setenv(name, "to be put back")
        monkeypatch.delenv(name)
    drm = tmp_path / "class" / "drm"
    for number, gib, name in ((0, 16, "RX 6800"), (1, 0.5, "Graphics"), (2, 24, "RX 7900")):
        device = amd_card(drm, number, gib=gib, used=0.2, name=name)
        (device / "drm" / f"renderD{130 - number}").mkdir(parents=True)
    agent(drm.parent, 0, 0, simds=0)
    agent(drm.parent, 1, 129)
    agent(drm.parent, 2, 130, unique=0xABC)
    agent(drm.parent, 10, 128)
    (tmp_path / "kfd").touch()
    monkeypatch.setattr(gpu._amd, "__defaults__", (drm, tmp_path / "kfd"))
    install(monkeypatch, None)
    return drm


def test_the_largest_amd_card_is_handed_over(two_amd_cards: Path, tmp_path: Path) -> None:
    """By the number that ROCm's runtime gives it, or by its UUID if it has one."""
    found, _ = gpu._amd()
    assert found is not None
    assert (found.name, found.pick) == ("RX 7900", ("ROCR_VISIBLE_DEVICES", "2"))
    (two_amd_cards / "card2/device/mem_info_vram_total").write_text("1")
    hand_over()
    assert os.environ["ROCR_VISIBLE_DEVICES"] == "GPU-0000000000000abc"
    assert (left := find_gpu()) is not None
    assert left.name == "RX 6800"


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"ROCR_VISIBLE_DEVICES": "1"}, "RX 6800"),
        ({"ROCR_VISIBLE_DEVICES": "GPU-0000000000000abc"}, "RX 6800"),
        ({"HIP_VISIBLE_DEVICES": "2,1"}, "RX 7900"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "RX 6800"),
        ({"HIP_VISIBLE_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "1"}, "RX 7900"),
        ({"ROCR_VISIBLE_DEVICES": "2,1", "HIP_VISIBLE_DEVICES": "1"}, "RX 6800"),
        ({"HIP_VISIBLE_DEVICES": "0"}, "Graphics"),
        ({"HIP_VISIBLE_DEVICES": "-1,2"}, None),
        ({"ROCR_VISIBLE_DEVICES": ""}, None),
        ({"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "1"}, None),
    ],
)
def test_what_the_user_says_of_amd_cards_is_obeyed(
    variables: dict[str, str], name: str | None, two_amd_cards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    found, reason = gpu._amd()
    assert (found and found.name) == name
    hand_over()
    assert {key: os.environ.get(key) for key in variables} == variables
    assert found is not None or reason == f"{' and '.join(variables)} hide{'' if len(variables) > 1 else 's'} every AMD card"


@pytest.mark.parametrize(
    ("reasons", "told"), [(0, None), (0x4, None), (0x40, "its heat"), (0x20 | 0x80, "its heat"), (0x80, "its power supply")]
)
def test_a_card_that_holds_itself_back(reasons: int, told: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(NEW)
    driver.nvmlDeviceGetCurrentClocksThrottleReasons = lambda card: reasons  # type: ignore[attr-defined]
    install(monkeypatch, driver)
    assert held_back() == told
    install(monkeypatch, None)
    assert held_back() is None
