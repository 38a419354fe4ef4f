"""A data set's source as published: the zip archive or the folder it unpacks to, seen through one small reader.

Archives come from strangers, so nothing is ever unpacked: members are read by name, and a member whose name could
leave the folder, that is a link, is encrypted or states an absurd size is refused before any byte is decoded.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..errors import InputError
from .files import tree_sha256
from .spec import SourceFile

MAX_FILES = 2_000_000
MAX_FILE_BYTES = 4 << 30
MAX_TOTAL_BYTES = 1 << 40
MAX_RATIO = 1100  # deflate cannot shrink by more than 1032 : 1; more than this is a forged header


class Source:
    """The files of one source by relative name, whether they lie in a folder or in a zip archive.

    Folders that all files share are stripped (``polar-patch/images/0.png`` becomes ``images/0.png``), hidden files
    and ``__MACOSX`` are left out: the archive and the folder it unpacks to give the same names. Opens lazily, once
    per process, and is picklable.

    Args:
        path: a zip archive or a folder.

    Raises:
        InputError: no such file, not a zip archive, or an unsafe member (link, ``..``, absolute path, absurd size).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._files: dict[str, tuple[str, int]] | None = None  # relative name -> (name in archive or folder, bytes)
        self._archive: zipfile.ZipFile | None = None
        self._pid = 0

    def __getstate__(self) -> dict[str, str]:
        return {"path": str(self.path)}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["path"])

    def __contains__(self, name: str) -> bool:
        return name in self._listing()

    def names(self) -> list[str]:
        """All relative names with ``/``, sorted."""
        return list(self._listing())

    def size(self, name: str) -> int:
        """Bytes of one file. Raises InputError when there is no such file."""
        return self._entry(name)[1]

    def read(self, name: str) -> bytes:
        """All bytes of one file. Raises InputError when it is missing or damaged."""
        member, size = self._entry(name)
        try:
            data = self._archive.read(member) if self._archive else (self.path / member).read_bytes()
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
            raise InputError(f"cannot read {name} ({error})", where=self.path, hint="get the source again") from None
        if len(data) != size:
            raise InputError(f"{name} has {len(data)} bytes, {size} were listed", where=self.path)
        return data

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """sha256 of each named file."""
        return {name: hashlib.sha256(self.read(name)).hexdigest() for name in names}

    def verify(self, names: Iterable[str], expected_sha256: str, unverified: bool = False) -> dict[str, str]:
        """Digests of the named files, whose tree digest must be the expected one (unless ``unverified``).

        Raises InputError with the expected and the found digest.
        """
        digests = self.digests(names)
        found = tree_sha256(digests)
        if found != expected_sha256 and not unverified:
            raise InputError(
                f"not the published source: expected tree sha256 {expected_sha256}, found {found}",
                where=self.path,
                hint="get the source again, or build with unverified_source=true",
            )
        return digests

    def record(self, path: str, digests: dict[str, str]) -> SourceFile:
        """The manifest's entry for a group of files under a common ``path``: their total size and tree digest."""
        return SourceFile(
            path=path, bytes=sum(self.size(n) for n in digests), sha256=tree_sha256(digests), files=len(digests)
        )

    def _entry(self, name: str) -> tuple[str, int]:
        try:
            return self._listing()[name]
        except KeyError:
            raise InputError(f"{name} is missing", where=self.path, hint="give the zip or the folder") from None

    def _listing(self) -> dict[str, tuple[str, int]]:
        if self._files is None or self._pid != os.getpid():  # a forked child must not share the parent's file offset
            self._pid, self._archive = os.getpid(), None
            if self.path.is_dir():
                listed = _list_folder(self.path)
            elif self.path.is_file():
                self._archive, listed = list_archive(self.path)
            else:
                raise InputError("no such file or folder", where=self.path)
            self._files = _relative(listed)
        return self._files


def open_source(path: str | Path) -> Source:
    """Open a zip archive or a folder, check all its names and sizes, and return its reader (see ``Source``)."""
    source = Source(path)
    source.names()
    return source


def _list_folder(folder: Path, prefix: str = "") -> dict[str, int]:
    sizes: dict[str, int] = {}
    with os.scandir(folder / prefix) as entries:
        for entry in entries:
            name = prefix + entry.name
            if _ignored(entry.name):
                continue
            if entry.is_symlink():
                raise InputError(f"{name} is a link", where=folder, hint="copy the files themselves (cp -rL)")
            if entry.is_dir():
                sizes |= _list_folder(folder, f"{name}/")
            elif entry.is_file():
                sizes[name] = entry.stat().st_size
    return sizes


def list_archive(path: Path) -> tuple[zipfile.ZipFile, dict[str, int]]:
    """A zip archive, open, and the bytes of its members by name. Raises InputError for one that is not harmless."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"not a readable zip archive ({error})", where=path) from None
    sizes: dict[str, int] = {}
    try:
        for number, info in enumerate(archive.infolist()):
            fault = _member_fault(info)
            if info.filename in sizes:
                fault = "appears twice"
            if number >= MAX_FILES or info.file_size > MAX_FILE_BYTES:
                fault = fault or f"exceeds the limits ({MAX_FILES} files, {MAX_FILE_BYTES} bytes each)"
            if fault:
                raise InputError(f"archive member {info.orig_filename!r} {fault}", where=path, hint="refused")
            if not info.is_dir() and not any(_ignored(part) for part in info.filename.split("/")):
                sizes[info.filename] = info.file_size
        if sum(sizes.values()) > MAX_TOTAL_BYTES:
            raise InputError(f"archive of {sum(sizes.values())} bytes, over the limit of {MAX_TOTAL_BYTES}", where=path)
    except InputError:
        archive.close()
        raise
    return archive, sizes


def _member_fault(info: zipfile.ZipInfo) -> str | None:
    """Why a member of an archive is refused, or None."""
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    if not name or "\\" in name or "\0" in name or name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "has an absolute or foreign path"
    if ".." in PurePosixPath(name).parts:
        return "leaves the folder ('..')"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.file_size > MAX_RATIO * info.compress_size + 1024:
        return f"states {info.file_size} bytes from {info.compress_size}"
    return None


def _ignored(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _relative(sizes: dict[str, int]) -> dict[str, tuple[str, int]]:
    """Names without the folders that all files share -> (original name, bytes), sorted by name."""
    parents = [PurePosixPath(name).parts[:-1] for name in sizes]
    common = os.path.commonprefix(parents) if parents else ()
    cut = len("/".join(common)) + 1 if common else 0
    return {name[cut:]: (name, sizes[name]) for name in sorted(sizes, key=lambda n: n[cut:])}
