"""Which device computes, and what to say when it is not there or too small."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .. import _compat  # noqa: F401
from ..errors import DeviceError


def find_device(name: str = "auto") -> torch.device:
    """``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``. Raises DeviceError where it is absent."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise DeviceError(f"no device {name!r}", hint="there is auto, cpu, cuda and cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        kind = "is a CPU build" if torch.version.cuda is None else "finds no usable GPU or driver"
        raise DeviceError(
            f"a GPU is asked for, but this torch ({torch.__version__}) {kind}",
            where=name,
            hint="take device auto or cpu, or see `tidemark doctor`",
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"there are only {torch.cuda.device_count()} GPUs", where=name)
    return device


@contextmanager
def enough_memory(hint: str) -> Iterator[None]:
    """Turn torch's out-of-memory error into a DeviceError with ``hint``: what to make smaller."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(f"out of GPU memory ({str(error).split('. ')[0]})", hint=hint) from None
