"""What a run depends on: Python, PyTorch and the driver, GPU, memory, libraries, disk, caches, hub. Each is checked and reported in a
sentence, with how to fix it. Torch is asked in a process of its own; nothing is written or fetched."""

import os
import platform
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from . import __version__
from .bases.cache import hub_cache
from .bases.catalog import CATALOG
from .disk import bytes_in, reason_of, standing_part
from .errors import DreamboothError
from .gpu import Driver, Gpu, describe, find_gpu, nvidia_driver
from .hub_variables import DEFAULT_ENDPOINT, LONGEST_TOKEN, check_variables, split_endpoint
from .libraries import DLIB, PACKAGE, fits_here, install_line, installed, pip, tried_ranges, untried
from .machine import free_memory, machine_memory
from .paths import cache_folder, projects_folder
from .torch_builds import build_for, has_kernels, reinstall_line
from .torch_child import TorchAnswer, ask_child, ask_torch

OLDEST_PYTHON = (3, 11)
LEAST_ROOM, LITTLE_ROOM = 2e9, 20e9  # bytes of disk: too little for any run, too little for a base model
LITTLE_MEMORY = 8e9  # bytes of the machine's memory
PATIENCE = 5.0  # seconds to wait for the hub's answer
MIRROR = "https://hf-mirror.com"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """One thing that was checked. `problem`: a run would fail; `warning`: it works, but less well, or something is missing that only
    some users need. `repair`: what to do or type, "" if nothing."""

    name: str
    status: Status
    message: str
    repair: str = ""


def check_up() -> list[Check]:
    """Check everything, quick things first. Raises nothing: what can't be checked is reported too."""
    torch, gpu, driver = ask_torch(), find_gpu(), nvidia_driver()
    looks: list[tuple[str, Callable[[], Check]]] = [
        ("python", check_python),
        ("torch", lambda: check_torch(torch)),
        ("gpu", lambda: check_gpu(torch, gpu, driver)),
        ("gpu memory", lambda: check_gpu_memory(gpu)),
        ("memory", check_memory),
        ("bitsandbytes", lambda: check_bitsandbytes(torch, gpu)),
        ("libraries", check_libraries),
        ("faces", check_faces),
        ("disk", check_disk),
        ("caches", check_caches),
        ("hub", check_hub),
        ("token", check_token),
    ]
    return [_told(name, look) for name, look in looks]


def _told(name: str, look: Callable[[], Check]) -> Check:
    """The result of a check, or why it could not be made."""
    try:
        return look()
    except DreamboothError as error:
        return Check(name, "problem", error.message, error.hint or "")
    except OSError as error:
        return Check(name, "problem", f"{error.filename or 'the system'}: {reason_of(error)}", "check that it exists and may be read")


def is_well(checks: list[Check]) -> bool:
    """Whether nothing was found that would make a run fail."""
    return all(check.status != "problem" for check in checks)


def to_json(checks: list[Check]) -> dict[str, Any]:
    """The one document of `doctor --json`."""
    return {"ok": is_well(checks), "version": __version__, "checks": [asdict(check) for check in checks]}


def check_python() -> Check:
    """Check Python's version, and that it is a 64-bit build: there is no PyTorch for others."""
    bits = struct.calcsize("P") * 8
    said = f"Python {platform.python_version()}, {bits}-bit, {platform.system()} {platform.machine()}"
    if sys.version_info < OLDEST_PYTHON or bits < 64:
        return Check("python", "problem", said, "install a 64-bit Python of 3.11 or newer, and dreambooth with it")
    return Check("python", "ok", said)


def check_torch(torch: TorchAnswer) -> Check:
    """Check whether PyTorch can be imported, and what it was built for."""
    here = torch.version or installed("torch")
    if here is None:
        return Check("torch", "problem", "PyTorch is not installed", install_line(["torch"]))
    said = f"PyTorch {here}, {built_for(torch)}"
    if torch.error:
        anew = f'{pip()} install --force-reinstall "torch{tried_ranges()["torch"]}"'
        return Check("torch", "problem", f"{said}, can't be imported: {torch.error}", anew)
    return Check("torch", "ok", said)


def built_for(torch: TorchAnswer) -> str:
    """What a build of torch computes on, in words."""
    if torch.cuda:
        return f"built for CUDA {torch.cuda}"
    if torch.hip:
        return f"built for ROCm {torch.hip}"
    return "built for Apple's GPU and the CPU" if sys.platform == "darwin" else "built for the CPU only"


