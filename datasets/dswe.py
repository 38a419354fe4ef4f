"""Codes of Dynamic Surface Water Extent (Landsat's DSWE, OPERA's DSWx) as labels, and when a DSWE image will do.

Codes of the interpreted layers: USGS, Landsat Collection 2 Level-3 DSWE, LSDS-2042; JPL D-107395 for DSWx-HLS.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from ..errors import SceneError
from .labelled import IGNORE
from .raster import open_raster, read_window

NOT_WATER, WATER, PARTIAL, CLOUD, FILL = 0, (1, 2), (3, 4), 9, 255
MAX_DAYS = 1  # between SAR and DSWE
MAX_CLOUD = 0.3  # of the tiles of one date
MIN_VALID, MIN_WATER = 0.5, 0.05  # of the SAR footprint
_ROWS = 64  # counted at a time, in the processor's cache
_UNDEFINED = 254


def water_labels(codes: np.ndarray) -> np.ndarray:
    """uint8 labels of the same shape: 0 -> 0; 1, 2 -> 1; partial water (3, 4), cloud (9) and fill (255) -> 255.

    Raises SceneError for a code that the product does not define.
    """
    table = np.full(256, _UNDEFINED, np.uint8)
    table[NOT_WATER], table[list(WATER)], table[[*PARTIAL, CLOUD, FILL]] = 0, 1, IGNORE
    labels = table.take(codes)
    if (labels == _UNDEFINED).any():
        found = np.unique(codes[labels == _UNDEFINED])[:5].tolist()
        raise SceneError(f"codes {found} are not defined for DSWE", hint="expected 0-4, 9, 255")
    return labels


def code_counts(codes: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """int64 (256,): how often each code occurs where ``inside``; both (H, W)."""
    counts = np.zeros(256, np.int64)
    for row in range(0, len(codes), _ROWS):
        counts += np.bincount(codes[row : row + _ROWS][inside[row : row + _ROWS]], minlength=256)
    return counts


def share_of_cloud(paths: Sequence[Path]) -> float:
    """Share of cloud among what the tiles of one date saw: on all of their ground, not only the scene's."""
    counts = np.zeros(256, np.int64)
    for path in paths:
        with open_raster(path) as tile:
            for row in range(0, tile.height, _ROWS):
                window = (row, 0, min(_ROWS, tile.height - row), tile.width)
                counts += np.bincount(read_window(tile, window, (1,)).ravel(), minlength=256)
    seen = counts[:FILL].sum()
    return float(counts[CLOUD] / seen) if seen else 1.0


def nearest_first(dates: Iterable[date], day: date) -> list[date]:
    """The dates within ``MAX_DAYS`` of a SAR image, the nearest first; of two as near, the earlier."""
    near = {d for d in dates if abs((d - day).days) <= MAX_DAYS}
    return sorted(near, key=lambda d: (abs((d - day).days), d))


def pair_fault(cloud: float, counts: np.ndarray) -> str | None:
    """Why DSWE of one date will not do for a SAR image, or None.

    Args:
        cloud: share of cloud of its tiles.
        counts: int64 (256,), its codes inside the SAR footprint.
    """
    return cloud_fault(cloud) or cover_fault(counts)


def cloud_fault(cloud: float) -> str | None:
    """The part of ``pair_fault`` that the tiles alone decide."""
    return None if cloud < MAX_CLOUD else f"{cloud:.0%} cloud, it must be below {MAX_CLOUD:.0%}"


def cover_fault(counts: np.ndarray) -> str | None:
    """The part of ``pair_fault`` that the SAR footprint decides."""
    if not counts.sum():
        return "the SAR image has no data"
    valid, water = footprint_shares(counts)
    if valid < MIN_VALID:
        return f"{valid:.0%} of the SAR footprint valid, the least is {MIN_VALID:.0%}"
    if water < MIN_WATER:
        return f"{water:.1%} of the SAR footprint water, the least is {MIN_WATER:.0%}"
    return None


def footprint_shares(counts: np.ndarray) -> tuple[float, float]:
    """Shares of the SAR footprint that are valid, and water; ``counts`` as for ``pair_fault``."""
    seen = int(counts.sum())  # the quotient of two integers is the threshold itself where it is met exactly
    valid, water = seen - int(counts[CLOUD]) - int(counts[FILL]), int(counts[list(WATER)].sum())
    return (valid / seen, water / seen) if seen else (0.0, 0.0)
