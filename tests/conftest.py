"""What every test relies on: home folders of its own, no network but loopback, small base models and photos."""

import gc
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dreambooth_cli import stopping

from . import small_flow, small_models
from .bases_once import read_each_base_once

# Libraries read these once, when they are imported.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_COLOR": "1", "COLUMNS": "80"}
os.environ |= {"TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}
os.environ["OMP_NUM_THREADS"] = "1"
for name in (
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "PY_COLORS",
    "TTY_COMPATIBLE",
    "CI",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_HUB_CACHE",
):
    os.environ.pop(name, None)

KEPT = Path(__file__).parent / "kept"
# If the tests are started in the background or under nohup, these are ignored, and a run leaves ignored signals alone.
for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

# Where the machine's memory holds files too, tests have their folders there: every save waits for its disk, all together for minutes.
IN_MEMORY, ENOUGH = Path("/dev/shm"), 8 * 10**9
if IN_MEMORY.is_dir() and "TMPDIR" not in os.environ and shutil.disk_usage(IN_MEMORY).free > ENOUGH:
    os.environ["TMPDIR"] = tempfile.tempdir = str(IN_MEMORY)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def pytest_configure(config: pytest.Config) -> None:
    """If tests run in several processes, hand them out in shares of at most 32: with a larger first share, which has the slow tests,
    one process would still be busy when the others are done."""
    if config.pluginmanager.hasplugin("xdist") and config.option.maxschedchunk is None:
        config.option.maxschedchunk = 32


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first: one that comes last keeps one process busy while the others have nothing to do. Long ones count as slow."""
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """Hide everything imported so far from garbage collection, since it stays anyway: going through it each time that a run gives memory
    back took a third of the suite's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Projects, caches and the hub's downloads are in the test's own folder; no signal is left over from an earlier test."""
    monkeypatch.setenv("DREAMBOOTH_HOME", str(tmp_path / "dreambooth-home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    yield
    stopping.reset()


@pytest.fixture(autouse=True)
def roomy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans do not depend on the memory of the machine that tests them."""
    monkeypatch.setattr("dreambooth_cli.memory.search.free_memory", lambda: 64 * 10**9)
    monkeypatch.setattr("dreambooth_cli.memory.search.machine_memory", lambda: 10**12)


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to any other machine fails."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))


def _guarded(connect: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if isinstance(address, tuple) and address[0] not in LOOPBACK:
            raise OSError(f"tests reach no network, but this one tried {address[0]}")
        return connect(self, address)

    return guarded


@pytest.fixture(scope="session")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Stable Diffusion 1 base (epsilon). It belongs to the whole session: read it only."""
    return _build("sd1", tmp_path_factory)


@pytest.fixture(scope="session")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Stable Diffusion 2 base (velocity). It belongs to the whole session: read it only."""
    return _build("sd2", tmp_path_factory)


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Stable Diffusion XL base. It belongs to the whole session: read it only."""
    return _build("sdxl", tmp_path_factory)


@pytest.fixture(scope="session")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Z-Image base. It belongs to the whole session: read it only."""
    return _build("z-image", tmp_path_factory)


@pytest.fixture(scope="session")
def klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small FLUX.2 klein base. It belongs to the whole session: read it only."""
    return _build("klein", tmp_path_factory)


def _build(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    read_each_base_once()
    module = small_flow if kind in small_flow.KINDS else small_models
    return module.build(kind, tmp_path_factory.mktemp("bases") / kind)


@pytest.fixture
def refused_torchao(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A torchao whose version peft refuses, in a check of its own, whenever it puts adapters into a network."""
    from peft.import_utils import is_torchao_available

    place = tmp_path / "torchao's"
    info = place / "torchao-0.3.dist-info"
    for folder in (place / "torchao", info):
        folder.mkdir(parents=True)
    (place / "torchao" / "__init__.py").touch()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: torchao\nVersion: 0.3\n")
    (info / "top_level.txt").write_text("torchao")
    monkeypatch.syspath_prepend(str(place))
    is_torchao_available.cache_clear()
    yield
    is_torchao_available.cache_clear()


@pytest.fixture
def kept_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own copy of what version 0.1.0 left: base, photos, projects and delivered folders; DREAMBOOTH_HOME points to it."""
    folder = Path(shutil.copytree(KEPT / "0.1.0", tmp_path / "kept"))
    for path in folder.rglob("*"):
        if path.suffix in (".toml", ".json", ".jsonl"):
            path.write_text(path.read_text().replace("@KEPT@", str(folder)))
    monkeypatch.setenv("DREAMBOOTH_HOME", str(folder / "dreambooth"))
    return folder


@pytest.fixture
def photos(tmp_path: Path, drawn_photos: Path) -> Path:
    """The test's own folder of five small photos of one thing."""
    return Path(shutil.copytree(drawn_photos, tmp_path / "photos"))


@pytest.fixture(scope="session")
def drawn_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of a brown ball with two eyes in front of five backgrounds, 96 to 160 px, in three formats."""
    folder = tmp_path_factory.mktemp("drawn")
    for number, (name, size) in enumerate(
        (
            ("one.jpg", (160, 120)),
            ("two.jpg", (120, 160)),
            ("three.jpg", (128, 128)),
            ("four.png", (96, 144)),
            ("five.webp", (150, 110)),
        )
    ):
        draw_photo(folder / name, size, seed=number)
    return folder


def draw_photo(path: Path, size: tuple[int, int], *, seed: int) -> Path:
    """Draw one sharp, coloured picture that depends on `seed`, in the format that its name says."""
    from PIL import Image, ImageDraw

    rng = random.Random(seed)
    picture = Image.new("RGB", size, tuple(rng.randrange(60, 230) for _ in range(3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(40):
        x, y, side = rng.randrange(size[0]), rng.randrange(size[1]), rng.randrange(4, 24)
        draw.rectangle((x, y, x + side, y + side), fill=tuple(rng.randrange(256) for _ in range(3)))
    radius = min(size) // 4
    x, y = rng.randrange(radius, size[0] - radius), rng.randrange(radius, size[1] - radius)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(139, 90, 43), outline=(20, 10, 0), width=2)
    for eye in (x - radius // 3, x + radius // 3):
        draw.ellipse((eye - 3, y - 6, eye + 3, y), fill="black")
    picture.save(path, quality=92)
    return path
