"""Bytes on the command line: as a limit, and on their way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ...errors import InputError
from .transport import Progress

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_bytes(text: str | None) -> int | None:
    """``50GB``, ``1.5 TB`` or ``1000000`` as a number of bytes. Raises InputError."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text.upper())
    if found is None:
        raise InputError(f"not a number of bytes: {text[:40]!r}", hint="such as 50GB")
    return int(float(found[1]) * _UNITS[found[2]])


@contextmanager
def transfer_bar(title: str) -> Iterator[Progress]:
    """A bar with rate and time left on standard error as a ``Progress``, silent without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}", markup=False),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, name="", visible=False)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, name=name, visible=True)
