"""The journal of a build (``.build/`` in the data set's folder): its lock, its temporary files, its finished shards."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BusyError
from .files import sha256_file, storage_error
from .spec import Manifest

JOURNAL = ".build"


def check_writable(folder: Path) -> None:
    """Raise StorageError before any work where the output cannot be written."""
    try:
        (folder / JOURNAL).mkdir(parents=True, exist_ok=True)
        probe = folder / JOURNAL / f"probe.tmp-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise storage_error(error, folder) from None


@contextmanager
def lock(folder: Path, part: tuple[int, int] | None) -> Iterator[None]:
    """Hold the output: alone for a whole build, shared with the other parts for one part of a job array."""
    path = folder / JOURNAL / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:
        raise BusyError("another builder has just ended here", where=folder, hint="run it again") from None
    try:
        patience = time.monotonic() + 10
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if part else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                # a killed builder's children end within moments; only a living holder is another builder
                if _alive(holder) or time.monotonic() > patience:
                    raise BusyError(
                        f"another builder works here (process {holder})", where=folder, hint="wait for it or stop it"
                    ) from None
                time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _alive(pid: str) -> bool:
    if not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def remove_temporaries(folder: Path) -> None:
    """Remove what killed writers left behind. The caller holds the folder alone: nobody else may be writing."""
    for path in folder.rglob("*.tmp-*"):
        path.unlink(missing_ok=True)


def remove_unlisted(folder: Path, manifest: Manifest) -> None:
    """Remove the shards and sidecars that abandoned builds of other inputs left in the folders of their splits."""
    listed = {folder / path for entry in manifest.shards for path in (entry.path, entry.index_path)}
    splits = {s.name for s in manifest.splits} | {p.name.partition(".")[0] for p in (folder / JOURNAL).glob("*.json")}
    for path in (p for split in splits for suffix in ("h5", "idx") for p in (folder / split).glob(f"*.{suffix}")):
        if path not in listed and path.is_file():
            path.unlink()


def adopted(request: dict) -> dict | None:
    """The journal entry of a shard that is already there, made from the same inputs and unharmed, else None."""
    try:
        entry = json.loads(Path(request["journal"]).read_text())
        if entry["hash"] != request["hash"]:
            return None
        path = Path(request["path"])
        if entry["chips"] == 0:
            return entry
        whole = sha256_file(path) == entry["sha256"] and sha256_file(path.with_suffix(".idx")) == entry["index_sha256"]
        return entry if whole else None
    except (OSError, ValueError, KeyError):
        return None
