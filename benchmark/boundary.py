"""Boundary F1 of water masks: how many boundary pixels have a counterpart nearby. Pure NumPy, like ``metrics``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .metrics import IGNORE, ratio

BOUNDARY_TOLERANCE_PX = 2.0


def boundary_counts(
    truth: NDArray, prediction: NDArray, ignore: int = IGNORE, tolerance_px: float = BOUNDARY_TOLERANCE_PX
) -> NDArray[np.int64]:
    """Boundary pixels of binary masks, and those with a counterpart within ``tolerance_px`` (Euclidean).

    A boundary pixel is water with a 4-neighbour that is not water, both valid: the edges of the chip and of ignored
    areas are not boundaries. A prediction of ``ignore`` counts as the opposite class.

    Args:
        truth, prediction: (..., H, W) of 0, 1 and ``ignore``.

    Returns:
        (4,) int64: predicted boundary pixels and how many of them are near a true one; true boundary pixels and how
        many of them are near a predicted one. Counts of several chips add.
    """
    valid = truth != ignore
    wet = (truth == 1) & valid
    said_wet = np.where(prediction == ignore, ~wet, prediction == 1) & valid
    edge, said_edge = _boundary(wet, valid), _boundary(said_wet, valid)
    near, near_said = _dilate(edge, tolerance_px), _dilate(said_edge, tolerance_px)
    pairs = (said_edge, said_edge & near, edge, edge & near_said)
    return np.array([np.count_nonzero(mask) for mask in pairs], np.int64)


def boundary_f1(counts: NDArray) -> NDArray[np.float64]:
    """F1 of boundary precision and recall from (..., 4); NaN without any boundary, 0 where only one side has one."""
    counts = np.asarray(counts, np.float64)
    precision, recall = ratio(counts[..., 1], counts[..., 0]), ratio(counts[..., 3], counts[..., 2])
    both = np.nan_to_num(precision) + np.nan_to_num(recall)
    score = np.where(both > 0, ratio(2 * np.nan_to_num(precision) * np.nan_to_num(recall), both), 0.0)
    return np.where(np.isnan(precision) & np.isnan(recall), np.nan, score)


def _boundary(wet: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    dry = valid & ~wet
    beside = np.zeros_like(wet)
    beside[..., 1:, :] |= dry[..., :-1, :]
    beside[..., :-1, :] |= dry[..., 1:, :]
    beside[..., 1:] |= dry[..., :-1]
    beside[..., :-1] |= dry[..., 1:]
    return wet & beside


def _dilate(mask: NDArray[np.bool_], radius_px: float) -> NDArray[np.bool_]:
    if not mask.any():
        return mask
    reach = int(radius_px)
    height, width = mask.shape[-2:]
    padded = np.pad(mask, [(0, 0)] * (mask.ndim - 2) + [(reach, reach)] * 2)
    grown = np.zeros_like(mask)
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            if row * row + column * column <= radius_px * radius_px:
                top, left = reach + row, reach + column
                grown |= padded[..., top : top + height, left : left + width]
    return grown
