"""How the pixels of one north-up grid lie on another: what resampling by transforms needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError


def grid_between(transform_from: ArrayLike, transform_to: ArrayLike) -> NDArray[np.float64]:
    """Where the pixels of one grid lie in another of the same CRS.

    Args:
        transform_from: (…, 6) a, b, c, d, e, f as in rasterio's ``Affine``: the grid that is read (the source).
        transform_to: (…, 6) the grid that is filled (the target); leading axes broadcast.

    Returns:
        (…, 4) float64 scale_x, offset_x, scale_y, offset_y with
        source pixel edge = scale · target pixel edge + offset: the centre of the target's column j lies
        scale_x · (j + 0.5) + offset_x source pixels right of the source's left edge.

    Raises:
        InputError: not six numbers, not finite, rotated, without extent, or one grid's axis runs the other way.
    """
    source, target = np.asarray(transform_from, np.float64), np.asarray(transform_to, np.float64)
    for name, transform in (("source", source), ("target", target)):
        if transform.shape[-1:] != (6,):
            raise InputError(f"the {name} transform has shape {transform.shape}, expected (…, 6)")
        if not np.isfinite(transform).all():
            raise InputError(f"the {name} transform is not finite", hint="the chip has no georeference")
        if transform[..., [1, 3]].any():
            raise InputError(f"the {name} grid is rotated", hint="warp it to a north-up grid first")
    steps = np.concatenate([t[..., [0, 4]].reshape(-1, 2) for t in (source, target)])
    if (steps[:, 0] <= 0).any() or (steps[:, 1] >= 0).any():
        raise InputError(
            "columns must run east (a > 0) and rows south (e < 0), found "
            f"{', '.join(f'a = {a:g}, e = {e:g}' for a, e in steps[:2])}",
            hint="warp the images to north-up grids first",
        )
    scale_x, scale_y = target[..., 0] / source[..., 0], target[..., 4] / source[..., 4]
    offset_x = (target[..., 2] - source[..., 2]) / source[..., 0]
    offset_y = (target[..., 5] - source[..., 5]) / source[..., 4]
    return np.stack(np.broadcast_arrays(scale_x, offset_x, scale_y, offset_y), axis=-1)
