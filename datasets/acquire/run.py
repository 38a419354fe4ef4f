"""Carries out what was decided: parts of rasters and whole files, only those that are not here yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import requests

from ...errors import ArchiveError, InputError, StorageError, TidemarkError
from ..files import sha256_file
from .crop import Crop, write_crop
from .items import Fetched, Item
from .ledger import Ledger
from .transport import Progress, check_room, fetch


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        fetched: files that came, and their bytes on disk.
        bytes: of those.
        kept: files that were here before.
        failed: path -> why it did not come.
    """

    fetched: int
    bytes: int
    kept: int
    failed: dict[str, TidemarkError]

    def words(self) -> str:
        """One line."""
        words = f"{self.fetched} files fetched ({self.bytes / 1e6:.1f} MB), {self.kept} were here"
        return words + (f", {len(self.failed)} failed" if self.failed else "")


def as_item(crop: Crop) -> Item:
    """How the ledger knows a part: its product's name tells the area."""
    area = ",".join(f"{v:.6f}" for v in crop.bounds)
    return Item(crop.url, crop.path, product=f"{crop.product} in {area}", archive=crop.archive)


def carry_out(
    crops: Sequence[Crop],
    items: Sequence[Item],
    out: Path,
    session: requests.Session,
    *,
    expected: int,
    jobs: int = 4,
    max_bytes: int | None = None,
    sign: Callable[[str], str] = str,
    progress: Progress | None = None,
) -> Outcome:
    """Fetch what the output folder lacks, at most ``jobs`` files at a time. One that fails does not stop the others.

    Args:
        crops: parts of remote rasters.
        items: whole files.
        out: the folder, held by this process (``ledger.hold``).
        session: of ``open_session``.
        expected: bytes of all parts together at most, checked against the disk and ``max_bytes`` before the first.
        jobs: files at a time.
        max_bytes: limit on what a run may fetch.
        sign: makes a URL that the archive accepts.
        progress: as of ``fetch``.

    Raises:
        InputError: another part of the same product is in the folder; the limit is too small.
        StorageError: the disk is too small, or failed.
    """
    ledger = Ledger(out)
    _refuse_other_parts(ledger, [*map(as_item, crops), *items], out)
    wanted = {item.path for item in ledger.missing([*map(as_item, crops), *items])}
    kept = len(crops) + len(items) - len(wanted)
    crops, missing = [c for c in crops if c.path in wanted], [i for i in items if i.path in wanted]
    check_room(out, expected if crops else 0, max_bytes)
    done, failed = fetch_parts(
        crops, out, session, expected=expected, jobs=jobs, sign=sign, progress=progress, done=ledger.add
    )
    came, lost = fetch(missing, out, session, jobs=jobs, max_bytes=max_bytes, progress=progress, done=ledger.add)
    size = sum(f.bytes for f in (*done, *came))
    return Outcome(len(done) + len(came), size, kept, failed | lost)


def _refuse_other_parts(ledger: Ledger, items: Sequence[Item], out: Path) -> None:
    for item in items:
        record = ledger.records.get(item.path)
        if record is not None and record.product != item.product:
            raise InputError(
                f"holds {record.product}, asked for is {item.product}", where=out / item.path,
                hint="give another area of the same product an --out of its own",
            )  # fmt: skip


def fetch_parts(
    crops: Sequence[Crop],
    out: Path,
    session: requests.Session,
    *,
    expected: int,
    jobs: int = 4,
    sign: Callable[[str], str] = str,
    progress: Progress | None = None,
    done: Callable[[Fetched], None] = lambda fetched: None,
) -> tuple[list[Fetched], dict[str, TidemarkError]]:
    """Write parts of rasters, at most ``jobs`` at a time; ``done`` is called with each from the thread that read it.

    Returns:
        What came, and why what did not, by path. Raises StorageError, which stops all.
    """
    came: list[Fetched] = []
    failed: dict[str, TidemarkError] = {}
    read, lock, stop = 0, threading.Lock(), threading.Event()

    def one(crop: Crop) -> Fetched:
        def more(count: int) -> None:
            nonlocal read
            if stop.is_set():
                raise ArchiveError("stopped", where=crop.path)
            with lock:
                read += count
                if progress is not None:
                    progress(read, max(expected, read), crop.path)

        size = write_crop(crop, sign(crop.url), out, session, more)
        fetched = Fetched(as_item(crop), size, sha256_file(out / crop.path), None)
        done(fetched)
        return fetched

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        futures = {pool.submit(one, crop): crop for crop in crops}
        try:
            for future in as_completed(futures):
                try:
                    came.append(future.result())
                except StorageError:
                    raise
                except TidemarkError as error:
                    failed[futures[future].path] = error
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return came, failed
