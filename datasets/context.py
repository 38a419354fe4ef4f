"""Context: the ground around a chip at a coarser scale, with the chip's centre and the chip's number of pixels."""

from __future__ import annotations

import re

import numpy as np

_NAME = re.compile(r"image_x([1-9]\d?)")


def context_scale(name: str) -> int | None:
    """8 for ``image_x8``; None for an array that is no context."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def context_window(window: tuple[int, int, int, int], scale: int) -> tuple[int, int, int, int]:
    """The ground of a context as (row, column, height, width) in pixels of the scene, which it may leave.

    Args:
        window: of the chip.
        scale: how many times higher and wider the ground is.
    """
    row, column, height, width = window
    return row - (scale - 1) * height // 2, column - (scale - 1) * width // 2, scale * height, scale * width


def block_mean(stored: np.ndarray, factor: int, nodata: float | None) -> np.ndarray:
    """Shrink by a whole factor: every pixel is the mean of the valid ones among its factor × factor.

    Args:
        stored: (C, H, W) of any number type, H and W multiples of ``factor``; NaN is never valid.
        factor: how many rows and columns become one.
        nodata: stored value of pixels without data; None: floats have NaN, integers none.

    Returns:
        (C, H / factor, W / factor) of the same type, rounded for integers; ``nodata`` (NaN for floats without one)
        where no pixel is valid.
    """
    channels, height, width = stored.shape
    if height % factor or width % factor:
        raise ValueError(f"{height} x {width} is no multiple of {factor}")
    blocks = stored.reshape(channels, height // factor, factor, width // factor, factor)
    valid = np.isfinite(blocks) if stored.dtype.kind == "f" else np.ones(blocks.shape, bool)
    if nodata is not None:
        valid &= blocks != stored.dtype.type(nodata)
    count = valid.sum((2, 4))
    total = np.where(valid, blocks, stored.dtype.type(0)).sum((2, 4), dtype=np.float64)
    mean = total / np.maximum(count, 1)
    if stored.dtype.kind != "f":
        mean = np.rint(mean)
    empty = 0.0 if nodata is None and stored.dtype.kind != "f" else np.nan if nodata is None else nodata
    return np.where(count > 0, mean, empty).astype(stored.dtype)
