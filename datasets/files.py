"""Files that appear whole or not at all, and their digests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StorageError, TidemarkError


def free_space(path: Path) -> str:
    """How much room the disk of ``path`` has, in words."""
    folder = existing_folder(path)
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB free on the disk of {folder}"
    except OSError:
        return f"the disk of {folder} does not answer"


@contextmanager
def locked(descriptor: int, busy: TidemarkError) -> Iterator[None]:
    """Hold an open file or folder alone, and close it; the lock goes with the process, however it ends.

    Raises:
        TidemarkError: ``busy``, at once, where another process holds it.
    """
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield
    finally:
        os.close(descriptor)


def existing_folder(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    return next((p for p in (path, *path.absolute().parents) if p.is_dir()), Path("/"))


def check_room(path: Path, needed: int, reserve: int = 0, hint: str = "make room") -> None:
    """Raises StorageError where the disk of ``path`` has not ``needed`` bytes beside the ``reserve``."""
    free = max(0, shutil.disk_usage(existing_folder(path)).free - reserve)
    if needed > free:
        raise StorageError(f"{needed / 1e6:.1f} MB are needed, {free / 1e6:.1f} MB are free", where=path, hint=hint)


def storage_error(error: OSError, path: Path) -> StorageError:
    """An OSError of a write in words: what failed, where, and how much room the disk has."""
    return StorageError(
        f"cannot write ({error.strerror or error}; {free_space(path)})", where=path, hint="nothing was replaced"
    )


def fsync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_place(temporary: Path, path: Path) -> None:
    """Flush a finished file to disk and rename it, durably. Raises OSError."""
    descriptor = os.open(temporary, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    fsync_folder(path.parent)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and takes its place, else it goes.

    Raises StorageError, naming the disk, when anything about the writing fails.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        take_place(temporary, path)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        with suppress(OSError):  # where the folder itself cannot be, there is no file either
            temporary.unlink()


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write bytes (or text as UTF-8) atomically and durably."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def sha256_file(path: str | Path) -> str:
    """sha256 of a file's bytes, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(digests: dict[str, str]) -> str:
    """One digest for many files: sha256 of their sorted ``sha256sum`` listing (``digest  path`` lines)."""
    listing = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return hashlib.sha256(listing.encode()).hexdigest()
