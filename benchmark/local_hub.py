"""A Hugging Face Hub on localhost for the real client: what the client calls, with faults, latency and rate to order.

Routes, headers and answers follow huggingface_hub 2.4 (hf_api.py, file_download.py, lfs.py, _commit_api.py) and
https://huggingface.co/docs/hub/api: refs, revision, tree, resolve with redirect for large files, LFS batch upload,
commit as NDJSON, tags.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

GOOD_TOKEN = "hf_good"
LARGE = (".h5", ".idx", ".safetensors", ".png", ".npy")


@dataclass
class Repo:
    """Files by commit, and the names that point at commits."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        listing = repr(sorted((k, hashlib.sha256(v).hexdigest()) for k, v in files.items())) + str(len(self.commits))
        name = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[name], self.branches["main"] = dict(files), name
        return name

    def find(self, revision: str) -> str | None:
        name = self.tags.get(revision) or self.branches.get(revision) or revision
        return name if name in self.commits else None


class Hub:
    """State of the server. ``fault(method, path)`` may return a status, or a dict for what is to go wrong.

    Faults: an int answers this status; ``{"status": 429, "headers": {...}}``; ``{"drop_after": n}`` closes the
    connection after n bytes of a body; ``{"body": bytes}`` answers other bytes of the same length.
    """

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.fault: Callable[[str, str], int | dict | None] = lambda method, path: None
        self.latency_s = 0.0
        self.bytes_per_s = float("inf")
        self.sent = 0
        self.received = 0
        self.requests: list[tuple[str, str, str | None]] = []
        self._line = threading.Lock()
        hub = self

        class Handler(_Handler):
            state = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.cdn_url = f"http://localhost:{self.server.server_port}"  # another host, as the Hub's content network is
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def repo(self, name: str, kind: str = "dataset") -> Repo:
        return self.repos[kind, name]

    def publish(self, name: str, files: dict[str, bytes], tag: str | None = None, kind: str = "dataset") -> str:
        """Put files there without the client."""
        repo = self.repos.setdefault((kind, name), Repo())
        commit = repo.commit(files)
        if tag:
            repo.tags[tag] = commit
        self.blobs |= {hashlib.sha256(data).hexdigest(): data for data in files.values()}
        return commit

    def publish_folder(self, name: str, folder: Path, tag: str) -> str:
        """Put a data set's folder there as one commit."""
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return self.publish(name, files, tag)

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()

    def throttle(self, count: int) -> None:
        """Occupy the one line to all clients for as long as so many bytes take."""
        if self.bytes_per_s != float("inf"):
            with self._line:
                time.sleep(count / self.bytes_per_s)
        self.sent += count


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        hub = self.state
        time.sleep(hub.latency_s)
        path = unquote(urlsplit(self.path).path)
        hub.requests.append((method, path, self.headers.get("Range")))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunked()
        hub.received += len(body)
        fault = hub.fault(method, path)
        fault = {"status": fault} if isinstance(fault, int) else fault or {}
        if "status" in fault:
            return self._send(fault["status"], b"", fault.get("headers", {}))
        if (token := self.headers.get("Authorization")) and token != f"Bearer {GOOD_TOKEN}":
            return self._send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
        if method in ("POST", "PUT") and not token and not path.startswith("/upload/") and "/paths-info/" not in path:
            return self._send(401, b"", {"X-Error-Message": "Invalid username or password."})
        for pattern, route in _ROUTES:
            if found := re.fullmatch(pattern, path):
                return getattr(self, route)(method, body, fault, **found.groupdict())
        return self._send(404, b"", {})

    def _chunked(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, body: bytes, headers: dict, drop_after: int | None = None) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        whole = body if drop_after is None else body[:drop_after]
        for start in range(0, len(whole), 1 << 16):
            piece = whole[start : start + (1 << 16)]
            self.state.throttle(len(piece))
            try:
                self.wfile.write(piece)
            except OSError:
                return
        if drop_after is not None and drop_after < len(body):
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _repo(self, kind: str, name: str) -> Repo | None:
        repo = self.state.repos.get((kind, name))
        if repo is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        return repo

    def create(self, method: str, body: bytes, fault: dict) -> None:
        asked = json.loads(body)
        name, kind = f"{asked['organization']}/{asked['name']}", asked.get("type", "model")
        known = (kind, name) in self.state.repos
        if not known:
            self.state.publish(name, {".gitattributes": b"*.h5 filter=lfs\n"}, kind=kind)
        address = f"{self.state.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        self._json({"url": address}, 409 if known else 200)

    def yaml(self, method: str, body: bytes, fault: dict) -> None:
        self._json({"errors": [], "warnings": []})

    def info(self, method: str, body: bytes, fault: dict, kind: str, name: str, revision: str = "main") -> None:
        if (repo := self._repo(kind, name)) is None:
            return
        commit = repo.find(revision)
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": path} for path in sorted(repo.commits[commit])]
        self._json({"id": name, "sha": commit, "siblings": siblings, "private": False, "tags": []})

    def refs(self, method: str, body: bytes, fault: dict, kind: str, name: str) -> None:
        if (repo := self._repo(kind, name)) is None:
            return
        found = {
            what: [{"name": key, "ref": f"refs/{part}/{key}", "targetCommit": commit} for key, commit in refs.items()]
            for what, part, refs in (("branches", "heads", repo.branches), ("tags", "tags", repo.tags))
        }
        self._json({**found, "converts": []})

    def paths_info(self, method: str, body: bytes, fault: dict, kind: str, name: str, revision: str) -> None:
        wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
        self._json([entry for entry in self._entries(self._repo(kind, name), revision) if entry["path"] in wanted])

    def tree(self, method: str, body: bytes, fault: dict, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name)
        if repo.find(revision) is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        self._json(self._entries(repo, revision))

    def _entries(self, repo: Repo, revision: str) -> list[dict]:
        entries = []
        for path, data in sorted(repo.commits[repo.find(revision)].items()):
            entry = {"type": "file", "path": path, "size": len(data), "oid": _git_oid(data)}
            if path.endswith(LARGE):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        return entries

    def resolve(self, method: str, body: bytes, fault: dict, name: str, revision: str, file: str, kind: str = "model"):
        kind = "dataset" if kind == "datasets/" else "model"
        if (repo := self._repo(kind, name)) is None:
            return
        commit = repo.find(revision)
        if commit is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        data = repo.commits[commit].get(file)
        if data is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        digest = hashlib.sha256(data).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_git_oid(data)}"', "Accept-Ranges": "bytes"}
        if file.endswith(LARGE):
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            return self._send(302, b"", headers | linked | {"Location": f"{self.state.cdn_url}/cdn/{digest}"})
        self._body(data, headers, fault)

    def cdn(self, method: str, body: bytes, fault: dict, digest: str) -> None:
        if self.headers.get("Authorization"):
            return self._send(400, b"", {})  # signed addresses take no token, and a token must not leave the Hub
        self._body(self.state.blobs[digest], {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}, fault)

    def _body(self, data: bytes, headers: dict, fault: dict) -> None:
        data = fault.get("body", data)
        status = 200
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            start, stop = int(found[1]), int(found[2]) + 1 if found[2] else len(data)
            headers = headers | {"Content-Range": f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"}
            data, status = data[start:stop], 206
        self._send(status, data, headers, fault.get("drop_after"))

    def preupload(self, method: str, body: bytes, fault: dict, kind: str, name: str, revision: str) -> None:
        files = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular", "shouldIgnore": False}
            for f in json.loads(body)["files"]
        ]
        self._json({"files": files})

    def batch(self, method: str, body: bytes, fault: dict, name: str) -> None:
        objects = []
        for asked in json.loads(body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.state.blobs:
                entry["actions"] = {"upload": {"href": f"{self.state.url}/upload/{asked['oid']}", "header": {}}}
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, method: str, body: bytes, fault: dict, digest: str) -> None:
        if hashlib.sha256(body).hexdigest() != digest:
            return self._send(400, b"", {})
        self.state.blobs[digest] = body
        self._send(200, b"", {})

    def commit(self, method: str, body: bytes, fault: dict, kind: str, name: str, revision: str) -> None:
        repo = self._repo(kind, name)
        files = dict(repo.commits[repo.find(revision)])
        for line in body.splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.state.blobs[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        made = repo.commit(files)
        self._json({"success": True, "commitOid": made, "commitUrl": f"{self.state.url}/{kind}s/{name}/commit/{made}"})

    def tag(self, method: str, body: bytes, fault: dict, kind: str, name: str, revision: str) -> None:
        repo, tag = self._repo(kind, name), json.loads(body)["tag"]
        if tag in repo.tags:
            return self._send(409, b"", {})
        repo.tags[tag] = repo.find(revision)
        self._json({})


_NAME = r"(?P<name>[\w.-]+/[\w.-]+)"
_API = rf"/api/(?P<kind>dataset|model)s/{_NAME}"
_ROUTES = (
    ("/api/repos/create", "create"),
    ("/api/validate-yaml", "yaml"),
    (_API, "info"),
    (rf"{_API}/revision/(?P<revision>[^/]+)", "info"),
    (rf"{_API}/refs", "refs"),
    (rf"{_API}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    (rf"{_API}/tree/(?P<revision>[^/]+)", "tree"),
    (rf"{_API}/preupload/(?P<revision>[^/]+)", "preupload"),
    (rf"{_API}/commit/(?P<revision>[^/]+)", "commit"),
    (rf"{_API}/tag/(?P<revision>[^/]+)", "tag"),
    (rf"/(?P<kind>datasets/)?{_NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", "resolve"),
    (rf"/(?:datasets/)?{_NAME}\.git/info/lfs/objects/batch", "batch"),
    (r"/cdn/(?P<digest>\w+)", "cdn"),
    (r"/upload/(?P<digest>\w+)", "upload"),
)


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def main() -> None:
    """``python -m tidemark.benchmark.local_hub``: serve an empty hub until interrupted, to try push and pull on."""
    hub = Hub()
    print(f"export HF_ENDPOINT={hub.url} HF_TOKEN={GOOD_TOKEN} HF_HUB_DISABLE_XET=1", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        hub.close()


if __name__ == "__main__":
    main()
