"""What a figure was measured on, in words, for every table."""

import platform
import re
from importlib.metadata import version
from pathlib import Path

CPU = Path("/proc/cpuinfo")


def machine() -> str:
    """`AMD EPYC; torch 2.13.0+cpu, diffusers 0.42.1, Python 3.11.7`"""
    found = re.search(r"model name\s*: (.*)", CPU.read_text()) if CPU.exists() else None
    name = found[1].strip() if found else platform.processor() or platform.machine()
    return f"{name}; torch {version('torch')}, diffusers {version('diffusers')}, Python {platform.python_version()}"
