"""A hub that means harm: `python -m tests.faults.hostile_hub`.

Listings, headers and bodies are changed at random, by a seed; a small base is then fetched, mostly within this process, sometimes by the
command itself. Each try must end with the hub's own files or an error in words, and leave nothing incomplete and nothing outside the cache.
"""

import gzip
import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import constants

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.engine.hub import bases as hub
from dreambooth_cli.engine.hub import download as transfer
from dreambooth_cli.errors import DreamboothError

from ..hub_server import HubServer
from .hub import EVIL, NAME, TOKEN, hub_with_a_base, pull, wanted_of
from .row import Row

IN_PROCESS, AS_COMMANDS = 300, 30  # tries of each kind
LONGEST = 10.0  # s
MOST_REQUESTS = 100
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 10**9, 10**30, 1.5, "", "x", "../../../evil", "/tmp/evil", "a\0b", "\x1b[2J\x1b[31m", "\u202eevil",
    "\ud800", "C:\\evil", "con", "A" * 100_000, [], {}, [[]], {"a": {"b": [None]}}, "0" * 40, "f" * 64, 'W/"abc"',
)  # fmt: skip
HEADERS = {
    "ETag": ('"../../../evil"', 'W/"x"', "", "\x7f"),
    "X-Repo-Commit": ("../../evil", "f" * 40),
    "Content-Encoding": ("gzip", "br, gzip", "x", "identity"),
    "Content-Range": ("bytes 0-1/2", "bytes 5-", "x", "bytes 0-0/99999999999999999999"),
    "X-HF-Warning": ("a; \x1b[31m",),
    "Set-Cookie": ("a=" + "b" * 5000,),
    "X-Long": ("x" * 60_000,),
}


def change_listing(draw: random.Random) -> Callable[[dict[str, Any]], Any]:
    """A listing in which one thing, wherever it is, is changed; or one that is cut off or padded."""

    def change(listing: dict[str, Any]) -> Any:
        text = json.dumps(listing).encode()
        if draw.random() < 0.2:
            place = draw.randrange(len(text))
            return draw.choice((text[:place], text + text, text[:place] + bytes([draw.randrange(256)]) + text[place + 1 :]))
        holder: Any = listing
        while True:
            key = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            if not isinstance(holder[key], dict | list) or not holder[key] or draw.random() < 0.1:
                break
            holder = holder[key]
        if draw.random() < 0.2:
            del holder[key]
        else:
            holder[key] = draw.choice(VALUES)
        return listing

    return change


def change_headers(draw: random.Random) -> Callable[[bytes], tuple[bytes, dict[str, str]]]:
    """The same bytes with one or two changed headers."""
    names = draw.sample(sorted(HEADERS), 2)
    return lambda body: (body, {name: draw.choice(HEADERS[name]) for name in names})


def change_body(draw: random.Random) -> Callable[[bytes], tuple[bytes, dict[str, str]]]:
    """Other bytes: fewer, more, changed, compressed, or a web page."""

    def change(body: bytes) -> tuple[bytes, dict[str, str]]:
        place = draw.randrange(len(body) or 1)
        return draw.choice(
            (
                (body[:place], {}),
                (body + bytes(draw.choice((1, 1000, 3_000_000))), {}),
                (body[:place] + b"?" + body[place + 1 :], {}),
                (gzip.compress(bytes(20_000_000)), {"Content-Encoding": "gzip"}),
                (b"<html>log in</html>", {"Content-Type": "text/html"}),
                (body[place:] + body[:place], {}),
            )
        )

    return change


KINDS = ("listings", "headers", "bodies", "redirects")


def harm(server: HubServer, kind: str, seed: int) -> None:
    """Let the hub do harm of a kind."""
    draw = random.Random(f"{kind} {seed}")
    wanted = wanted_of(server.repositories[NAME][1])
    if kind == "listings":
        server.listing = change_listing(draw)
    elif kind == "headers":
        server.bodies = {draw.choice(wanted): change_headers(draw)}
    elif kind == "bodies":
        server.bodies = {draw.choice(wanted): change_body(draw)}
    else:
        place = draw.choice(("file:///etc/passwd", "/a", "http://[::x", "//", "ftp://127.0.0.1/", server.url + "/\x7f", "?", "http://127.0.0.1:1/"))
        server.refusal = bytes(draw.choice((0, 10, 2_000_000)))
        server.answers = [(draw.choice((301, 302, 303, 307, 308, 300, 204, 403, 416, 500)), {"Location": place})] * draw.choice((1, 3, 50))


