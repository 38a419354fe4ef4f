"""Parts of remote rasters, under the archive's names and on the archive's own grid.

Nothing is resampled: a crop holds the archive's numbers, its pixel edges are the archive's, and the builders cannot
tell it from a smaller scene. What is asked for is read by range requests, block by block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import rasterio
import requests

from ...errors import SceneError
from .. import raster
from ..files import atomic_path
from .ranges import open_remote

STRIP_ROWS = 1024  # a multiple of the written blocks
BLOCK = 256


@dataclass(frozen=True)
class Crop:
    """One file to come from a part of a remote raster.

    Attributes:
        url: of a GeoTIFF, best a cloud-optimized one.
        path: relative to the output folder.
        bounds: west, south, east, north in degrees of what is wanted.
        margin_m: ground around it, in metres of the raster's own projection.
        snap_px: windows begin and end at multiples of so many pixels, so that bands of different pixels agree.
        dtype: what the pixels must be.
        product, archive: its identifier and the service's name, for the ledger.
    """

    url: str
    path: str
    bounds: tuple[float, float, float, float]
    margin_m: float = 0.0
    snap_px: int = 1
    dtype: str = "uint16"
    product: str = ""
    archive: str = ""


def write_crop(
    crop: Crop, url: str, out: Path, session: requests.Session, progress: Callable[[int], None] = lambda count: None
) -> int:
    """Read the part and write it as a tiled GeoTIFF, atomically; returns its bytes on disk.

    Args:
        crop: what to read and where to write it.
        url: its URL, signed where the archive wants that.
        out: the output folder.
        session: made by ``open_session``.
        progress: told of so many more bytes of pixels.

    Raises:
        SceneError: not the expected kind of raster, or nothing of the area is in it.
        ArchiveError, InputError: as ``open_remote``.
    """
    path = out / crop.path
    with open_remote(url, session) as dataset:
        raster.check_bands(dataset, crop.dtype, (1,))
        row, column, height, width = pixel_window(raster.check_georeferenced(dataset), crop)
        profile = {
            "driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": crop.dtype, "crs": dataset.crs,
            "transform": dataset.window_transform(((row, row + height), (column, column + width))), "tiled": True,
            "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "predictor": 3 if "f" in crop.dtype else 2,
            "nodata": dataset.nodata,
        }  # fmt: skip
        with atomic_path(path) as temporary:
            with rasterio.open(temporary, "w", **profile) as written:
                for top in range(0, height, STRIP_ROWS):
                    rows = min(STRIP_ROWS, height - top)
                    pixels = raster.read_window(dataset, (row + top, column, rows, width), (1,))
                    written.write(pixels, window=((top, top + rows), (0, width)))
                    progress(pixels.nbytes)
        return path.stat().st_size


def pixel_window(grid: raster.Grid, crop: Crop) -> raster.PixelWindow:
    """The pixels that hold the wanted ground with its margin, cut where the raster ends.

    Raises SceneError where the raster has nothing of it.
    """
    west, south, east, north = projected(crop.bounds, grid.crs)
    a, _, c, _, e, f = grid.transform
    edges = (
        (west - crop.margin_m - c) / a, (east + crop.margin_m - c) / a,
        (north + crop.margin_m - f) / e, (south - crop.margin_m - f) / e,
    )  # fmt: skip
    snap = crop.snap_px
    left, top = (max(0, math.floor(v / snap) * snap) for v in (edges[0], edges[2]))
    right, bottom = (
        min(size, math.ceil(v / snap) * snap) for v, size in ((edges[1], grid.width), (edges[3], grid.height))
    )
    if right <= left or bottom <= top:
        raise SceneError("nothing of the area is in it", where=crop.path)
    return (top, left, bottom - top, right - left)


def projected(bounds: tuple[float, float, float, float], crs: str) -> tuple[float, float, float, float]:
    """West, south, east, north of an area of degrees in another projection."""
    from rasterio.warp import transform_bounds

    return transform_bounds("EPSG:4326", crs, *bounds, densify_pts=21)


def most_bytes(crop: Crop, step_m: float) -> int:
    """Bytes of the pixels of a part at most, before any is read: the area with its margin, all of it in the raster.

    A raster in the neighbouring UTM zone is turned by some degrees, which is allowed for by 15 % more.
    """
    west, south, east, north = projected(crop.bounds, f"EPSG:{utm_epsg(crop.bounds)}")
    sides = (east - west + 2 * crop.margin_m, north - south + 2 * crop.margin_m)
    columns, rows = (math.ceil(side / step_m) + 2 * crop.snap_px for side in sides)
    return round(1.15 * rows * columns) * {"uint8": 1, "uint16": 2, "float32": 4}[crop.dtype]


def utm_epsg(bounds: tuple[float, float, float, float]) -> int:
    """The UTM zone of the middle of an area of degrees."""
    x, y = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
    return (32600 if y >= 0 else 32700) + min(int((x + 180) // 6) + 1, 60)
