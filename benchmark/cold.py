"""Reading with a cold page cache: the kernel is asked to forget a file, and asked again whether it did."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

PROBES, TRIES = 64, 10


def forget(path: Path) -> bool:
    """Drop a file's pages from the page cache; False where they stay (memory file systems) or nobody can tell.

    Pages that a process has mapped stay too: close readers first.
    """
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # only clean pages can go
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        size = os.fstat(descriptor).st_size
        return not any(_cached(descriptor, size * k // PROBES) for k in range(PROBES))
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _cached(descriptor: int, offset: int) -> bool:
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def _empty(paths: list[Path]) -> bool:
    for _ in range(TRIES):
        if all([forget(path) for path in paths]):
            return True
        time.sleep(0.1)  # threads that have just read may still hold their map of a file
    return False


def cold_rates(paths: list[Path], first_pass: Callable[[], float], rounds: int) -> list[float] | None:
    """Units per second of ``first_pass`` (opening included), each time with the files out of the page cache.

    None where the cache cannot be emptied.
    """
    rates = []
    for _ in range(rounds):
        if not _empty(paths):
            return None
        started = time.perf_counter()
        done = first_pass()
        rates.append(done / (time.perf_counter() - started))
    return rates