def forgive(server: HubServer) -> None:
    """Let the hub serve again."""
    server.listing, server.bodies, server.answers, server.refusal = None, {}, [], b""
    server.requests.clear()
    server.tokens.clear()


def faults_left(server: HubServer, home: Path) -> Iterator[str]:
    """What a try has left incomplete or in the wrong place, and what it has revealed to whom."""
    for file in home.rglob("*"):
        place = file.relative_to(home).as_posix()
        if not place.startswith("cache") or ".." in place or "evil" in place:
            if file.is_file() and not place.startswith(("ours", "hub")):
                yield f"{place} lies outside"
        elif "/blobs/" in place and file.suffix != ".incomplete":
            content = file.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            if file.name not in (git, hashlib.sha256(content).hexdigest()):
                yield f"{file.name} is kept and is not what it is called"
    yield from (f"the token was shown to {host}" for host, _ in server.tokens if host not in server.url)
    if len(server.requests) > MOST_REQUESTS:
        yield f"{len(server.requests)} requests"


def fetch_here(server: HubServer, home: Path) -> str:
    """Fetch within this process; what went wrong, if anything."""
    os.environ |= {"HF_HOME": str(home / "hub"), "HF_HUB_CACHE": str(home / "cache"), "HF_TOKEN": TOKEN}
    ours = server.repositories[NAME][1]
    try:
        folder = hub.fetch(ask_for_base(NAME))
        while True:
            next(folder)
    except StopIteration as end:
        found = [name for name in wanted_of(ours) if (end.value / name).is_file()]
        other = [name for name in found if (end.value / name).read_bytes() != ours[name].content]
        return f"taken for whole, though {other} differ" if other or (end.value / EVIL).exists() else ""
    except DreamboothError as error:
        said = error.message + error.hint
        return "" if error.exit_code in (5, 6) and said.isprintable() and TOKEN not in said else f"said: {said!r}"
    except Exception as error:  # whatever it is: it is a traceback to the user
        return f"{type(error).__name__}: {error}"


def run_command(server: HubServer, home: Path) -> str:
    """Fetch by the command; what went wrong, if anything."""
    code, said, _ = pull(server, home)
    harmless = code in (0, 5, 6) and not any(word in said for word in ("Traceback", TOKEN, "\x1b", "\u202e"))
    return "" if harmless else f"exit {code}: {said[-300:]!r}"


@contextmanager
def this_process_asks(server: HubServer) -> Iterator[None]:
    """Let the client in this process take the server for the hub, without pauses."""
    kept = (constants.ENDPOINT, constants.HF_HUB_OFFLINE, transfer.PAUSES, dict(os.environ))
    constants.ENDPOINT, constants.HF_HUB_OFFLINE, transfer.PAUSES = server.url, False, (0.0, 0.0)
    try:
        yield
    finally:
        constants.ENDPOINT, constants.HF_HUB_OFFLINE, transfer.PAUSES = kept[:3]
        os.environ.clear()
        os.environ |= kept[3]


def rows(*, here: int = IN_PROCESS, commands: int = AS_COMMANDS) -> Iterator[Row]:
    """A row for each kind of harm: so many tries within this process, so many by the command."""
    with TemporaryDirectory(prefix="dreambooth-faults-") as name, hub_with_a_base(Path(name)) as server:
        for kind in KINDS:
            remarks, slowest = list[str](), 0.0
            for seed in range(here + commands):
                home = Path(name) / f"{kind}{seed}"
                harm(server, kind, seed)
                began = time.monotonic()
                if seed < here:
                    with this_process_asks(server):
                        wrong = [fetch_here(server, home)]
                else:
                    wrong = [run_command(server, home)]
                seconds = time.monotonic() - began
                slowest = max(slowest, seconds)
                wrong += faults_left(server, home)
                if seed < here and seconds > LONGEST:
                    wrong.append(f"took {seconds:.0f} s")
                remarks += [f"{kind} {seed}: {words}" for words in wrong if words]
                forgive(server)
            yield Row(f"a hostile hub: {kind}", here + commands, lost=len(remarks), slowest=slowest, remarks=remarks)


if __name__ == "__main__":
    for each in rows():
        print(each)