def check_gpu(torch: TorchAnswer, gpu: Gpu | None, driver: Driver | None) -> Check:
    """Check which GPU there is, and whether this torch can use it with this driver."""
    if driver is not None and driver.cards:
        return check_nvidia(torch, gpu, driver)
    if gpu is None:
        slow = "everything runs on the CPU: pocket in minutes, Stable Diffusion in hours or days"
        return Check("gpu", "warning", f"no GPU: {describe(None)}; {slow}", "start with: dreambooth demo")
    if gpu.kind == "rocm" and torch.version and not torch.hip:
        anew = f"{pip()} install --force-reinstall torch --index-url, and the address that https://pytorch.org/get-started has for ROCm"
        return Check("gpu", "problem", f"{gpu.name}, but this PyTorch is {built_for(torch)}", anew)
    if gpu.kind == "mps" and torch.version and not torch.error and not torch.reaches_mps:
        return Check("gpu", "problem", f"{gpu.name}, but this PyTorch can't use it", install_line(["torch"]))
    return Check("gpu", "ok", gpu.name)


def check_nvidia(torch: TorchAnswer, gpu: Gpu | None, driver: Driver) -> Check:
    """The same for an NVIDIA card: whether build, driver and card suit one another."""
    name, capability = driver.cards[0] if gpu is None or gpu.kind != "cuda" else (gpu.name, gpu.capability)
    knows = ".".join(map(str, driver.cuda))
    said = f"{name}, driver {driver.version} for CUDA up to {knows}"
    if capability is not None:
        said = f"{said}, compute capability {'.'.join(map(str, capability))}"
    anew = reinstall_line(build_for(capability, driver.cuda))
    if torch.version and not torch.cuda:
        return Check("gpu", "problem", f"{said}; but this PyTorch ({torch.version}) is {built_for(torch)}", anew)
    if torch.cuda and driver.cuda[0] < int(torch.cuda.split(".")[0]):
        newer = f"update the driver (https://www.nvidia.com/drivers), or: {anew}"
        return Check("gpu", "problem", f"{said}; but this PyTorch needs a driver for CUDA {torch.cuda}", newer)
    if capability is not None and torch.architectures and not has_kernels(capability, torch.architectures):
        has = ", ".join(torch.architectures)
        return Check("gpu", "problem", f"{said}; but this PyTorch has no kernels for it, only for {has}", anew)
    if gpu is None:
        return Check("gpu", "warning", f"{said}; but it is not used: {describe(None)}", "unset CUDA_VISIBLE_DEVICES, unless you meant that")
    if torch.version and not torch.error and not torch.reaches_cuda:
        again = f"restart the machine (after a driver update that is enough); otherwise: {anew}"
        return Check("gpu", "problem", f"{said}; but PyTorch can't reach it", again)
    return Check("gpu", "ok", said)


def check_gpu_memory(gpu: Gpu | None) -> Check:
    """Check how much of the GPU's memory is free."""
    if gpu is None:
        return Check("gpu memory", "ok", "none, as there is no GPU")
    said = f"{gpu.free / 1e9:.1f} of {gpu.total / 1e9:.1f} GB free"
    if gpu.free < gpu.total / 2:
        return Check("gpu memory", "warning", f"{said}: other programs use the rest", "see which ones (nvidia-smi), and close them")
    return Check("gpu memory", "ok", f"{said}; dreambooth models says what fits")


def check_memory() -> Check:
    """Check the machine's own memory."""
    free, total = free_memory(), machine_memory()
    said = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if free < LITTLE_MEMORY:
        less = "close other programs; Stable Diffusion is loaded into it first"
        return Check("memory", "warning", f"{said}: little for more than pocket", less)
    return Check("memory", "ok", said)


def check_bitsandbytes(torch: TorchAnswer, gpu: Gpu | None) -> Check:
    """Check bitsandbytes, the library of 8-bit AdamW: an extra that makes full fine-tuning fit on smaller cards."""
    here = installed("bitsandbytes")
    wanted = gpu is not None and gpu.kind in ("cuda", "rocm")
    if here is None and not wanted:
        return Check("bitsandbytes", "ok", "not installed, and of no use without a GPU")
    if here is None:
        without = "not installed: without its 8-bit AdamW a full fine-tune needs a larger card"
        return Check("bitsandbytes", "warning", without, install_line(["bitsandbytes"]))
    if wanted and torch.bitsandbytes and not torch.error:
        return Check("bitsandbytes", "problem", f"{here} can't be imported: {torch.bitsandbytes}", install_line(["bitsandbytes"]))
    return Check("bitsandbytes", "ok", here)


def check_libraries() -> Check:
    """Compare the other libraries' versions with those that were tried."""
    missing = [name for name in tried_ranges() if name not in ("torch", "bitsandbytes") and installed(name) is None]
    if missing:
        return Check("libraries", "problem", f"not installed: {', '.join(missing)}", install_line(missing))
    if others := untried():
        named = ", ".join(f"{name} {here} (tried: {tried})" for name, (here, tried) in others.items())
        return Check("libraries", "warning", f"not tried with dreambooth {__version__}: {named}", install_line(others))
    if installed(PACKAGE) is None:
        return Check("libraries", "warning", "dreambooth runs from a folder and is not installed, so versions can't be compared", "")
    told = ", ".join(f"{name} {installed(name)}" for name in ("diffusers", "transformers", "peft", "accelerate"))
    return Check("libraries", "ok", f"all in the ranges that were tried: {told}")


