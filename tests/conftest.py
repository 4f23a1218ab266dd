"""What every test stands on: homes of its own, no network but loopback, small base models and photos."""

import gc
import os
import random
import shutil
import signal
import socket
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
# Whoever starts the tests in the background or under nohup has these ignored, and a run leaves it so.
for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def pytest_configure(config: pytest.Config) -> None:
    """Where tests run in several processes, shares of 32 at most: of a larger first one, with the slow tests in it, a process would
    still have much to do when the others are through."""
    if config.pluginmanager.hasplugin("xdist") and config.option.maxschedchunk is None:
        config.option.maxschedchunk = 32


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tests first: one that is left for the end keeps one process busy while the others have nothing to do. Long ones are slow."""
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """What was imported stays: kept out of the collector's sight, it isn't gone through each time that a run gives memory back, which
    was a third of the suite's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def own_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Projects, caches and the hub's downloads in the test's own folder; no signal left over."""
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
    """A small Stable Diffusion 1 base (epsilon). Read it only: it is the whole session's."""
    return _build("sd1", tmp_path_factory)


@pytest.fixture(scope="session")
def sd2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Stable Diffusion 2 base (velocity). Read it only: it is the whole session's."""
    return _build("sd2", tmp_path_factory)


@pytest.fixture(scope="session")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Stable Diffusion XL base. Read it only: it is the whole session's."""
    return _build("sdxl", tmp_path_factory)


@pytest.fixture(scope="session")
def z_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Z-Image base. Read it only: it is the whole session's."""
    return _build("z-image", tmp_path_factory)


@pytest.fixture(scope="session")
def klein(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small FLUX.2 klein base. Read it only: it is the whole session's."""
    return _build("klein", tmp_path_factory)


def _build(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    torch.set_num_threads(1)
    read_each_base_once()
    module = small_flow if kind in small_flow.KINDS else small_models
    return module.build(kind, tmp_path_factory.mktemp("bases") / kind)


@pytest.fixture
def refused_torchao(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A torchao is here whose version peft refuses, by a check of its own, whenever it puts adapters into a network."""
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
    """What version 0.1.0 left, the test's own copy: its base, photos, projects and delivered folders; DREAMBOOTH_HOME is there."""
    folder = Path(shutil.copytree(KEPT / "0.1.0", tmp_path / "kept"))
    for path in folder.rglob("*"):
        if path.suffix in (".toml", ".json", ".jsonl"):
            path.write_text(path.read_text().replace("@KEPT@", str(folder)))
    monkeypatch.setenv("DREAMBOOTH_HOME", str(folder / "dreambooth"))
    return folder


@pytest.fixture
def photos(tmp_path: Path, drawn_photos: Path) -> Path:
    """A folder of five small photos of one thing, the test's own copy."""
    return Path(shutil.copytree(drawn_photos, tmp_path / "photos"))


@pytest.fixture(scope="session")
def drawn_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of a brown ball with two eyes, before five backgrounds, 96 to 160 px, in three formats."""
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
    """Draw one sharp, coloured picture that differs with `seed`; its format is the name's."""
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
