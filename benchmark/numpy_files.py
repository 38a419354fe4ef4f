"""NumPy files of strangers: arrays of numbers, mapped from the disk, their sizes looked at before anything is read."""

from __future__ import annotations

import math
import shutil
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError

MAX_ARRAYS = 1_000_000
MAX_MEMBER_BYTES = 64 << 30
# NumPy parses a header as Python, so a damaged one fails in as many ways.
UNREADABLE = (OSError, ValueError, TypeError, EOFError, SyntaxError, MemoryError, RecursionError, SystemError)
UNREADABLE += (tokenize.TokenError,)
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def holds(path: Path, array: str) -> bool:
    """Whether a ``.npz`` has an array of this name; False for what is no archive (it is refused when it is read)."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{array}.npy" in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def map_npy(path: Path, name: str = "") -> NDArray:
    """A mapped ``.npy`` of numbers. Raises FormatError for pickles, other types and sizes that are not the file's."""
    where = name or path
    try:
        with open(path, "rb") as file:
            header = HEADERS.get(np.lib.format.read_magic(file))
            if header is None:
                raise ValueError("an unknown version of the format")
            shape, fortran, dtype = header(file)
            start, stop = file.tell(), path.stat().st_size
        size = math.prod(shape) * dtype.itemsize  # of any length: NumPy's own product could overflow
        if dtype.kind not in "biufSU":
            raise FormatError(f"expected numbers, found {dtype}", where=where)
        if size != stop - start:
            raise ValueError(f"{size} bytes declared, {stop - start} there")
        return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
    except UNREADABLE as error:
        raise FormatError(f"no NumPy array of numbers ({str(error)[:200]})", where=where) from None


def unpack_npz(path: Path, scratch: Path) -> dict[str, Path]:
    """The arrays of a ``.npz`` by name, each a ``.npy`` file in ``scratch``: memory does not grow with them.

    Raises:
        FormatError: no archive, a damaged one, more bytes than the limit or the disk, or a name that is there twice.
    """
    arrays = {}
    folder = scratch / f"{path.stem}-{len(list(scratch.iterdir()))}"
    folder.mkdir()
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > MAX_MEMBER_BYTES or len(members) > MAX_ARRAYS:
                raise FormatError(f"{len(members)} arrays of {total} bytes, over {MAX_MEMBER_BYTES}", where=path)
            if total > (free := shutil.disk_usage(scratch).free):
                raise FormatError(f"{total} bytes unpacked, {free} are free on the disk", where=path)
            for number, member in enumerate(members):
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as packed, open(folder / f"{number}.npy", "wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)
                if name in arrays:
                    raise FormatError(f"the array {name!r} is there twice", where=path)
                arrays[name] = folder / f"{number}.npy"
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise FormatError(f"no .npz file ({str(error)[:200]})", where=path) from None
    return arrays
