"""The lean AdamW's GPU kernel, without a GPU."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dreambooth_cli.engine.training.adamw import LeanAdamW

CASES = Path(__file__).with_name("lean_kernel_cases.py")


@pytest.mark.slow
def test_the_kernel_in_tritons_interpreter():
    """In a process of its own, since the interpreter is chosen when Triton is imported."""
    pytest.importorskip("triton", reason="this build of PyTorch comes without Triton")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", CASES]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_where_the_kernel_cannot_run_the_plain_form_does_and_it_is_said():
    """A card that the kernel can't reach: here there is none at all."""
    parameter = nn.Parameter(torch.ones(10))
    lean = LeanAdamW([[parameter]], names={parameter: "a"}, weight_decay=0.0, eight_bit=False, off_card=False, seed=0)
    lean.choose_form(SimpleNamespace(is_cuda=True, device=torch.device("cpu")))
    assert lean.kernel is None
    assert lean.remark.startswith(
        "AdamW runs in its plain form, which takes longer: its GPU kernel can't be used here ("
    )
    parameter.grad = torch.ones(10)
    lean.param_groups[0]["lr"] = 0.1
    lean.step()
    assert torch.allclose(parameter, torch.full((10,), 0.9))


FLOATS = {"decay": "fp32", "rate": "fp32", "root": "fp32"}
SAYS = ("beta1", "beta2", "eps", "EIGHT_BIT", "ROUND", "BLOCK", "ROWS")


@pytest.mark.parametrize("weights", ["bf16", "fp32"])
@pytest.mark.parametrize("eight_bit", [True, False])
def test_the_kernel_compiles_for_a_card_that_is_not_there(weights, eight_bit):
    """The interpreter accepts Python that Triton's compiler does not. Compiled for the oldest cards that PyTorch's builds support."""
    triton = pytest.importorskip("triton", reason="this build of PyTorch comes without Triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from dreambooth_cli.engine.training import lean_kernel

    state, scales = ("*u8", "*fp32") if eight_bit else ("*fp32", "constexpr")
    pointers = {"weights": f"*{weights}", "gradients": "*bf16", "state1": state, "state2": state}
    kept = dict.fromkeys(("scales1", "scales2", "codes1", "codes2"), scales)
    said = dict(
        zip(SAYS, (0.9, 0.999, 1e-8, eight_bit, weights == "bf16", lean_kernel.BLOCK, lean_kernel.ROWS), strict=True)
    )
    none = {} if eight_bit else dict.fromkeys(kept)
    signature = pointers | kept | {"count": "i32", "seed": "i32"} | FLOATS | dict.fromkeys(SAYS, "constexpr")
    source = ASTSource(lean_kernel._step, signature, constexprs=said | none)
    assert triton.compile(source, target=GPUTarget("cuda", 75, 32)).asm["cubin"]
