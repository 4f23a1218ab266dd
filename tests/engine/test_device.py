"""The card as torch sees it. No test machine has one, so what torch says about a card is made up here; everything else is real."""

import platform
import sys
from types import SimpleNamespace

import pytest
import torch

from dreambooth_cli.engine import device
from dreambooth_cli.engine.device import (
    as_torch_has_it,
    bound_memory,
    check_kernels,
    fraction_of,
    has_kernels,
    why_slow,
)
from dreambooth_cli.errors import UsageError
from dreambooth_cli.gpu import Gpu
from dreambooth_cli.memory.ledger import CONTEXT
from tests.engine.plans import plan_for

GB = 10**9
CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
SEEN = Gpu(name="RTX 3060", kind="cuda", total=12 * GB, free=11 * GB, capability=(8, 6))


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((8, 6), CUDA_13, True),
        ((8, 9), CUDA_13, True),  # sm_86 runs on 8.9
        ((12, 1), CUDA_13, True),
        ((7, 5), ["sm_75"], True),
        ((7, 0), CUDA_13, False),
        ((6, 1), CUDA_13, False),
        ((6, 1), ["sm_60"], True),
        ((6, 0), ["sm_61"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_90", "compute_90"], True),  # PTX, for what is newer
        ((8, 0), ["compute_90"], False),
        ((9, 0), ["sm_90a"], True),
        ((12, 0), ["compute_90a"], False),
        ((10, 3), ["sm_100f"], True),
        ((10, 3), ["sm_100a"], False),
        ((11, 0), ["sm_100f"], False),
        ((12, 0), ["gfx1100"], False),
    ],
)
def test_which_cards_a_build_has_kernels_for(capability, architectures, runs):
    assert has_kernels(capability, architectures) == runs


@pytest.mark.parametrize(
    ("name", "capability", "architectures", "processor", "hint"),
    [
        ("GTX 1080", (6, 1), CUDA_13, "x86_64", "cu126 has them (https://dev-discuss.pytorch.org/t/3432 of 4 September 2026"),
        ("Tesla V100", (7, 0), CUDA_13, "AMD64", "--force-reinstall \"torch<2.15\" --index-url https://download.pytorch.org/whl/cu126"),
        ("RTX 5090", (12, 0), ["sm_80", "sm_90"], "x86_64", "--force-reinstall \"torch\" --index-url https://download.pytorch.org/whl/cu130"),
        ("Tesla K80", (3, 7), CUDA_13, "x86_64", "no build of PyTorch known here has them; train without it: CUDA_VISIBLE_DEVICES"),
        ("Xavier", (7, 2), ["sm_80", "sm_90"], "aarch64", "no build of PyTorch known here has them"),
        ("a card of the year 2030", (15, 0), CUDA_13, "x86_64", "no build of PyTorch known here has them"),
    ],
)
def test_a_card_without_kernels_is_told_with_the_build_that_has_them(name, capability, architectures, processor, hint):
    with pytest.raises(UsageError) as caught:
        check_kernels(name, capability, architectures, processor)
    assert f"{name} has compute capability {capability[0]}.{capability[1]}" in caught.value.message
    assert ", ".join(architectures) in caught.value.message
    assert hint in caught.value.hint


def test_this_build_is_held_against_the_cards_of_its_own_list():
    """What is written down about this build agrees with what torch itself says, where it says anything."""
    listed = getattr(torch.cuda, "PYTORCH_RELEASES_CODE_CC", {})
    for build in device.BUILDS:
        for processor, codes in listed.get(f"{build.index[2:4]}.{build.index[4:]}", {}).items():
            assert set(build.architectures[processor]) == {f"sm_{code}" for code in codes}, (build.index, processor)
    check_kernels("any", (6, 1), [])  # a CPU build lists none


def torch_has(monkeypatch, name="RTX 3060", total=12 * GB, free=10 * GB, capability=(8, 6), integrated=False, architectures=CUDA_13):
    found = SimpleNamespace(
        name=name, total_memory=total, major=capability[0], minor=capability[1], is_integrated=int(integrated)
    )
    for key, value in {
        "is_available": lambda: True,
        "get_device_properties": lambda number: found,
        "mem_get_info": lambda number: (free, total),
        "memory_reserved": lambda number: 0,
        "get_arch_list": lambda: list(architectures),
    }.items():
        monkeypatch.setattr(torch.cuda, key, value)


def test_without_a_card_that_torch_reaches_what_was_seen_stays():
    assert as_torch_has_it(None) is None
    assert as_torch_has_it(SEEN) is SEEN


def test_the_same_card_has_room_for_the_context_that_the_question_made(monkeypatch):
    torch_has(monkeypatch, free=11 * GB - CONTEXT, total=round(11.8 * GB))
    assert as_torch_has_it(SEEN) == SEEN
    torch_has(monkeypatch, free=5 * GB)
    assert as_torch_has_it(SEEN).free == 5 * GB + CONTEXT


