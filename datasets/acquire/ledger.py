"""What was fetched, beside the files: where from, how long, with which digest, as the archive dates it.

A second run asks it what is missing, and the builder's provenance cites it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from ...errors import BusyError, FormatError, StorageError
from ..files import locked, sha256_file, write_atomic
from ..products import ACQUIRED as NAME
from ..spec import SafePath, Strict
from .hosts import without_query
from .items import Fetched, Item
from .transfer import file_digests

MAX_BYTES = 64 << 20
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class File(Strict):
    """A file as it came, or as it came out of an archive."""

    path: SafePath
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Record(Strict):
    """One thing that was fetched.

    ``files`` lie below the output folder: the file itself, or what was in it when it was a zip that is gone.
    """

    archive: str
    product: str
    url: str
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256
    checksum: str | None = None
    last_modified: str | None = None
    files: tuple[File, ...]


class Book(Strict):
    """The file ``acquired.json``; no times of ours, so that the same products give the same bytes."""

    format: int = 1
    fetched: dict[SafePath, Record] = {}


class Ledger:
    """The book of one output folder. Threads may add to it.

    Raises:
        FormatError: ``acquired.json`` is not one.
    """

    def __init__(self, out: str | Path) -> None:
        self.out, self.path = Path(out), Path(out) / NAME
        self._lock = threading.Lock()
        self._book = _load(self.path) if self.path.exists() else Book()

    @property
    def records(self) -> dict[str, Record]:
        """What was fetched, by the path it was fetched to."""
        return dict(self._book.fetched)

    def missing(self, items: Sequence[Item]) -> list[Item]:
        """The items that are not here whole. A file with the catalogue's checksum is taken in, whoever fetched it."""
        return [item for item in items if not (self._has(item) or self._adopt(item))]

    def add(self, fetched: Fetched, files: Sequence[File] | None = None) -> None:
        """Write down what came; ``files`` where it was unpacked. Raises StorageError."""
        item = fetched.item
        if files is None:
            files = [File(path=item.path, bytes=fetched.bytes, sha256=fetched.sha256)]
        record = Record(
            archive=item.archive,
            product=item.product,
            url=without_query(item.url),
            bytes=fetched.bytes,
            sha256=fetched.sha256,
            checksum=item.checksum,
            last_modified=fetched.last_modified,
            files=tuple(files),
        )
        with self._lock:
            self._book = self._book.model_copy(update={"fetched": self._book.fetched | {item.path: record}})
            text = json.dumps(self._book.model_dump(mode="json"), indent=1, sort_keys=True) + "\n"
            write_atomic(self.path, text)

    def _has(self, item: Item) -> bool:
        record = self._book.fetched.get(item.path)
        if record is None or (item.checksum and record.checksum and item.checksum != record.checksum):
            return False
        return all(_size(self.out / file.path) == file.bytes for file in record.files)

    def _adopt(self, item: Item) -> bool:
        path = self.out / item.path
        if item.checksum is None or not path.is_file():
            return False
        name, _, expected = item.checksum.partition(":")
        digests = file_digests(path, sorted({name, "sha256"}))
        if digests[name] != expected:
            return False
        self.add(Fetched(item, path.stat().st_size, digests["sha256"], None))
        return True


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _load(path: Path) -> Book:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("too long")
        return Book.model_validate_json(path.read_bytes())
    except (ValidationError, ValueError, OSError) as error:
        first = str(error).splitlines()[0][:200]
        raise FormatError(f"not a record of what was fetched ({first})", where=path, hint="move it away") from None


@contextmanager
def hold(out: Path) -> Iterator[None]:
    """Keep other runs off an output folder. Raises BusyError, or StorageError where it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / ".acquire.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(f"cannot write ({error.strerror})", where=out) from None
    busy = BusyError("another tidemark acquire works here", where=out, hint="wait for it or stop it")
    with locked(descriptor, busy):
        yield


def provenance(folder: Path) -> str:
    """One sentence for a manifest on what a source's ledger says; empty where it has none. Raises FormatError."""
    path = folder / NAME
    if not path.is_file():
        return ""
    counts: dict[str, int] = {}
    for record in _load(path).fetched.values():
        counts[record.archive] = counts.get(record.archive, 0) + 1
    listed = ", ".join(f"{count} from {archive}" for archive, count in sorted(counts.items()))
    return f" Fetched by tidemark acquire: {listed} ({NAME}, sha256 {sha256_file(path)})."
