"""PyTorch's builds for NVIDIA cards, in its own index: which one has code for a card, and the command that installs it."""

import platform
from collections.abc import Collection
from dataclasses import dataclass

from .libraries import pip


@dataclass(frozen=True)
class Build:
    """A build of PyTorch in its own index: which releases, which machine code for each processor, and the source of this."""

    index: str
    releases: str
    architectures: dict[str, tuple[str, ...]]
    source: str


TURING_ON = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
BUILDS = (
    Build(
        "cu130",
        "torch",
        {"x86_64": TURING_ON, "aarch64": ("sm_80", "sm_90", "sm_100", "sm_110", "sm_120")},
        "https://github.com/pytorch/pytorch/pull/182849 of 7 May 2026",
    ),
    Build(
        "cu126",
        "torch<2.15",
        {"x86_64": ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"), "aarch64": ("sm_80", "sm_90")},
        "https://dev-discuss.pytorch.org/t/3432 of 4 September 2026: the last of CUDA 12, and of these cards",
    ),
)


def processor_kind(processor: str = "") -> str:
    """The kind of processor, as builds name it: this machine's, unless one is given."""
    return "aarch64" if (processor or platform.machine()).lower() in ("aarch64", "arm64") else "x86_64"


def reinstall_line(build: Build) -> str:
    """The command that replaces the installed torch by a build."""
    return f'{pip()} install --force-reinstall "{build.releases}" --index-url https://download.pytorch.org/whl/{build.index}'


def build_for(capability: tuple[int, int] | None, driver: tuple[int, int] | None) -> Build:
    """The newest build that has code for a card and that its driver can run; the newest of all if neither is known.

    `driver`: the newest CUDA version it supports; a build runs with every driver of its own major version or a later one.
    """
    for build in BUILDS:
        known = driver is None or driver[0] >= int(build.index[2:4])
        if known and (capability is None or has_kernels(capability, build.architectures[processor_kind()])):
            return build
    return BUILDS[-1]


def has_kernels(capability: tuple[int, int], architectures: Collection[str]) -> bool:
    """Whether code for one of these runs on a card. sm_86: machine code, for its major number from its minor on; compute_86: PTX,
    compiled by the driver for all that is as new or newer; an `a` at the end binds either to that very card, an `f` to its major."""
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        digits = number.rstrip("af")
        if not digits.isdigit():
            continue
        built = (int(digits[:-1] or 0), int(digits[-1]))
        if number.endswith("a"):
            runs = built == capability
        elif kind == "sm" or number.endswith("f"):
            runs = built[0] == capability[0] and built <= capability
        else:
            runs = built <= capability
        if runs:
            return True
    return False