@pytest.mark.parametrize(
    "seen",
    [
        SEEN,  # another card
        Gpu(name="RTX 3090", kind="cuda", total=80 * GB, free=79 * GB, capability=(8, 6)),  # the whole of which it is a slice
        None,  # one that nothing else shows
    ],
)
def test_the_plan_is_for_the_card_that_torch_takes(seen, monkeypatch):
    torch_has(monkeypatch, "RTX 3090", total=24 * GB, free=20 * GB)
    assert as_torch_has_it(seen) == Gpu(
        name="RTX 3090", kind="cuda", total=24 * GB, free=20 * GB + CONTEXT, capability=(8, 6)
    )


def test_a_card_in_the_machines_own_memory(monkeypatch):
    torch_has(monkeypatch, "NVIDIA GB10", total=120 * GB, free=2 * GB, capability=(12, 1), integrated=True)
    monkeypatch.setattr(device, "machine_memory", lambda: 128 * GB)
    monkeypatch.setattr(device, "free_memory", lambda: 100 * GB)
    assert as_torch_has_it(None) == Gpu(
        name="NVIDIA GB10", kind="cuda", total=128 * GB, free=100 * GB, capability=(12, 1), shared=True
    )


def test_a_card_without_kernels_is_refused_before_anything_is_loaded(monkeypatch):
    torch_has(monkeypatch, "GeForce GTX 1080", capability=(6, 1))
    with pytest.raises(UsageError, match="no kernels for it"):
        as_torch_has_it(SEEN)


def test_amd_and_apple(monkeypatch):
    apple = Gpu(name="Apple GPU", kind="mps", total=16 * GB, free=10 * GB, shared=True)
    torch_has(monkeypatch, "AMD Radeon RX 7800 XT", total=16 * GB, free=15 * GB, capability=(11, 0), architectures=["gfx1100"])
    assert as_torch_has_it(apple) is apple
    monkeypatch.setattr(torch.version, "hip", "7.2")
    seen = Gpu(name="AMD GPU", kind="rocm", total=16 * GB, free=15 * GB)
    assert as_torch_has_it(seen) == seen
    assert as_torch_has_it(None) == Gpu(name="AMD Radeon RX 7800 XT", kind="rocm", total=16 * GB, free=15 * GB + CONTEXT)


@pytest.mark.parametrize(
    ("system", "release", "asked"), [("win32", "11", True), ("linux", "6.6-microsoft-standard-WSL2", True), ("linux", "6.8.0", False)]
)
def test_memory_is_bounded_where_it_would_spill(system, release, asked, monkeypatch):
    torch_has(monkeypatch, free=6 * GB, total=8 * GB)
    bounds = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *values: bounds.append(values))
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "release", lambda: release)
    bound_memory(plan_for(device="cpu"))
    assert bounds == []
    bound_memory(plan_for(device="cuda"))
    assert bounds == ([(0.75, 0)] if asked else [])


def test_a_card_in_the_machines_memory_is_bounded_everywhere(monkeypatch):
    torch_has(monkeypatch, "NVIDIA GB10", free=GB, total=120 * GB, integrated=True)
    monkeypatch.setattr(device, "free_memory", lambda: 90 * GB)
    monkeypatch.setattr(device, "spills", lambda: False)
    bounds = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *values: bounds.append(values))
    bound_memory(plan_for(device="cuda"))
    assert bounds == [(0.75, 0)]


@pytest.mark.parametrize(("free", "fraction"), [(6 * GB, 0.75), (9 * GB, 1.0), (-1, 0.0)])
def test_the_bound_is_a_part_of_the_card(free, fraction):
    assert fraction_of(free, 8 * GB) == fraction


@pytest.mark.parametrize("spills", [False, True])
def test_why_steps_are_slow(spills, monkeypatch):
    monkeypatch.setattr(device, "machine_memory", lambda: 16 * GB)
    monkeypatch.setattr(device, "free_memory", lambda: 8 * GB)
    monkeypatch.setattr(device, "spills", lambda: spills)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    torch_has(monkeypatch, free=GB // 10, total=8 * GB)
    assert why_slow(cuda).startswith("the GPU's memory is full")
    assert ("spills into the machine's" in why_slow(cuda)) == spills
    torch_has(monkeypatch, free=4 * GB, total=8 * GB)
    monkeypatch.setattr(device, "held_back", lambda: "its heat")
    assert why_slow(cuda) == "the GPU is slowing itself down because of its heat"
    monkeypatch.setattr(device, "held_back", lambda: None)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    assert why_slow(cuda) == why_slow(cpu)
    assert why_slow(cpu).startswith("no reason was found here")
    monkeypatch.setattr("os.getloadavg", lambda: (500.0, 0.0, 0.0))
    assert why_slow(cpu) == "other programs are keeping the processor busy"
    monkeypatch.setattr(device, "free_memory", lambda: GB // 10)
    assert "swapping" in why_slow(cpu)
