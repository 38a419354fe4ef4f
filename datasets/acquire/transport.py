"""Files from the archives: at most so many at a time, within the disk's room and the user's limit."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import requests
from urllib3 import exceptions as urllib3_errors

from ...errors import ArchiveError, InputError, StorageError, TidemarkError
from .. import files
from .answers import connection_error, request
from .hosts import origin, without_query
from .items import Fetched, Item
from .session import GuardedAdapter, Patience
from .transfer import Broken, Transfer, stated_length

GAIN = 1 << 20  # bytes of a broken transfer that make it worth as many attempts again
RESERVE = 64 << 20  # bytes that stay free on the disk
Progress = Callable[[int, int | None, str], None]


def remote_bytes(url: str, session: requests.Session) -> int | None:
    """The length that the archive states for a file; None where it states none. Raises ArchiveError."""
    with request(session, "GET", url, headers={"Range": "bytes=0-0", "Accept-Encoding": "identity"}) as answer:
        return stated_length(answer)


def check_limit(out: Path, needed: int, limit: int | None) -> None:
    """Raises InputError where ``needed`` bytes pass the user's limit."""
    if limit is not None and needed > limit:
        raise InputError(
            f"{needed / 1e6:.1f} MB are to come, --max-bytes allows {limit / 1e6:.1f} MB",
            where=out,
            hint="raise it, or take a smaller area or time",
        )


def check_room(out: Path, needed: int, limit: int | None = None) -> None:
    """Raises StorageError where the disk lacks ``needed`` bytes, and as ``check_limit``."""
    check_limit(out, needed, limit)
    files.check_room(out, needed, RESERVE)


def fetch(
    items: Sequence[Item],
    out: Path,
    session: requests.Session,
    *,
    jobs: int = 4,
    max_bytes: int | None = None,
    progress: Progress | None = None,
    done: Callable[[Fetched], None] | None = None,
) -> tuple[list[Fetched], dict[str, TidemarkError]]:
    """Fetch files, at most ``jobs`` at a time. One that fails does not stop the others.

    Args:
        items: what to fetch; paths below ``out``.
        out: the output folder.
        session: of ``open_session``.
        jobs: transfers at a time.
        max_bytes: limit on all bytes together, what lies here in parts included; where the archive states no length
            before, the transfer that would pass it is stopped.
        progress: called with all bytes so far, all bytes to come (None while unknown) and the file's name.
        done: called with every file that took its place, from the thread that fetched it.

    Returns:
        what came, in the order of ``items``, and the error by path of what did not.

    Raises:
        InputError, StorageError: the limit or the disk's room is too small for what is known to come.
    """
    if len({item.path for item in items}) != len(items):
        raise InputError("two files would take the same place", where=out)
    known = {item.path: item.bytes for item in items}
    needed = sum(size or 0 for size in known.values())
    check_limit(out, needed, max_bytes)
    check_room(out, needed - _in_parts(items, out))
    tally = _Tally(known, max_bytes, progress)
    came: dict[str, Fetched] = {}
    failed: dict[str, TidemarkError] = {}

    def one(item: Item) -> Fetched:
        result = download(item, out, session, tally)
        if done is not None:
            done(result)
        return result

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        futures = {pool.submit(one, item): item for item in items}
        try:
            for future in as_completed(futures):
                path = futures[future].path
                try:
                    came[path] = future.result()
                except TidemarkError as error:
                    failed[path] = error
                    if isinstance(error, StorageError):
                        raise
        except BaseException:
            tally.stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return [came[item.path] for item in items if item.path in came], failed


class _Tally:
    """Bytes of all transfers together, under one lock."""

    def __init__(self, known: dict[str, int | None], limit: int | None, progress: Progress | None) -> None:
        self.total, self.limit, self.progress = dict(known), limit, progress
        self.got = dict.fromkeys(known, 0)
        self.stop = threading.Event()
        self._lock = threading.Lock()

    def update(self, path: str, got: int, total: int | None) -> None:
        """Raises InputError where the limit is passed."""
        if self.stop.is_set():
            raise ArchiveError("stopped", where=path)
        with self._lock:
            self.got[path], self.total[path] = got, total
            everything = sum(max(g, self.total[p] or 0) for p, g in self.got.items())
            if self.limit is not None and everything > self.limit:
                raise InputError(
                    f"{everything / 1e6:.1f} MB are to come, --max-bytes allows {self.limit / 1e6:.1f} MB", where=path
                )
            if self.progress is not None:
                unknown = None in self.total.values()
                self.progress(sum(self.got.values()), None if unknown else sum(self.total.values()), path)


def download(item: Item, out: Path, session: requests.Session, tally: _Tally | None = None) -> Fetched:
    """Fetch one file, going on where an earlier attempt stopped.

    Raises:
        ArchiveError: it could not be fetched; what has come stays for the next attempt.
        ChecksumError: its bytes or its length are not what the archive states; it is set aside as ``.quarantined``.
        StorageError: it could not be written.
        InputError: its URL, or a redirect, leads elsewhere than to a listed host.
    """
    target, where = Path(out) / item.path, without_query(item.url)
    tally = tally or _Tally({item.path: item.bytes}, None, None)
    origin(item.url)  # a catalogue's URL may have any scheme
    adapter = session.get_adapter(item.url)
    patience = adapter.patience if isinstance(adapter, GuardedAdapter) else Patience()
    transfer = Transfer(item, target, session, patience, tally.update)
    left, before = patience.attempts, transfer.size
    while True:
        try:
            transfer.run()
            break
        except (requests.RequestException, urllib3_errors.HTTPError, Broken) as error:
            gained, before = transfer.size - before, transfer.size
            left = patience.attempts if gained >= GAIN else left - 1
            if left <= 0:
                if isinstance(error, Broken):
                    raise ArchiveError(str(error), where=where, hint="run it again; what has come is kept") from None
                raise connection_error(error, item.url) from None
            time.sleep(patience.backoff_s * 2 ** (patience.attempts - left - 1) * random.uniform(0.5, 1.5))
        except OSError as error:
            raise files.storage_error(error, target) from error
    return transfer.finish()


def _in_parts(items: Sequence[Item], out: Path) -> int:
    parts = [Path(out) / (item.path + ".part") for item in items]
    return sum(part.stat().st_size for part in parts if part.is_file())
