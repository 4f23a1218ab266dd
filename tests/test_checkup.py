"""`doctor`: everything that it looks at, healthy and not; a torch that can't be imported is a real folder placed first on the path."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dreambooth_cli import checkup
from dreambooth_cli.checkup import (
    check_bitsandbytes,
    check_disk,
    check_faces,
    check_gpu,
    check_hub,
    check_libraries,
    check_token,
    check_torch,
)
from dreambooth_cli.gpu import Driver, sold_as
from dreambooth_cli.libraries import DLIB, PACKAGE, pip
from dreambooth_cli.torch_child import TorchAnswer
from tests.cli.conftest import Dreambooth, dreambooth  # noqa: F401 - a fixture
from tests.test_libraries import put

CUDA = TorchAnswer(version="2.13.0+cu130", cuda="13.0", reaches_cuda=True, architectures=("sm_75", "sm_80", "sm_86", "sm_90"))
CPU = TorchAnswer(version="2.13.0+cpu")
NEW, OLD = Driver("580.95", (13, 0), (("RTX 3060", (8, 6)),)), Driver("535.1", (12, 2), (("RTX 3060", (8, 6)),))


def test_a_cpu_torch_beside_an_nvidia_card_is_a_problem_with_the_line_that_mends_it() -> None:
    found = check_gpu(CPU, sold_as(12), NEW)
    assert found.status == "problem"
    assert "this PyTorch (2.13.0+cpu) is built for the CPU only" in found.message
    assert '--force-reinstall "torch" --index-url https://download.pytorch.org/whl/cu130' in found.repair


@pytest.mark.parametrize(
    ("torch", "driver", "status", "said", "repair"),
    [
        (CUDA, NEW, "ok", "driver 580.95 for CUDA up to 13.0", ""),
        (CUDA, OLD, "problem", "needs a driver for CUDA 13.0", "update the driver"),
        (CUDA, OLD, "problem", "needs a driver", "whl/cu126"),
        (CUDA, Driver("580.95", (13, 0), (("GTX 1080", (6, 1)),)), "problem", "has no kernels for it", "whl/cu126"),
        (TorchAnswer(version="2.13.0", cuda="13.0"), NEW, "problem", "PyTorch can't reach it", "restart"),
        (TorchAnswer(error="No module named 'torch'"), NEW, "ok", "RTX 3060", ""),
    ],
)
def test_build_driver_and_card_are_held_against_one_another(
    torch: TorchAnswer, driver: Driver, status: str, said: str, repair: str
) -> None:
    name, capability = driver.cards[0]
    found = check_gpu(torch, replace(sold_as(12), name=name, capability=capability), driver)
    assert found.status == status
    assert said in found.message
    assert repair in found.repair


def test_a_card_that_is_hidden_and_a_machine_without_one() -> None:
    assert "it is not used" in check_gpu(CUDA, None, NEW).message
    found = check_gpu(CPU, None, None)
    assert (found.status, found.repair) == ("warning", "start with: dreambooth demo")


def test_a_torch_that_is_missing_is_told_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "installed", lambda name: None)
    found = check_torch(TorchAnswer(error="No module named 'torch'"))
    assert (found.status, found.message) == ("problem", "PyTorch is not installed")
    assert 'install "torch>=2.13,<2.15"' in found.repair
    missing = check_libraries()
    assert (missing.status, "diffusers" in missing.message) == ("problem", True)
    without = check_bitsandbytes(CUDA, sold_as(8))
    assert without.status == "warning"
    assert "bitsandbytes>=" in without.repair


@pytest.mark.parametrize(
    ("broken", "marker", "said", "repair"),
    [
        ("", "", "dlib 20.5 finds them in photos", ""),
        ("raise ImportError('libopenblas.so.0: cannot open shared object file')", "", "20.5.1 can't be imported: ImportError: libop", True),
        ("import os; os.abort()", "", "can't be imported: its import ended the process (-6)", True),
        ("raise ModuleNotFoundError('dlib')", "; python_version < '3'", "there is no build of dlib for this Python and machine", ""),
    ],
)
def test_dlib_s_import_is_tried(
    broken: str, marker: str, said: str, repair: str | bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, PACKAGE, "0", [f"Requires-Dist: dlib-bin>=19.24.6,<21{marker}"])
    put(tmp_path, DLIB, "20.5.1")
    (tmp_path / "dlib.py").write_text(f"__version__ = '20.5'\n{broken}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = check_faces()
    assert said in found.message
    assert found.status == ("warning" if broken else "ok")
    assert found.repair == (f'{pip()} install "dlib-bin>=19.24.6,<21" --force-reinstall' if repair is True else "")


def test_where_dlib_is_missing_the_line_that_installs_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, PACKAGE, "0", ["Requires-Dist: dlib-bin>=19.24.6,<21; python_version < '99'"])
    (tmp_path / "dlib.py").write_text("raise ModuleNotFoundError('dlib')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(checkup, "installed", lambda name: None)
    found = check_faces()
    assert (found.status, found.repair) == ("warning", f'{pip()} install "dlib-bin>=19.24.6,<21"')
    assert found.message == "faces in photos are not found, so a crop may cut one off: dlib is not installed"


def test_doctor_works_where_torch_is_broken_and_does_not_load_it(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.14.1+cu130'\ncuda: str | None = '13.0'\nhip = None\n")
    checkout = str(Path(__file__).parent.parent)
    code = (
        "import json, sys; from dreambooth_cli.cli.app import run; code = run(['doctor', '--json']); "
        "print(json.dumps([code, sorted({'torch', 'diffusers', 'transformers', 'PIL'} & set(sys.modules))]))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{checkout}", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=120)
    document, ended = map(json.loads, done.stdout.splitlines())
    (torch,) = [check for check in document["checks"] if check["name"] == "torch"]
    assert ended == [1, []]
    assert document["ok"] is False
    assert torch["status"] == "problem"
    assert torch["message"].startswith("PyTorch 2.14.1+cu130, built for CUDA 13.0, can't be imported: OSError: libcudart.so.13")
    assert "--force-reinstall" in torch["repair"]


def test_in_words_and_as_a_document(monkeypatch: pytest.MonkeyPatch, dreambooth: Dreambooth) -> None:  # noqa: F811
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(checkup, "ask_torch", lambda: CPU)
    done = dreambooth("doctor")
    assert (done.code, "hf_secret" in done.out + done.err) == (0, False)
    for name in ("python", "torch", "gpu", "memory", "bitsandbytes", "libraries", "faces", "disk", "caches", "hub", "token"):
        assert f" {name} " in done.out
    assert "HF_HUB_OFFLINE is set" in done.out
    (document,) = dreambooth("doctor", "--json").lines
    assert document["ok"] is True
    assert {tuple(check) for check in document["checks"]} == {("name", "status", "message", "repair")}
    monkeypatch.setattr(checkup, "ask_torch", lambda: TorchAnswer(error="broken"))
    assert dreambooth("doctor").code == 1


@contextmanager
def answering(code: int) -> Iterator[str]:
    """The address of a server on loopback that answers everything in this way."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(code)
            self.end_headers()

        def log_message(self, *words: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_hub_s_address_and_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://user:password@127.0.0.1:9")
    found = check_hub()
    assert (found.status, "password" in found.message + found.repair) == ("warning", False)
    for code, status in ((404, "ok"), (503, "warning")):
        with answering(code) as address:
            monkeypatch.setenv("HF_ENDPOINT", address)
            assert check_hub().status == status
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert check_token().message.startswith("none")
    (tmp_path / "token").write_text("hf_secret\n")
    assert check_token().message == "there is one, in the file that hf auth login wrote"
    monkeypatch.setenv("HF_TOKEN", "hf_sécret")
    found = check_token()
    assert (found.status, "cret" in found.message) == ("problem", False)


def test_a_disk_that_is_full_or_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk().status in ("ok", "warning")
    monkeypatch.setattr(checkup, "LEAST_ROOM", 1e18)
    found = check_disk()
    assert (found.status, "DREAMBOOTH_HOME" in found.repair) == ("problem", True)
