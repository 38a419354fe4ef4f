"""Files that are to be fetched, and files that came."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...errors import InputError

_MULTIHASH = {"1220": ("sha256", 64), "1340": ("sha512", 128), "d50110": ("md5", 32)}  # code and length, then digest
_CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@dataclass(frozen=True)
class Item:
    """A file to fetch.

    Args:
        url: where it is.
        path: where it goes, relative to the output folder, with ``/``.
        bytes: its length, where the archive's catalogue states it.
        checksum: ``md5:…``, ``sha256:…`` or ``sha512:…`` in hex, where the catalogue states it.
        product: the archive's identifier of the product.
        archive: the service's name in the configuration.
    """

    url: str
    path: str
    bytes: int | None = None
    checksum: str | None = None
    product: str = ""
    archive: str = ""

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or self.path.startswith("/") or ".." in parts or re.search(r"[\\\0-\x1f:]", self.path):
            raise InputError("not a name for a file below the output folder", where=self.path[:200])
        if self.checksum is not None and not _CHECKSUM.fullmatch(self.checksum):
            raise InputError(f"not a checksum: {self.checksum[:80]!r}", where=self.path)
        if self.bytes is not None and self.bytes < 0:
            raise InputError(f"{self.bytes} bytes", where=self.path)


@dataclass(frozen=True)
class Fetched:
    """What came: length, digest, and the archive's own date of it (``Last-Modified``), where it has one."""

    item: Item
    bytes: int
    sha256: str
    last_modified: str | None


def from_multihash(text: str | None) -> str | None:
    """STAC's ``file:checksum`` (a multihash in hex) as ``sha256:…``; None for kinds that are not known here."""
    for prefix, (name, length) in _MULTIHASH.items():
        digest = (text or "").lower().removeprefix(prefix)
        if (text or "").lower() == prefix + digest and re.fullmatch(f"[0-9a-f]{{{length}}}", digest):
            return f"{name}:{digest}"
    return None
