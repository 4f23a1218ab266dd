"""The GPU kernel of the lean AdamW, without a GPU."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dreambooth_cli.engine.adamw import LeanAdamW

CASES = Path(__file__).with_name("lean_kernel_cases.py")


def test_the_kernel_in_tritons_interpreter():
    """Which is chosen when Triton is imported: in a process of its own."""
    pytest.importorskip("triton", reason="this build of PyTorch comes without Triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", CASES]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_where_the_kernel_cannot_run_the_plain_form_does_and_it_is_said():
    """A card that the kernel has no way to: here none at all."""
    parameter = nn.Parameter(torch.ones(10))
    lean = LeanAdamW([[parameter]], names={parameter: "a"}, weight_decay=0.0, eight_bit=False, off_card=False, seed=0)
    lean.choose_form(SimpleNamespace(is_cuda=True, device=torch.device("cpu")))
    assert lean.kernel is None
    assert lean.remark.startswith("AdamW runs in its plain form, which takes longer: its GPU kernel can't be used here (")
    parameter.grad = torch.ones(10)
    lean.param_groups[0]["lr"] = 0.1
    lean.step()
    assert torch.allclose(parameter, torch.full((10,), 0.9))
