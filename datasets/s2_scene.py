"""A whole Sentinel-2 L2A product as six bands of reflectance at 10 m."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import SceneError
from . import optical, raster
from .l8s2_header import S2_BANDS
from .l8s2_products import FORMATS


class Surface(NamedTuple):
    """``image`` float32 (6, H, W) reflectance, ``valid`` bool (H, W): with data and neither cloud nor shadow."""

    image: np.ndarray
    valid: np.ndarray
    grid: raster.Grid


def read_sentinel2(folder: Path, product: dict) -> Surface:
    """Read what ``l8s2_products.group`` found of one product; bands of 20 m are doubled bilinearly.

    Raises:
        SceneError: a band is missing, corrupt, or its name does not tell the processing baseline.
    """
    files = product["bands"]
    if missing := [band for band in (*S2_BANDS, "SCL") if band not in files]:
        raise SceneError(f"{', '.join(missing)} missing", where=product["tile"])
    if product["baseline"] is None:
        raise SceneError("no processing baseline in the name", where=product["tile"], hint="keep the .SAFE folder")
    with raster.open_raster(folder / files["B02"], FORMATS) as first:
        grid = raster.check_georeferenced(first)
    bands = []
    for band in S2_BANDS:
        with raster.open_raster(folder / files[band], FORMATS) as dataset:
            raster.check_bands(dataset, "uint16", (1,))
            if dataset.shape == (grid.height, grid.width):
                dn = raster.read_window(dataset, (0, 0, grid.height, grid.width), (1,))
            else:
                around = (-1, -1, grid.height // 2 + 2, grid.width // 2 + 2)
                dn = raster.read_window(dataset, around, (1,), optical.S2_FILL)
                dn = optical.double(dn, optical.S2_FILL)
        bands.append(optical.s2_surface(dn[0], int(product["baseline"])))
    with raster.open_raster(folder / files["SCL"], FORMATS) as dataset:
        scl = raster.read_window(dataset, (0, 0, grid.height // 2, grid.width // 2), (1,), 0)[0]
    stored = np.stack(bands)
    usable = optical.s2_usable(scl).repeat(2, 0).repeat(2, 1) & (stored != optical.S2_NODATA).all(0)
    return Surface(stored.astype(np.float32) * np.float32(optical.S2_SCALE), usable, grid)
