"""Windows of remote GeoTIFFs by range requests, through our own session: GDAL itself opens no connection.

GDAL's ``/vsicurl`` follows redirects to any host and takes credentials from anywhere; here it sees a Python file whose
reads pass the allow-list (``session.py``).
"""

from __future__ import annotations

import io
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import rasterio
import requests
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from urllib3 import exceptions as urllib3_errors

from ...errors import ArchiveError, SceneError, TidemarkError
from ..raster import FORMATS, GDAL_OPTIONS, check_sizes
from .answers import connection_error, request
from .hosts import without_query

BLOCK = 1 << 17
CACHED = 256  # blocks, 32 MiB
MAX_WHOLE = 64 << 20  # a server that knows no ranges may send a file of this size


class _Positioned(io.RawIOBase):
    """A readable file of ``size`` bytes with a position that may go anywhere."""

    size: int

    def __init__(self) -> None:
        super().__init__()
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position


class RangeFile(_Positioned):
    """A remote file, readable anywhere; blocks that were read are kept.

    A failure is kept in ``fault`` too: GDAL turns an exception in a callback into an error of its own.

    Args:
        url: of the file.
        session: of ``open_session``.

    Raises:
        ArchiveError: it cannot be read, or changed between two reads.
    """

    def __init__(self, url: str, session: requests.Session) -> None:
        super().__init__()
        self.url, self.session = url, session
        self.name, self.fault = without_query(url), None
        self.requests = self.transferred = 0
        self._size, self._validator = None, None
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._load(0, 0)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._size

    def read(self, count: int = -1) -> bytes:
        end = self._size if count is None or count < 0 else min(self._position + count, self._size)
        if end <= self._position:
            return b""
        first, last = self._position // BLOCK, (end - 1) // BLOCK
        try:
            missing = [n for n in range(first, last + 1) if n not in self._blocks]
            if missing:
                self._load(missing[0], missing[-1])
            parts = [self._blocks[n] for n in range(first, last + 1)]
        except TidemarkError as error:
            self.fault = error
            raise OSError(str(error)) from error
        for number in range(first, last + 1):
            self._blocks.move_to_end(number)
        while len(self._blocks) > CACHED:
            self._blocks.popitem(last=False)
        start = self._position - first * BLOCK
        self._position, length = end, end - self._position
        return b"".join(parts)[start : start + length]

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _load(self, first: int, last: int) -> None:
        """Blocks ``first`` to ``last`` by one request."""
        start, stop = first * BLOCK, (last + 1) * BLOCK
        headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        self.requests += 1
        with request(self.session, "GET", self.url, headers=headers) as answer:
            size, whole = self._length(answer), answer.status_code == 200
            validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            if self._size is not None and (size, validator) != (self._size, self._validator):
                raise ArchiveError("changed while it was being read", where=self.name, hint="run it again")
            self._size, self._validator = size, validator
            if whole:
                start, stop = 0, size
            stop = min(stop, size)
            try:
                data = answer.raw.read(stop - start)
            except (requests.RequestException, urllib3_errors.HTTPError, OSError) as error:
                raise connection_error(error, self.url) from None
        if len(data) != stop - start:
            raise ArchiveError(f"asked for {stop - start} bytes from {start}, got {len(data)}", where=self.name)
        self.transferred += len(data)
        for offset in range(0, len(data), BLOCK):
            self._blocks[(start + offset) // BLOCK] = data[offset : offset + BLOCK]

    def _length(self, answer: requests.Response) -> int:
        text = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if answer.status_code == 206 and text.isdecimal():
            return int(text)
        text = answer.headers.get("Content-Length", "")
        if answer.status_code == 200 and text.isdecimal() and int(text) <= MAX_WHOLE:
            return int(text)
        raise ArchiveError("cannot be read in parts: the server knows no ranges", where=self.name)


@contextmanager
def open_remote(url: str, session: requests.Session) -> Iterator[DatasetReader]:
    """A remote GeoTIFF, for windowed reads.

    Raises:
        ArchiveError: the archive; also from reads inside the ``with`` block.
        SceneError: it is no GeoTIFF, is damaged, or has absurd sizes.
    """
    file = RangeFile(url, session)
    if not file.read(16).startswith(FORMATS["GTiff"]):
        raise SceneError("not a GeoTIFF", where=file.name)
    # the name is ours and new: GDAL never sees the URL, and two threads never share an opener
    name = f"{uuid.uuid4().hex}.tif"
    try:
        with (
            rasterio.Env(**GDAL_OPTIONS),
            rasterio.open(name, driver="GTiff", opener=lambda path, mode="rb": _Handle(file)) as dataset,
        ):
            check_sizes(dataset, file.name)
            yield dataset
    except (RasterioError, SceneError) as error:
        if file.fault is not None:
            raise file.fault from None
        if isinstance(error, SceneError):
            raise SceneError(error.what, where=file.name, hint=error.hint) from None
        raise SceneError(f"unreadable as GTiff ({error})"[:300], where=file.name) from None
    if file.fault is not None:
        raise file.fault


class _Handle(_Positioned):
    """One of GDAL's handles on a remote file: a position of its own, closed without closing the file."""

    def __init__(self, file: RangeFile) -> None:
        super().__init__()
        self._file, self.size = file, file.size

    def read(self, count: int = -1) -> bytes:
        self._file.seek(self._position)
        try:
            data = self._file.read(count)
        except OSError:  # kept as ``fault``; an exception must not pass through GDAL's callback, a short read may
            return b""
        self._position += len(data)
        return data
