"""What PyTorch says about itself, asked in a separate process, so that the caller does not load it and survives if its import crashes."""

import json
import subprocess
import sys
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LONGEST = 120.0  # seconds; an import from a cold network disk takes half a minute

QUESTION = """
import json, sys
import torch
cuda = torch.cuda.is_available()
mps = getattr(torch.backends, "mps", None)
found = {"version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip}
found |= {"reaches_cuda": cuda, "reaches_mps": bool(mps and mps.is_available())}
found["architectures"] = torch.cuda.get_arch_list() if cuda else []
try:
    if cuda:
        import bitsandbytes
except Exception as error:
    found["bitsandbytes"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


@dataclass(frozen=True, kw_only=True)
class TorchAnswer:
    """What torch says: its version, the CUDA or ROCm it was built for (None: neither), whether it reaches a GPU, the machine code it has;
    what went wrong when bitsandbytes was imported too. `error`: why torch itself can't be imported, "" if it can."""

    version: str = ""
    cuda: str | None = None
    hip: str | None = None
    reaches_cuda: bool = False
    reaches_mps: bool = False
    architectures: tuple[str, ...] = ()
    bitsandbytes: str = ""
    error: str = ""


def ask_torch() -> TorchAnswer:
    """Ask in a child process. If torch can't be imported, the answer says why, with what its files say about the build."""
    said, error = ask_child(QUESTION)
    if error:
        return TorchAnswer(**build_on_disk(), error=error)
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return TorchAnswer(**{**answer, "architectures": tuple(answer["architectures"])})


def ask_child(code: str) -> tuple[str, str]:
    """What lines of Python print in a child process, and why they failed ("" if they did not), even where they end the process."""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, errors="replace", timeout=LONGEST, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"it does not answer: {type(error).__name__}"
    failed = (done.stderr.strip().splitlines() or [f"its import ended the process ({done.returncode})"])[-1]
    return done.stdout, failed if done.returncode else ""


def build_on_disk() -> dict[str, Any]:
    """What torch/version.py says about the build, read as text, without importing anything."""
    try:
        found = find_spec("torch")
        text = (Path(found.origin or "").parent / "version.py").read_text(encoding="utf-8") if found else ""
    except (OSError, ValueError, ImportError):
        return {}
    values: dict[str, Any] = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        name = name.partition(":")[0].strip()
        if (name := {"__version__": "version"}.get(name, name)) in {item.name for item in fields(TorchAnswer)}:
            values[name] = value.strip().strip("'\"") if value.strip() != "None" else None
    return {name: value for name, value in values.items() if name in ("version", "cuda", "hip")}
