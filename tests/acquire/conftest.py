"""An archive on this machine: HTTP/1.1 with ranges, validators and redirects as RFC 9110 has them, and its faults."""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

SECRETS = (
    "EARTHDATA_TOKEN", "EARTHDATA_USERNAME", "EARTHDATA_PASSWORD", "USGS_ERS_USERNAME", "USGS_ERS_PASSWORD", "NETRC",
    "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy",
)  # fmt: skip


@dataclass
class Stored:
    """A file of the archive."""

    data: bytes
    kind: str = "application/octet-stream"
    modified: str = "Fri, 02 May 2008 12:00:00 GMT"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data, usedforsecurity=False).hexdigest()}"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes):
        archive = self.server.archive
        path = self.path.partition("?")[0]
        with archive.lock:
            archive.seen.append((self.command, self.path, self.headers))
            waiting = archive.faults.get(path)
            fault = waiting.pop(0) if waiting else None
            archive.busy += 1
            archive.busiest = max(archive.busiest, archive.busy)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                if fault is not None:
                    fault(self)
                elif path in archive.answers:
                    archive.answers[path](self, body)
                elif path in archive.files:
                    self.send_file(archive.files[path])
                else:
                    self.reply(404, b"no such file")
        finally:
            with archive.lock:
                archive.busy -= 1

    def send_file(self, stored: Stored, stop: int | None = None, ranges: bool = True, if_range: bool = True):
        """The file, or the range that is asked for; ``stop`` drops the connection after so many bytes of the body."""
        first, last, size, status = 0, len(stored.data) - 1, len(stored.data), 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        same = not if_range or self.headers.get("If-Range", stored.etag) in (stored.etag, stored.modified)
        headers = {"Content-Type": stored.kind, "Last-Modified": stored.modified, "ETag": stored.etag} | stored.headers
        if asked and ranges and same:
            first, last, status = int(asked[1]), min(int(asked[2] or last), last), 206
            if first >= size:
                return self.reply(416, b"", {"Content-Range": f"bytes */{size}"})
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        body = stored.data[first : last + 1]
        if stop is None:
            return self.reply(status, body, headers)
        self.head(status, headers | {"Content-Length": str(len(body))})
        self.wfile.write(body[:stop])
        self.wfile.flush()
        self.close_connection = True

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None):
        self.head(status, (headers or {}) | {"Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def head(self, status: int, headers: dict[str, str]):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that left is no news
            super().handle_error(request, client_address)


@dataclass
class Archive:
    """What the server has and how it misbehaves: ``faults`` answer the first requests of a path, one each."""

    url: str
    files: dict[str, Stored] = field(default_factory=dict)
    answers: dict[str, Callable[[Handler, bytes], None]] = field(default_factory=dict)
    faults: dict[str, list[Callable[[Handler], None]]] = field(default_factory=dict)
    seen: list[tuple[str, str, Message]] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    def put(self, path: str, data: bytes, **options) -> str:
        """Store a file; its URL."""
        self.files[path] = Stored(data, **options)
        return self.url + path

    def fail(self, path: str, *faults: Callable[[Handler], None]) -> None:
        self.faults.setdefault(path, []).extend(faults)

    def drops(self, path: str, *stops: int) -> None:
        """Break the connection after so many bytes, once each."""
        self.fail(path, *(lambda h, n=n: h.send_file(self.files[path], stop=n) for n in stops))

    def says(self, path: str, status: int, times: int = 1, **headers: str) -> None:
        """Answer with a status first."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.fail(path, *[lambda h: h.reply(status, b"refused", named)] * times)

    def leads(self, path: str, target: str, **headers: str) -> None:
        """Redirect for good."""
        named = {"Location": target} | {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[path] = lambda h, body: h.reply(302, b"", named)

    def trickles(self, path: str, every_s: float) -> None:
        """Send single bytes slowly, at every request."""

        def trickle(handler: Handler, body: bytes) -> None:
            stored = self.files[path]
            handler.head(200, {"Content-Length": str(len(stored.data)), "ETag": stored.etag})
            for byte in stored.data:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                time.sleep(every_s)

        self.answers[path] = trickle

    def headers(self, path: str, name: str) -> list[str | None]:
        """A header of each request of a path."""
        return [headers.get(name) for _, asked, headers in self.seen if asked.partition("?")[0] == path]


@pytest.fixture
def new_archive() -> Iterator[Callable[[], Archive]]:
    """Factory of servers, each a host of its own."""
    servers: list[Server] = []

    def start(name: str = "127.0.0.1") -> Archive:
        server = Server(("127.0.0.1", 0), Handler)
        server.archive = Archive(f"http://{name}:{server.server_port}")
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server.archive

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def archive(new_archive) -> Archive:
    return new_archive()


@pytest.fixture(autouse=True)
def no_credentials(request, monkeypatch, tmp_path):
    """Nobody's secrets and no proxy in these tests, but for those that ask the real archives."""
    if request.node.get_closest_marker("live"):
        return
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def write_config(tmp_path):
    """Factory: a configuration file from services as in ``configs/acquire.yaml``."""

    def write(**services: dict):
        path = tmp_path / "archives.yaml"
        named = {name.replace("_", "-"): value for name, value in services.items()}
        path.write_text(yaml.safe_dump({"services": named}))
        return path

    return write
