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


def shrink(stored: np.ndarray, factor: int, nodata: float | None) -> np.ndarray:
    """Shrink by an even factor: every pixel is the mean of the valid ones among the central 2 × 2 of its block.

    That is bilinear resampling without a low-pass filter, as GMNet was trained with: it leaves speckle as it is.

    Args:
        stored: (C, H, W) of any number type, H and W multiples of ``factor``; NaN is never valid.
        factor: how many rows and columns become one.
        nodata: stored value of pixels without data; None: floats have NaN, integers none.

    Returns:
        (C, H / factor, W / factor) of the same type, rounded for integers; ``nodata`` (NaN for floats without one)
        where none of the four is valid.
    """
    if factor % 2 or stored.shape[1] % factor or stored.shape[2] % factor:
        raise ValueError(f"{stored.shape[1]} x {stored.shape[2]} cannot shrink by {factor}")
    first = factor // 2 - 1
    four = np.stack([stored[:, first + i :: factor, first + j :: factor] for i in (0, 1) for j in (0, 1)])
    valid = np.isfinite(four)
    if nodata is not None:
        valid &= four != stored.dtype.type(nodata)
    count = valid.sum(0)
    mean = np.where(valid, four, 0).sum(0, dtype=np.float64) / np.maximum(count, 1)
    if stored.dtype.kind != "f":
        mean = np.rint(mean)
    empty = (np.nan if stored.dtype.kind == "f" else 0) if nodata is None else nodata
    return np.where(count > 0, mean, empty).astype(stored.dtype)
