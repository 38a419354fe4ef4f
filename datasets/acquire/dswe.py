"""Landsat's Dynamic Surface Water Extent in the USGS catalogue, looked at window by window.

Collection 2 Level-3, layer INWAM (interpreted with all masking), on the tiles of the U.S. Analysis Ready Data: one
grid of 30 m for a region, so that tiles of one date are put together without resampling.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from math import ceil, floor

import numpy as np
import shapely
from rasterio import Affine, features
from rasterio.io import DatasetReader
from rasterio.warp import transform_geom
from rasterio.windows import Window
from shapely.geometry.base import BaseGeometry

from ...errors import SceneError
from ..dswe import CLOUD, FILL, code_counts
from .hosts import without_query
from .items import Item, from_multihash
from .pair_rule import Measured
from .stac import Scene

ASSET, SERVICE = "inwam", "usgs"
NAME = re.compile(
    r"(?P<tile>L[TEC]0[45789]_CU_(?P<place>\d{6})_(?P<date>\d{8})_(?P<processed>\d{8})_\d{2})_INWAM\.TIF", re.I
)
PREVIEW_PX = 1024  # a side of the whole-tile look at the cloud
MAX_FOOTPRINT_PX = 10_000  # a side; a PALSAR scene has 2500
SEGMENT_DEGREES = 0.05
Opener = Callable[[str], AbstractContextManager[DatasetReader]]


def file_name(scene: Scene) -> re.Match | None:
    """The parts of a scene's INWAM file name; None where it has no such asset or another kind of name."""
    url = without_query(scene.assets.get(ASSET, ""))
    return NAME.fullmatch(url.rsplit("/", 1)[-1])


def by_date(scenes: Sequence[Scene]) -> dict[datetime.date, list[Scene]]:
    """Usable scenes by the date in their name, in order of the names; of two processings of a tile, the later."""
    newest: dict[str, tuple[str, Scene]] = {}
    for scene in scenes:
        if parts := file_name(scene):
            key = parts["tile"][: -len("_20210502_02")]
            newest[key] = max(newest.get(key, ("", scene)), (parts["processed"], scene), key=lambda pair: pair[0])
    found: dict[datetime.date, list[Scene]] = {}
    for _, (_, scene) in sorted(newest.items()):
        day = datetime.datetime.strptime(file_name(scene)["date"], "%Y%m%d").date()
        found.setdefault(day, []).append(scene)
    return found


def item_of(scene: Scene) -> Item:
    """The file in the layout that the builder reads."""
    name = file_name(scene)
    path = f"dswe/{name['tile']}_DSWE/{name[0]}"
    size, checksum = scene.sizes.get(ASSET), from_multihash(scene.checksums.get(ASSET))
    return Item(scene.assets[ASSET], path, size, checksum, scene.id, SERVICE)


def measure(scenes: Sequence[Scene], footprint: BaseGeometry, open_tile: Opener) -> Measured:
    """What the tiles of one date show in a footprint.

    Cloud is counted over the whole tiles, from a look at every n-th pixel where a side has over ``PREVIEW_PX``.

    Args:
        scenes: of one date, on one grid; where two overlap, the first that has data counts.
        footprint: of the SAR image, in degrees.
        open_tile: URL -> raster, as ``open_remote``.

    Raises:
        ArchiveError: a file cannot be read.
        SceneError: it is not DSWE on the common grid.
    """
    seen = np.zeros(256, np.int64)
    inside = codes = place = None
    for scene in scenes:
        with open_tile(scene.assets[ASSET]) as tile:
            _check(tile, scene)
            if place is None:
                place, inside = _raster(footprint, tile)
                codes = np.full(inside.shape, FILL, np.uint8)
            seen += _whole(tile)
            _lay(codes, place, tile, scene)
    total = int(seen[:FILL].sum())
    return Measured(float(seen[CLOUD] / total) if total else 1.0, code_counts(codes, inside))


def _check(tile: DatasetReader, scene: Scene) -> None:
    a, b, _, d, e, _ = tuple(tile.transform)[:6]
    if tile.dtypes != ("uint8",) or tile.crs is None or b or d or a <= 0 or e != -a:
        raise SceneError("not DSWE: expected one band of uint8 with square pixels, north up", where=scene.id)


def _raster(footprint: BaseGeometry, tile: DatasetReader) -> tuple[Affine, np.ndarray]:
    """Transform and bool (rows, columns) of a footprint on the tile's grid, extended as far as it needs."""
    fine = shapely.segmentize(footprint, SEGMENT_DEGREES)
    shape = shapely.geometry.shape(transform_geom("EPSG:4326", tile.crs, shapely.geometry.mapping(fine)))
    columns, rows = zip(*(~tile.transform @ corner for corner in _corners(shape.bounds)), strict=True)
    left, top = floor(min(columns)), floor(min(rows))
    width, height = ceil(max(columns)) - left, ceil(max(rows)) - top
    if not 0 < max(width, height) <= MAX_FOOTPRINT_PX:
        raise SceneError(f"a footprint of {height}x{width} pixels", where=tile.name)
    place = tile.transform @ Affine.translation(left, top)
    return place, features.geometry_mask([shape], (height, width), place, invert=True)


def _corners(bounds: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    west, south, east, north = bounds
    return [(west, north), (east, south)]


def _lay(codes: np.ndarray, place: Affine, tile: DatasetReader, scene: Scene) -> None:
    """Fill what is still without data with a tile's pixels."""
    if (tile.transform.a, tile.transform.e) != (place.a, place.e):
        raise SceneError("tiles of one date have different pixels", where=scene.id)
    column, row = ~tile.transform @ (place.c, place.f)
    left, top = round(column), round(row)
    if abs(left - column) > 0.01 or abs(top - row) > 0.01:
        raise SceneError("tiles of one date lie on different grids", where=scene.id)
    first_row, first_column = max(top, 0), max(left, 0)
    last_row, last_column = min(top + codes.shape[0], tile.height), min(left + codes.shape[1], tile.width)
    if first_row >= last_row or first_column >= last_column:
        return
    window = Window(first_column, first_row, last_column - first_column, last_row - first_row)
    part = codes[first_row - top : last_row - top, first_column - left : last_column - left]
    part[...] = np.where(part == FILL, tile.read(1, window=window), part)


def _whole(tile: DatasetReader) -> np.ndarray:
    """int64 (256,): how often each code occurs in the tile."""
    step = max(1, ceil(max(tile.shape) / PREVIEW_PX))
    size = (ceil(tile.height / step), ceil(tile.width / step))
    return np.bincount(tile.read(1, out_shape=size).ravel(), minlength=256)
