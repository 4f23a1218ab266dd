"""How much memory this machine has: a container's limit counts, whichever version of control groups sets it, at any depth."""

import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dreambooth_cli import machine

GB = 10**9
V1 = {"memory.limit_in_bytes": 3 * GB, "memory.usage_in_bytes": GB, "memory.stat": f"cache 5\ntotal_inactive_file {GB // 2}\n"}
V2 = {"memory.max": 3 * GB, "memory.current": GB, "memory.stat": f"anon 5\ninactive_file {GB // 2}\n"}
NONE = {"memory.max": "max", "memory.current": GB, "memory.stat": ""}
BOUNDLESS = V1 | {"memory.limit_in_bytes": 9223372036854771712}


def groups(monkeypatch: pytest.MonkeyPatch, folder: Path, lines: str, **files: dict[str, object]) -> None:
    """A machine with 16 GB, of which 12 are free, and these control groups."""
    for place, values in files.items():
        group = folder / "cgroup" / place.replace("__", "/")
        group.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (group / name).write_text(f"{value}\n")
    (folder / "self").write_text(lines)
    monkeypatch.setattr(machine, "CGROUPS", folder / "cgroup")
    monkeypatch.setattr(machine, "MEMBERSHIP", folder / "self")
    memory = psutil.virtual_memory()._replace(total=16 * GB, available=12 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        ("0::/box\n", {"box": V2}),
        ("0::/a/b/c\n", {"a__b__c": NONE, "a__b": V2, "a": NONE}),
        ("0::/not/seen/from/here\n", {".": V2}),
        ("0::/\n", {".": V2}),
        ("9:name=systemd:/\n4:memory:/box\n0::/\n", {"memory__box": V1}),
        ("4:hugetlb,memory:/box\n", {"memory__box": BOUNDLESS, "memory": V1}),
    ],
)
def test_a_containers_limit_is_the_machines_memory(
    lines: str, files: dict[str, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups(monkeypatch, tmp_path, lines, **files)
    assert machine.machine_memory() == 3 * GB
    assert machine.free_memory() == 3 * GB - GB // 2  # a cache of files is given back


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        ("0::/box\n", {"box": NONE}),
        ("0::/box\n", {"box": {"memory.max": "what"}}),
        ("4:memory:/\n", {"memory": BOUNDLESS}),
        ("5:cpu:/box\n", {"box": V2}),
        ("", {}),
    ],
)
def test_without_a_limit_it_is_the_machine(
    lines: str, files: dict[str, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups(monkeypatch, tmp_path, lines, **files)
    assert (machine.machine_memory(), machine.free_memory()) == (16 * GB, 12 * GB)


def test_a_system_without_control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(monkeypatch, tmp_path, "")
    (tmp_path / "self").unlink()
    assert machine.machine_memory() == 16 * GB
    assert 0 < machine.resident_memory() < machine.machine_memory()


FAULTS = """
import resource
import numpy as np
from dreambooth_cli.machine import kept_when_freed, resident_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.empty(50_000_000, dtype=np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before, held = faults(), resident_memory()
with kept_when_freed():
    faults()
    within = faults()
print(before, within, faults(), resident_memory() - held)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_freed_memory_stays_within_and_only_within() -> None:
    """Ten arrays of 50 MB in turn: outside the block, each one's pages are mapped afresh. What is kept is freed at its end."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, within, after, held = map(int, done.stdout.split())
    assert within < before / 20
    assert after > before / 2
    assert held < 20_000_000
