"""One file on its way: resumed where it stopped, compared, and in its place whole or not at all.

What has come lies in ``NAME.part``, with what it is a part of in ``NAME.part.json``. A transfer goes on there only
while the archive still offers the same file (``If-Range`` with its ETag or date); else it starts anew.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import requests
from urllib3 import exceptions as urllib3_errors

from ...errors import ArchiveError, ChecksumError
from ..files import storage_error, take_place, write_atomic
from .answers import request
from .hosts import without_query
from .items import Fetched, Item
from .session import Patience

BLOCK = 1 << 18


class Broken(Exception):
    """A transfer ended early; another attempt may go on."""


class Transfer:
    """The part of a file on disk, and what it is a part of.

    Args:
        item: the file.
        target: its place.
        session: of ``open_session``.
        patience: when to call a transfer broken.
        count: called with the item's path, the bytes so far, and all its bytes where they are known.
    """

    def __init__(
        self,
        item: Item,
        target: Path,
        session: requests.Session,
        patience: Patience,
        count: Callable[[str, int, int | None], None],
    ) -> None:
        self.item, self.target, self.session, self.patience, self.count = item, target, session, patience, count
        self.part = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        self.where = without_query(item.url)
        self.state = self._read_note()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, target) from error

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def _read_note(self) -> dict[str, str | int | None]:
        with suppress(OSError, ValueError, AttributeError):
            state = json.loads(self.note.read_bytes())
            if state.get("url") == self.where and self.part.is_file():
                return state
        return {}

    def run(self) -> None:
        """One request for what is missing, and its body onto the disk."""
        start = self.size if self.state.get("validator") else 0
        total = self.state.get("total")
        if start and start == total:
            return
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": str(self.state["validator"])}
        with request(self.session, "GET", self.item.url, also=(416,), headers=headers) as answer:
            if answer.status_code == 416:
                self._forget()
                raise Broken("the archive's file is shorter than what has come of it")
            validator = _validator(answer)
            goes_on = answer.status_code == 206 and start > 0 and validator == self.state.get("validator")
            if answer.status_code == 206 and not (goes_on and _range_start(answer) == start):
                self._forget()
                raise Broken("the file changed at the archive while it was being fetched")
            total = stated_length(answer)
            self._check_answer(answer, total)
            if not goes_on:
                start = 0
                self.part.unlink(missing_ok=True)  # never old bytes beside a new note
            self.state = {
                "url": self.where,
                "validator": validator,
                "total": total,
                "last_modified": answer.headers.get("Last-Modified"),
            }
            self._take_checksum(answer)
            write_atomic(self.note, json.dumps(self.state))
            self._receive(answer, start, total)

    def _receive(self, answer: requests.Response, start: int, total: int | None) -> None:
        began, mark = time.monotonic(), start
        with open(self.part, "r+b" if start else "wb") as file:
            file.seek(start)
            size = start
            while True:
                try:
                    block = answer.raw.read1(BLOCK)
                except urllib3_errors.ProtocolError:
                    raise Broken(f"the connection broke after {size} of {total or '?'} bytes") from None
                if not block:
                    break
                file.write(block)
                size += len(block)
                self.count(self.item.path, size, total if total is not None else self.item.bytes)
                if total is not None and size > total:
                    break
                now = time.monotonic()
                if now - began >= self.patience.slow_s:
                    rate = (size - mark) / (now - began)
                    if rate < self.patience.least_rate:
                        raise Broken(f"{rate:.0f} bytes a second, too slow to wait for")
                    began, mark = now, size
        if total is not None and size != total:
            raise Broken(f"the connection broke after {size} of {total} bytes")

    def _check_answer(self, answer: requests.Response, total: int | None) -> None:
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "text/html" and not self.item.path.endswith((".html", ".htm")):
            raise ArchiveError(
                "a web page came instead of the file, most likely a login form", where=without_query(answer.url),
                hint="check the credentials, and accept the archive's terms in a browser once",
            )  # fmt: skip
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise ArchiveError("sent compressed, although asked not to", where=self.where)
        if self.item.bytes is not None and total is not None and total != self.item.bytes:
            raise ChecksumError(
                f"wrong length: expected {self.item.bytes} bytes by the catalogue, the archive offers {total}",
                where=self.where, hint="not fetched; search again",
            )  # fmt: skip

    def _take_checksum(self, answer: requests.Response) -> None:
        """Google's storage states a file's MD5 (cloud.google.com/storage/docs/xml-api/reference-headers)."""
        if found := re.search(r"md5=([\w+/]{22}==)", answer.headers.get("x-goog-hash", "")):
            self.state["checksum"] = f"md5:{base64.b64decode(found[1]).hex()}"

    def _forget(self) -> None:
        self.state = {}
        for path in (self.part, self.note):
            path.unlink(missing_ok=True)

    def finish(self) -> Fetched:
        """Compare length and digests; then the part becomes the file."""
        size, checksum = self.size, self.item.checksum or self.state.get("checksum")
        wanted = self.item.bytes if self.item.bytes is not None else size
        names = {"sha256", str(checksum).partition(":")[0]} if checksum else {"sha256"}
        digests = file_digests(self.part, sorted(names))
        found = None
        if size != wanted:
            found = f"expected {wanted} bytes, found {size}"
        elif checksum:
            name, _, expected = str(checksum).partition(":")
            if digests[name] != expected:
                found = f"expected {name} {expected}, found {digests[name]}"
        if found:
            aside = self.target.with_name(self.target.name + ".quarantined")
            os.replace(self.part, aside)
            self.note.unlink(missing_ok=True)
            raise ChecksumError(found, where=self.where, hint=f"set aside as {aside} and not used; run it again")
        try:
            take_place(self.part, self.target)
            self.note.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, self.target) from error
        modified = self.state.get("last_modified")
        return Fetched(self.item, size, digests["sha256"], None if modified is None else str(modified))


def file_digests(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Digests of a file by name of the algorithm, read once."""
    sums = {name: hashlib.new(name, usedforsecurity=False) for name in names}
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            for one in sums.values():
                one.update(block)
    return {name: one.hexdigest() for name, one in sums.items()}


def _validator(answer: requests.Response) -> str | None:
    """What ``If-Range`` takes: a strong ETag, else the date of the last change (RFC 9110, 13.1.5)."""
    etag = answer.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")


def _range_start(answer: requests.Response) -> int | None:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def stated_length(answer: requests.Response) -> int | None:
    """Length of the whole file."""
    if answer.status_code == 206:
        found = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and "Content-Encoding" not in answer.headers else None
