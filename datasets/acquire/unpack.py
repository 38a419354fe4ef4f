"""Zip archives of products, unpacked only after every member's name, kind and size was found harmless."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
import zlib
from pathlib import Path

from ...errors import InputError, TidemarkError
from ..files import fsync_folder, storage_error
from ..sources import list_archive
from .ledger import File
from .transport import check_room

MAX_EXPANSION = 200  # times the archive's own size; products are images, which shrink by far less
SLACK = 16 << 20
BLOCK = 1 << 20


def unpack(path: Path, folder: Path, out: Path) -> list[File]:
    """Unpack a zip into ``folder``; each file takes its place only after all of them came out right.

    Args:
        path: the archive.
        folder: where its members go, below ``out``.
        out: what the returned paths are relative to.

    Raises:
        InputError: a member leaves the folder (``..``, an absolute or foreign path), is a link, is encrypted, is not as
            long as stated or the archive would swell beyond ``MAX_EXPANSION``; nothing of it stays.
        StorageError: the disk.
    """
    archive, sizes = list_archive(path)
    with archive:
        total = sum(sizes.values())
        if total > MAX_EXPANSION * path.stat().st_size + SLACK:
            raise InputError(f"states {total} bytes from {path.stat().st_size}", where=path, hint="refused")
        check_room(out, total, None)
        temporary = folder / f".unpacking-{path.stem}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            digests = {name: _extract(archive, name, size, temporary / name) for name, size in sizes.items()}
            for name in sizes:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(temporary / name, folder / name)
            for parent in {(folder / name).parent for name in sizes}:
                fsync_folder(parent)
        except TidemarkError:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise InputError(f"damaged ({error})", where=path, hint="remove it and run again") from None
        except OSError as error:
            raise storage_error(error, folder) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    place = folder.relative_to(out)
    return [File(path=(place / n).as_posix(), bytes=s, sha256=digests[n]) for n, s in sorted(sizes.items())]


def _extract(archive: zipfile.ZipFile, name: str, size: int, target: Path) -> str:
    """One member onto the disk; its sha256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, came = hashlib.sha256(), 0
    with archive.open(name) as source, open(target, "xb") as file:
        while block := source.read(BLOCK):
            came += len(block)
            if came > size:
                raise InputError(f"member {name!r} is longer than the {size} bytes it states", where=archive.filename)
            digest.update(block)
            file.write(block)
        if came != size:
            raise InputError(f"member {name!r} has {came} of the {size} bytes it states", where=archive.filename)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
