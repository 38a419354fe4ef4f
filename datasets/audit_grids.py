"""The audit's questions about grids: where do chips lie, and do the pixels of image and label lie on each other?"""

from __future__ import annotations

import numpy as np

from ..errors import FormatError
from .audit_report import MAX_PAIRS, Check, Pair
from .audit_scan import Chips
from .context import context_scale
from .footprints import corners_lonlat, enclosing
from .raster import GRID_TOLERANCE_PX


def label_grids(chips: Chips) -> Check:
    """Fails on chips of which an array of the label's size lies elsewhere than the label.

    A context (``image_x8``) must have the label's centre and eight times its pixel; arrays of another size (Landsat
    beside Sentinel-2) have a grid of their own by design.
    """
    name, title = "grids", "Image and label on one grid"
    manifest = chips.manifest
    label = manifest.label_array
    beside = [a.name for a in manifest.arrays if len(label.shape) > 1 and a.shape[-2:] == label.shape[-2:]]
    number = np.cumsum([0, *(shard.n for shard in chips.shards)])
    pairs, known = [], 0
    for first, shard in zip(number, chips.shards, strict=False):
        own = np.asarray(shard.transform, float)
        known += int(np.isfinite(own).all(1).sum())
        for array in beside:
            other = _at_label_scale(shard.array_transform(array), context_scale(array) or 1, label.shape[-2:])
            pixel = np.hypot(own[:, 0], own[:, 3])
            off = np.abs(other - own)[:, [2, 5]].max(1) / pixel
            stretched = (np.abs(other - own)[:, [0, 1, 3, 4]] > 1e-6 * pixel[:, None]).any(1)
            for row in np.flatnonzero((off > GRID_TOLERANCE_PX) | stretched):
                detail = f"{array} lies {off[row]:.3g} pixels off {label.name}"
                pairs.append(Pair(first=chips.name(first + row), detail=detail))
    if not known or len(beside) < 2:
        return Check(name=name, title=title, status="not-checkable", message="no chip has a transform and a label map")
    message = f"{known} chips with a transform, {', '.join(beside)} compared"
    status = "fail" if pairs else "pass"
    kept = tuple(pairs[:MAX_PAIRS])
    return Check(name=name, title=title, status=status, message=message, found=len(pairs), chips={}, pairs=kept)


def outlines(chips: Chips) -> np.ndarray:
    """float64 (N, 4, 2) lon, lat: each chip's outline with its context windows, NaN where unknown."""
    manifest, result = chips.manifest, []
    for shard in chips.shards:
        corners = np.full((shard.n, 4, 2), np.nan)
        for number in np.unique(shard.scene_index):
            rows, crs = np.flatnonzero(shard.scene_index == number), manifest.scenes[number].crs
            try:
                grids = [
                    corners_lonlat(shard.array_transform(a.name)[rows], *a.shape[-2:], crs)
                    for a in manifest.arrays
                    if len(a.shape) >= 2
                ]
            except FormatError as error:
                raise FormatError(error.what, where=f"{shard.path}, scene {manifest.scenes[number].id}") from None
            corners[rows] = enclosing(grids)
        result.append(corners)
    return np.concatenate(result) if result else np.zeros((0, 4, 2))


def _at_label_scale(transform: np.ndarray, scale: int, shape: tuple[int, ...]) -> np.ndarray:
    """float64 (N,6): the grid of the same centre and size in pixels with pixels ``scale`` times finer."""
    a, b, c, d, e, f = np.asarray(transform, float).T
    column, row = shape[1] / 2, shape[0] / 2
    kept = 1 - 1 / scale
    west, north = c + kept * (a * column + b * row), f + kept * (d * column + e * row)
    return np.stack([a / scale, b / scale, west, d / scale, e / scale, north], axis=1)
