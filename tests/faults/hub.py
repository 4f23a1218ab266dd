"""The command itself with a hub in every bad state: `python -m tests.faults.hub`.

Each try is a process of its own that pulls a small base from a hub on loopback, with a token. If the fault passes, the same command
then goes on, and what is in the cache must equal the hub's files to the byte.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ..hub_server import File, HubServer, serve_hub
from ..small_models import build
from .full_disk import MayNotMount, fill, small_disk
from .kills import SIGNALS
from .row import Row

NAME, COMMIT = "someone/small", "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_aVerySecretTokenOfTheFaults"
UNET = "unet/diffusion_pytorch_model.safetensors"
EVIL = "unet/our_unet.py"
LONGEST = 60.0  # s that one answer may take; the pauses between its tries make 15


@dataclass(frozen=True)
class Fault:
    """What is wrong with the hub, and how the command must answer: its exit status and words of its answer.

    `passes`: afterwards the hub serves, and the same command must succeed.
    """

    name: str
    prepare: Callable[[HubServer], None]
    code: int = 0
    words: str = ""
    passes: bool = False


def answers(server: HubServer, *statuses: int) -> None:
    """Have the next requests answered in this way."""
    server.answers = [(status, {"Retry-After": "1"} if status == 429 else {}) for status in statuses]


def always(status: int) -> Callable[[HubServer], None]:
    """A hub that gives no other answer."""
    return lambda server: setattr(server, "answer", status)


def passing(*statuses: int) -> Callable[[HubServer], None]:
    """A hub that is out of order for a while."""
    return lambda server: answers(server, *statuses)


def cut(file: str, after: int) -> Callable[[HubServer], None]:
    """A connection that breaks once."""
    return lambda server: server.cut_after.update({file: after})


def wrong(file: str) -> Callable[[HubServer], None]:
    """A file that is sent with one byte changed."""
    return lambda server: server.corrupt.add(file)


def redirect(to_mirror: bool) -> Callable[[HubServer], None]:
    """A repository that has another name now, or is on another host."""

    def prepare(server: HubServer) -> None:
        if to_mirror:
            server.moved[NAME] = server.store
        else:
            server.repositories["someone/renamed"] = server.repositories.pop(NAME)
            server.moved[NAME] = "someone/renamed"

    return prepare


def faults(files: dict[str, int]) -> Iterator[Fault]:
    """Every bad state; `files` are the repository's, with their sizes."""
    yield Fault("gone, told as 401", lambda server: server.repositories.clear(), 5, "is gone or private")
    yield Fault("gone, told as 404", lambda server: server.gone.add(NAME), 5, "is gone or private")
    yield Fault("gated", lambda server: server.gated.add(NAME), 5, "press Agree and access repository")
    for status in (429, 500, 503):
        yield Fault(f"{status} without end", always(status), 5, f"(it answers {status})", passes=True)
        yield Fault(f"{status} for a while", passing(status, status))
    yield Fault("a page of something else", always(200), 5, "is not the hub", passes=True)
    yield Fault("renamed", redirect(to_mirror=False))
    yield Fault("on a mirror", redirect(to_mirror=True))
    yield Fault("sends files whole where the rest is asked for", lambda server: setattr(server, "ignore_ranges", True))
    for file, size in files.items():
        yield Fault(f"wrong bytes in {file}", wrong(file), 5, "arrived damaged", passes=True)
        for part in (0, 1, size // 2, size - 1):
            yield Fault(f"{file} cut after {part} bytes", cut(file, part))


@contextmanager
def hub_with_a_base(folder: Path) -> Iterator[HubServer]:
    """A hub with one small base, among files that are not to be fetched."""
    base = build("sd1", folder / "repository")
    (base / EVIL).write_text("raise SystemExit('remote code ran')\n")
    (base / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (base / "README.md").write_text("a page\n")
    with serve_hub() as server:
        server.add(NAME, base, COMMIT)
        yield server


def start_pull(server: HubServer, home: Path, **variables: str) -> subprocess.Popen[str]:
    """The command, in a process of its own."""
    places = {"HF_HOME": str(home / "hub"), "HF_HUB_CACHE": str(home / "cache"), "DREAMBOOTH_HOME": str(home / "ours")}
    environment = (
        os.environ | {"HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN} | places | variables
    )
    return subprocess.Popen(
        [sys.executable, "-m", "dreambooth_cli", "models", "pull", NAME],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def pull(server: HubServer, home: Path, **variables: str) -> tuple[int, str, float]:
    """The command, until it ends. Returns exit status, all that it printed, seconds."""
    started = time.monotonic()
    process = start_pull(server, home, **variables)
    said, _ = process.communicate(timeout=LONGEST * 2)
    return process.returncode, " ".join(said.split()), time.monotonic() - started


def faults_of_cache(server: HubServer, home: Path, *, whole: bool) -> Iterator[str]:
    """What is wrong with the files that a try has left."""
    for file in home.rglob("*"):
        if file.is_file() and TOKEN.encode() in file.read_bytes():
            yield f"the token is in {file.name}"
    snapshot = next((home / "cache").glob("models--*/snapshots/*"), None)
    found = (
        {path.relative_to(snapshot).as_posix(): path for path in snapshot.rglob("*") if path.is_file()}
        if snapshot
        else {}
    )
    ours = next(iter(server.repositories.values()))[1] if server.repositories else {}
    yield from (f"{name} does not belong there" for name in found if name not in wanted_of(ours) and ours)
    yield from (
        f"{name} is damaged" for name in found if name in ours and found[name].read_bytes() != ours[name].content
    )
    if whole:
        yield from (f"{name} is missing" for name in wanted_of(ours) if name not in found)


def wanted_of(files: Iterable[str]) -> list[str]:
    """The files that training needs."""
    return [name for name in files if not name.endswith((".py", ".bin", ".md"))]


def restore(server: HubServer, kept: Mapping[str, tuple[str, dict[str, File]]]) -> None:
    """Let the hub serve again."""
    server.answer, server.answers, server.ignore_ranges = None, [], False
    server.repositories = dict(kept)
    for faulty in (server.corrupt, server.gone, server.gated, server.tokens, server.cut_after, server.moved):
        faulty.clear()


def try_fault(server: HubServer, fault: Fault, home: Path) -> tuple[list[str], float]:
    """What went wrong, and the time of the longest answer in seconds."""
    kept = dict(server.repositories)
    fault.prepare(server)
    code, said, slowest = pull(server, home)
    wrong = [f"exit {code}: {said[-200:]}"] if code != fault.code or fault.words not in said else []
    wrong += [words for words in ("Traceback", TOKEN) if words in said]
    wrong += [f"the token was shown to {host}" for host, _ in server.tokens if host not in server.url]
    wrong += faults_of_cache(server, home, whole=code == 0)
    restore(server, kept)
    if fault.passes and not wrong:
        code, said, again = pull(server, home)
        slowest = max(slowest, again)
        wrong += [f"afterwards exit {code}: {said[-200:]}"] if code else []
        wrong += faults_of_cache(server, home, whole=True)
    return [f"{fault.name}: {words}" for words in wrong], slowest


def try_offline(server: HubServer, folder: Path) -> list[str]:
    """Without a network: refused if the cache is empty, served if it is complete."""
    wrong = []
    code, said, _ = pull(server, folder / "offline", HF_HUB_OFFLINE="1")
    if code != 5 or "is not on this machine, and HF_HUB_OFFLINE is set" not in said:
        wrong.append(f"offline without a cache: exit {code}: {said[-200:]}")
    pull(server, folder / "offline")
    code, said, _ = pull(server, folder / "offline", HF_HUB_OFFLINE="1")
    if code:
        wrong.append(f"offline with a cache: exit {code}: {said[-200:]}")
    return wrong


def try_signals(server: HubServer, folder: Path, names: Collection[str]) -> Iterator[str]:
    """Signals in the middle of a file: its first half is kept, and the same command goes on with the second."""
    for name in names:
        numbers, expected = SIGNALS[name]
        home = folder / f"signals {name}"
        server.held = UNET
        process = start_pull(server, home)
        server.is_held.wait(LONGEST)
        for number in numbers:
            process.send_signal(number)
        server.go_on.set()
        said, _ = process.communicate(timeout=LONGEST)
        server.is_held.clear()
        server.go_on.clear()
        if process.returncode != expected or "Traceback" in said:
            yield f"{name} during a download: exit {process.returncode}: {said[-200:]}"
        yield from (f"{name} during a download: {words}" for words in faults_of_cache(server, home, whole=False))
        code, said, _ = pull(server, home)
        if code:
            yield f"after {name} during a download: exit {code}: {said[-200:]}"
        yield from (f"after {name} during a download: {words}" for words in faults_of_cache(server, home, whole=True))


def try_full_disk(server: HubServer, folder: Path) -> list[str]:
    """A disk that fills up during the download: this is reported, what arrived is kept, and with room made it goes on. Raises
    MayNotMount."""
    wrong = []
    with small_disk(folder / "disk") as disk:
        ballast = fill(disk)
        os.truncate(ballast, ballast.stat().st_size - 200_000)
        code, said, _ = pull(server, disk, HF_HOME=str(folder / "hub"), DREAMBOOTH_HOME=str(folder / "ours"))
        if code != 6:
            wrong.append(f"a full disk: exit {code}: {said[-200:]}")
        ballast.unlink()
        code, said, _ = pull(server, disk)
        wrong += [f"a full disk, with room made: exit {code}: {said[-200:]}"] if code else []
        wrong += faults_of_cache(server, disk, whole=True)
    return wrong


def rows(*, every: int = 1, signals: Collection[str] = tuple(SIGNALS)) -> Iterator[Row]:
    """Every `every`-th bad state of the hub, and these signals during a download."""
    with TemporaryDirectory(prefix="dreambooth-faults-") as name, hub_with_a_base(Path(name)) as server:
        folder, slowest, remarks = Path(name), 0.0, list[str]()
        files = {file.name: len(file.content) for file in server.repositories[NAME][1].values()}
        tried = list(faults({name: files[name] for name in wanted_of(files)}))[::every]
        for number, fault in enumerate(tried):
            wrong, seconds = try_fault(server, fault, folder / f"home{number}")
            remarks, slowest = remarks + wrong, max(slowest, seconds)
        remarks += [*try_offline(server, folder), *try_signals(server, folder, signals)]
        count, skipped = len(tried) + 2 + len(signals), list[str]()
        try:
            remarks += try_full_disk(server, folder)
            count += 1
        except MayNotMount as error:
            skipped = [f"a full disk, not tried: {error}"]
        yield Row("a hub in a bad state", count, lost=len(remarks), slowest=slowest, remarks=[*remarks, *skipped])


if __name__ == "__main__":
    for each in rows():
        print(each)
