"""What surrounds a training: its lock, its threads, and what Lightning should say and do when it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..datasets.files import locked
from ..errors import BusyError, TidemarkError

LIGHTNING = ("lightning", "lightning.pytorch", "lightning.fabric")


def process_rank(processes: int) -> int:
    """Which of a distributed training's processes this is, as torchrun, Slurm or Lightning's launcher tell it."""
    if processes > 1:
        for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
            if os.environ.get(name, "").isdecimal():
                return int(os.environ[name])
    return 0


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a run folder; the lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    busy = BusyError("another process trains this run", where=folder, hint="wait for it or stop it")
    with locked(os.open(folder, os.O_RDONLY), busy):
        yield


@contextmanager
def interruptible(folder: Path) -> Iterator[None]:
    """A TidemarkError instead of Lightning's silent exit (status 0 after SIGTERM); Ctrl-C works again afterwards."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        cause = "SIGTERM" if "SIGTERM" in type(error).__name__ else "Ctrl-C"
        raise TidemarkError(
            f"the training was interrupted ({cause})",
            where=folder,
            hint="the same command goes on from the last checkpoint",
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet(names: Sequence[str] = LIGHTNING, modules: str = r"lightning\.") -> Iterator[None]:
    """Without a library's hints; by default Lightning's about loader workers, unused devices and missing loggers.

    Args:
        names: its loggers; errors still come.
        modules: regular expression of the modules whose warnings are of no use to who trains.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=modules)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