def check_faces() -> Check:
    """Check dlib, which finds the faces in photos. It is imported in a child process: on an old CPU that can end the process."""
    version, error = ask_child("import dlib; print(dlib.__version__)")
    if not error:
        return Check("faces", "ok", f"dlib {version.strip()} finds them in photos")
    without = "faces in photos are not found, so a crop may cut one off"
    if not fits_here(DLIB):
        return Check("faces", "warning", f"{without}: there is no build of dlib for this Python and machine")
    if (here := installed(DLIB)) is None:
        return Check("faces", "warning", f"{without}: dlib is not installed", install_line([DLIB]))
    return Check("faces", "warning", f"{without}: dlib {here} can't be imported: {error}", f"{install_line([DLIB])} --force-reinstall")


def check_disk() -> Check:
    """Check the room where projects, models and class images are written, and that it can be written to."""
    places = {"projects": projects_folder(), "models": hub_cache(), "class images": cache_folder()}
    free = {what: shutil.disk_usage(standing_part(folder)).free for what, folder in places.items()}
    locked = [(what, place) for what, folder in places.items() if not os.access(place := standing_part(folder), os.W_OK)]
    said = ", ".join(f"{count / 1e9:.1f} GB free for {what}" for what, count in free.items())
    if locked:
        what, place = locked[0]
        other = "change its permissions, or name another place: DREAMBOOTH_HOME for projects, HF_HOME for models"
        return Check("disk", "problem", f"{place} can't be written, but {what} go there", other)
    move = "make room (dreambooth projects shows what is there), or move them: DREAMBOOTH_HOME for projects, HF_HOME for models"
    if min(free.values()) < LEAST_ROOM:
        return Check("disk", "problem", said, move)
    if min(free.values()) < LITTLE_ROOM:
        return Check("disk", "warning", f"{said}: a full Stable Diffusion run writes up to 25 GB", move)
    return Check("disk", "ok", said)


def check_caches() -> Check:
    """Report which base models are on disk, and how much room the class images take."""
    folder = hub_cache()
    names = {entry.name: entry.repository for entry in CATALOG if entry.repository}
    here = [name for name, owner in names.items() if (folder / ("models--" + owner.replace("/", "--")) / "snapshots").is_dir()]
    bases = f"base models fetched: {', '.join(here)}" if here else "no base model fetched yet (pocket comes with dreambooth)"
    return Check("caches", "ok", f"{bases}; {bytes_in(cache_folder()) / 1e9:.1f} GB of class images and digests")


def check_hub() -> Check:
    """Check, with one request, whether the hub answers."""
    check_variables()
    address, _ = split_endpoint(os.environ.get("HF_ENDPOINT", ""))
    if offline := [name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "TRUE", "YES", "ON")]:
        said = f"{offline[0]} is set: nothing is fetched, only what is on disk is used"
        return Check("hub", "warning", said, f"unset {offline[0]} to fetch models")
    repair = "check the connection and the proxy (HTTPS_PROXY)"
    if address == DEFAULT_ENDPOINT:
        repair += f"; if the hub can't be reached from here, set a mirror: HF_ENDPOINT={MIRROR}"
    try:
        with urlopen(Request(address, method="HEAD", headers={"User-Agent": f"{PACKAGE}/{__version__}"}), timeout=PATIENCE):
            pass
    except HTTPError as error:
        if error.code >= 500:
            return Check("hub", "warning", f"{address} answers with an error ({error.code}); models on disk still work", repair)
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Check("hub", "warning", f"{address} does not answer: {reason}; models on disk still work", repair)
    return Check("hub", "ok", f"{address} answers")


def check_token() -> Check:
    """Check whether there is a token for the hub, and where it is; it is never shown."""
    where, token = next(((where, token) for where, token in tokens() if token), ("", ""))
    if not token:
        return Check("token", "ok", "none; only gated models need one")
    if not re.fullmatch("[!-~]+", token):
        again = "copy it again from https://huggingface.co/settings/tokens, or run: hf auth login"
        return Check("token", "problem", f"the token in {where} contains a character that no token has", again)
    return Check("token", "ok", f"there is one, in {where}")


def tokens() -> Iterator[tuple[str, str]]:
    """Where the hub's client looks for a token, in order: the place in words, and what is there. Raises OSError."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        yield name, os.environ.get(name, "").strip()
    file = Path(os.environ.get("HF_TOKEN_PATH") or hub_cache().parent / "token")
    with suppress(FileNotFoundError, NotADirectoryError):
        yield "the file that hf auth login wrote", file.read_bytes()[:LONGEST_TOKEN].decode(errors="replace").strip()
