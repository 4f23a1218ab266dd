"""A small hub on loopback for the real huggingface_hub client: listings, files with ETag, commit and ranges, large files behind a
redirect to another host, and the hub's answers for what is gone, gated or missing."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

LARGE = (".safetensors", ".bin", ".ckpt")


@dataclass(frozen=True)
class File:
    """One file of a repository."""

    name: str
    path: Path

    @cached_property
    def content(self) -> bytes:
        return self.path.read_bytes()

    @property
    def is_large(self) -> bool:
        return self.name.endswith(LARGE)

    @cached_property
    def etag(self) -> str:
        if self.is_large:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    def listed(self) -> dict[str, Any]:
        """As `/api/models/...?blobs=true` lists it."""
        lfs = {"sha256": self.etag, "size": len(self.content), "pointerSize": 134}
        return {"rfilename": self.name, "size": len(self.content), "blobId": self.etag[:40]} | (
            {"lfs": lfs} if self.is_large else {}
        )


@dataclass
class HubServer:
    """What the hub holds and how it behaves. `requests`: method, path and Range header of each; `tokens`: which hosts were shown one."""

    url: str = ""
    store: str = ""
    repositories: dict[str, tuple[str, dict[str, File]]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    tokens: set[tuple[str, str]] = field(default_factory=set)  # host and port, Authorization header
    answer: int | None = None  # every request gets this status
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # the next requests get these
    refusal: bytes = b"<html>not now</html>"  # the body of those answers
    moved: dict[str, str] = field(default_factory=dict)  # repository -> its other name, or another host's URL
    gone: set[str] = field(default_factory=set)  # answered 404 instead of the 401 that strangers get
    cut_after: dict[str, int] = field(default_factory=dict)  # file -> bytes, then the connection breaks, once
    corrupt: set[str] = field(default_factory=set)  # files that are sent with one byte changed
    ignore_ranges: bool = False
    listing: Callable[[dict[str, Any]], Any] | None = None  # changes a listing before it is sent; bytes are sent as they are
    bodies: dict[str, Callable[[bytes], tuple[bytes, dict[str, str]]]] = field(default_factory=dict)  # file -> other bytes, headers
    created: dict[str, bool] = field(default_factory=dict)  # repositories made by a client -> whether they are private
    commits: list[dict[str, bytes]] = field(default_factory=list)  # files by their names
    pointers: dict[str, str] = field(default_factory=dict)  # files that a commit names by their SHA-256: they went to the store before
    xet: str | None = None  # where large files go first (`local://FOLDER` is a store of the client's own), or within the commit
    xet_refusal: int | None = None  # what a client gets that wants to write there
    cut_uploads: int = 0  # how many commits end in a broken connection
    held: str | None = None  # the file whose second half waits
    is_held: threading.Event = field(default_factory=threading.Event)  # its first half is sent
    go_on: threading.Event = field(default_factory=threading.Event)  # its second half may be sent

    def add(self, repository: str, folder: Path, revision: str) -> None:
        """Serve a folder as a repository whose branch `main` is the commit `revision`."""
        names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
        self.repositories[repository] = (revision, {name: File(name, folder / name) for name in names})

    def fetched(self) -> set[str]:
        """The names of the files whose content was asked for."""
        return {path.split("/", 5)[5] for method, path, _ in self.requests if method == "GET" and "/resolve/" in path}

    def ranges(self) -> list[str]:
        """The Range headers that were sent."""
        return [wanted for _, path, wanted in self.requests if wanted and "/resolve/" in path]


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """A hub that answers on loopback until the block ends, and its store for large files on another port."""
    hub = HubServer()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with _serve(handler) as hub.url, _serve(handler) as hub.store:
        yield hub


def use_hub(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client in this process take the server for the hub, as HF_ENDPOINT does for a new process."""
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@contextmanager
def _serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def do_GET(self) -> None:
        self._route()

    def do_HEAD(self) -> None:
        self._route()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, None))
        if self.hub.answer is not None:
            self._send(self.hub.answer, b"{}")
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.hub.created.setdefault(name, asked.get("visibility") == "private")
            self._answer({"url": f"{self.hub.url}/{name}"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path.endswith("/preupload/main"):
            large = LARGE if self.hub.xet else ()
            files = [each["path"] for each in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "lfs" if name.endswith(large) else "regular", "shouldIgnore": False} for name in files]
            self._answer({"files": modes})
        elif path.endswith("/commit/main") and self.hub.cut_uploads:
            self.hub.cut_uploads -= 1
            self.connection.close()
        elif path.endswith("/commit/main"):
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._send(404, b"")

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        files = [line["value"] for line in lines if line["key"] == "file"]
        self.hub.commits.append({file["path"]: base64.b64decode(file["content"]) for file in files})
        self.hub.pointers |= {line["value"]["path"]: line["value"]["oid"] for line in lines if line["key"] == "lfsFile"}
        oid = "0" * 40
        self._answer({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/me/dog/commit/{oid}"})

    def _answer(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if token := self.headers.get("Authorization"):
            self.hub.tokens.add((str(self.headers["Host"]), token))
        moved = next((name for name in self.hub.moved if f"/{name}/" in path), None)
        if self.hub.answers:
            status, headers = self.hub.answers.pop(0)
            self._send(status, self.hub.refusal, headers)
        elif moved is not None and self.headers["Host"] in self.hub.url:
            there = self.hub.moved[moved]
            query = f"?{asked}" if (asked := urlsplit(self.path).query) else ""
            self._send(307, b"", {"Location": (there + path if "//" in there else path.replace(moved, there)) + query})
        elif self.hub.answer is not None:
            self._send(self.hub.answer, b"<html>out of order</html>")
        elif path.endswith("/xet-write-token/main"):
            told = {"casUrl": self.hub.xet, "accessToken": "xet_unmistakable", "exp": 4_000_000_000}
            self._send(self.hub.xet_refusal or 200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
            self._list(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*found.groups())
        elif found := re.fullmatch(r"/store/([^/]+/[^/]+)/(.+)", path):
            self._send_content(self.hub.repositories[found[1]][1][found[2]], {})
        else:
            self._send(404, b"")

    def _files(self, repository: str, revision: str) -> tuple[str, dict[str, File]] | None:
        """The commit and the files, or None once the refusal is sent, as the hub words it."""
        if repository in self.hub.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model is restricted."})
        elif repository in self.hub.gone:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif repository not in self.hub.repositories:
            # The hub does not tell strangers whether a repository is gone or private.
            self._send(401, b"", {"X-Error-Message": "Invalid username or password."})
        elif revision not in ("main", self.hub.repositories[repository][0]):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
        else:
            return self.hub.repositories[repository]
        return None

    def _list(self, repository: str, kind: str, revision: str) -> None:
        if (found := self._files(repository, revision)) is None:
            return
        commit, files = found
        answer: Any = {"id": repository, "modelId": repository, "sha": commit, "tags": []}
        if kind == "revision":
            answer["siblings"] = [file.listed() for file in files.values()]
        else:
            answer = [
                {"type": "file", "path": file.name, "size": len(file.content), "oid": file.etag[:40]}
                | ({"lfs": {"oid": file.etag, "size": len(file.content), "pointerSize": 134}} if file.is_large else {})
                for file in files.values()
            ]
        changed = self.hub.listing(answer) if self.hub.listing else answer
        content = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        self._send(200, content, {"Content-Type": "application/json"})

    def _resolve(self, repository: str, revision: str, name: str) -> None:
        if (found := self._files(repository, revision)) is None:
            return
        commit, files = found
        file = files.get(name)
        if file is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        elif file.is_large:
            linked = {
                "X-Linked-Etag": f'"{file.etag}"',
                "X-Linked-Size": str(len(file.content)),
                "X-Repo-Commit": commit,
            }
            self._send(302, b"", {"Location": f"{self.hub.store}/store/{repository}/{name}", **linked})
        else:
            self._send_content(file, {"X-Repo-Commit": commit})

    def _send_content(self, file: File, headers: dict[str, str]) -> None:
        content = file.content
        if file.name in self.hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted and not self.hub.ignore_ranges else 0
        headers = {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", **headers}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        status, rest = 206 if start else 200, content[start:]
        if file.name in self.hub.bodies:
            rest, others = self.hub.bodies[file.name](rest)
            headers |= others
        if file.name == self.hub.held:
            self.hub.held = None
            self._send(status, rest, headers, hold_at=len(rest) // 2)
        else:
            self._send(status, rest, headers, cut_after=self.hub.cut_after.pop(file.name, None))

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str] | None = None,
        *,
        cut_after: int | None = None,
        hold_at: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and hold_at is None:
            with suppress(ConnectionError):  # a client that has seen enough
                self.wfile.write(content[:cut_after])
        elif self.command != "HEAD":
            self.wfile.write(content[:hold_at])
            self.wfile.flush()
            self.hub.is_held.set()
            self.hub.go_on.wait()
            with suppress(ConnectionError):  # the client may be gone by now
                self.wfile.write(content[hold_at:])
