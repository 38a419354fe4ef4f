"""Rasters from users and sources, opened safely and read window by window.

Only existing local files are opened, each with the one GDAL driver that its format allows: a VRT named ``.tif``, a
``/vsi…`` path or a URL is refused before GDAL sees it, so that no socket is opened and no other file is read.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from ..errors import InputError, SceneError

# One GDAL driver a format, and the first bytes of its files.
FORMATS = {
    "GTiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JP2OpenJPEG": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
}
# No sidecar (.aux.xml, .ovr, .msk, world file) changes what a file says, and the folder is not listed.
GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_CACHEMAX": 256 << 20,
}
MAX_BLOCK_BYTES = 1 << 30  # GDAL decodes whole blocks: one strip of a hostile file must not exhaust the memory
MAX_SIDE_PX = 1 << 20
GRID_TOLERANCE_PX = 0.01

PixelWindow = tuple[int, int, int, int]  # row, column, height, width
Affine6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a raster lie. ``transform`` is the affine a, b, c, d, e, f from (column, row) to ``crs``."""

    height: int
    width: int
    transform: Affine6 | None = None
    crs: str | None = None

    def window_transform(self, window: PixelWindow) -> Affine6 | None:
        """The affine of a window of this grid, None where the grid has none."""
        if self.transform is None:
            return None
        a, b, c, d, e, f = self.transform
        row, column = window[:2]
        return (a, b, c + a * column + b * row, d, e, f + d * column + e * row)

    def bounds(self, window: PixelWindow | None = None) -> tuple[float, float, float, float] | None:
        """West, south, east, north of a window (or of all) in ``crs``, None where there is no transform."""
        window = window or (0, 0, self.height, self.width)
        transform = self.window_transform(window)
        if transform is None:
            return None
        a, b, c, d, e, f = transform
        corners = [(x, y) for x in (0, window[3]) for y in (0, window[2])]
        xs, ys = [c + a * x + b * y for x, y in corners], [f + d * x + e * y for x, y in corners]
        return (min(xs), min(ys), max(xs), max(ys))


def local_file(path: str | Path) -> Path:
    """The absolute path of an existing local file. Raises InputError for URLs, ``/vsi…`` paths and missing files."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise InputError("a URL where a local file is expected", where=path, hint="download it first")
    absolute = Path(path).absolute()
    if any(part.startswith("/vsi") for part in (str(path), str(absolute))):
        raise InputError("a GDAL virtual file where a local file is expected", where=path, hint="unpack it first")
    if not absolute.is_file():
        raise InputError("no such file", where=path)
    return absolute


@contextmanager
def open_raster(path: str | Path, formats: Sequence[str] = ("GTiff",), num_threads: int = 1) -> Iterator[DatasetReader]:
    """Open a local raster with the drivers of the given formats and nothing else.

    Args:
        path: an existing local file.
        formats: accepted formats, of GTiff, PNG and JP2OpenJPEG.
        num_threads: threads that decode the blocks of one read (GTiff).

    Raises:
        InputError: not a local file.
        SceneError: another format inside (whatever the name says), unreadable, or absurd block sizes.
    """
    file = local_file(path)
    with open(file, "rb") as opened:
        head = opened.read(16)
    driver = next((name for name in formats if head.startswith(FORMATS[name])), None)
    if driver is None:
        raise SceneError(f"not a {' or '.join(formats)} file, whatever its name says", where=path)
    options = {"num_threads": num_threads} if driver == "GTiff" and num_threads > 1 else {}
    with rasterio.Env(**GDAL_OPTIONS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                dataset = rasterio.open(file, driver=driver, **options)
        except RasterioError as error:
            raise SceneError(f"unreadable as {driver} ({_first_cause(error)})", where=path) from None
        with dataset:
            check_sizes(dataset, path)
            yield dataset


def check_sizes(dataset: DatasetReader, path: str | Path) -> None:
    """Raises SceneError where sides or blocks are too large to be read safely."""
    if max(dataset.shape) > MAX_SIDE_PX:
        raise SceneError(f"{dataset.height}x{dataset.width} pixels, over {MAX_SIDE_PX} on a side", where=path)
    for (height, width), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        size = height * width * np.dtype(dtype).itemsize * (dataset.count if _pixel_interleaved(dataset) else 1)
        if size > MAX_BLOCK_BYTES:
            raise SceneError(f"blocks of {size} bytes, over {MAX_BLOCK_BYTES}", where=path, hint="tile it (256x256)")


def _pixel_interleaved(dataset: DatasetReader) -> bool:
    return dataset.interleaving is not None and dataset.interleaving.value == "PIXEL"


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]


def grid_of(dataset: DatasetReader) -> Grid:
    """The grid of an open raster; a file without any georeference has neither transform nor CRS."""
    transform = tuple(float(v) for v in dataset.transform)[:6]
    if dataset.crs is None and transform == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0):
        transform = None
    return Grid(dataset.height, dataset.width, transform, dataset.crs.to_wkt() if dataset.crs else None)


def check_georeferenced(dataset: DatasetReader) -> Grid:
    """The grid of a scene that has a CRS and a north-up transform. Raises SceneError where one is missing."""
    grid = grid_of(dataset)
    if grid.crs is None:
        raise SceneError("no coordinate reference system", where=dataset.name, hint="set it with gdal_edit -a_srs")
    check_north_up(grid, dataset.name)
    return grid


def check_north_up(grid: Grid, where: object) -> None:
    """Raises SceneError where the transform rotates, shears or flips (or is absent although there is a CRS)."""
    if grid.transform is None or not np.isfinite(grid.transform).all():
        raise SceneError("no geotransform", where=where)
    a, b, _, d, e, _ = grid.transform
    if b != 0 or d != 0 or a <= 0 or e >= 0:
        raise SceneError(
            f"rotated or flipped geotransform (a={a}, b={b}, d={d}, e={e})", where=where, hint="warp it to north-up"
        )


def check_same_grid(dataset: DatasetReader, expected: Grid) -> None:
    """Raises SceneError, with the expected and the found value, where ``dataset`` is not on the image's grid."""
    found = grid_of(dataset)
    if (found.height, found.width) != (expected.height, expected.width):
        raise SceneError(
            f"label not on the image's grid: expected {expected.height}x{expected.width} pixels, "
            f"found {found.height}x{found.width}",
            where=dataset.name,
        )
    if (found.transform is None) != (expected.transform is None):
        what = ("georeferenced", "not georeferenced")
        raise SceneError(
            f"label not on the image's grid: expected {what[expected.transform is None]}, "
            f"found {what[found.transform is None]}",
            where=dataset.name,
        )
    if expected.transform is None or found.transform is None:
        return
    if found.crs != expected.crs and _crs(found.crs) != _crs(expected.crs):
        raise SceneError(
            f"label not on the image's grid: expected CRS {_crs_name(expected.crs)}, found {_crs_name(found.crs)}",
            where=dataset.name,
        )
    a, b, _, d, e, _ = expected.transform
    off = np.abs(np.subtract(_corners(found), _corners(expected))).max() / min(np.hypot(a, d), np.hypot(b, e))
    if not off <= GRID_TOLERANCE_PX:
        raise SceneError(
            f"label not on the image's grid: corners are {off:.3g} pixels off (expected origin "
            f"{expected.transform[2]}, {expected.transform[5]}, found {found.transform[2]}, {found.transform[5]})",
            where=dataset.name,
        )


def _corners(grid: Grid) -> tuple[float, ...]:
    """x and y where the first row begins and ends and where the first column ends: bounds do not tell a flip."""
    a, b, c, d, e, f = grid.transform
    return (c, f, c + a * grid.width, f + d * grid.width, c + b * grid.height, f + e * grid.height)


def _crs(wkt: str | None) -> rasterio.CRS | None:
    return None if wkt is None else rasterio.CRS.from_wkt(wkt)


def _crs_name(wkt: str | None) -> str:
    return "none" if wkt is None else (_crs(wkt).to_string() or wkt)[:80]


def check_bands(dataset: DatasetReader, dtype: str, indexes: Sequence[int]) -> None:
    """Raises SceneError where a band (counted from 1) is absent or has another dtype."""
    if max(indexes) > dataset.count:
        raise SceneError(f"expected at least {max(indexes)} bands, found {dataset.count}", where=dataset.name)
    for index in indexes:
        if dataset.dtypes[index - 1] != dtype:
            raise SceneError(
                f"band {index}: expected dtype {dtype}, found {dataset.dtypes[index - 1]}", where=dataset.name
            )


def read_window(
    dataset: DatasetReader,
    window: PixelWindow,
    indexes: Sequence[int],
    fill: Sequence[float] | float = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Bands of a window in the native dtype; what lies beyond the raster is ``fill`` (one value, or one a band).

    Returns:
        (len(indexes), height, width) in the dtype of the first band, or ``out`` of this shape where given.

    Raises:
        SceneError: a block cannot be decoded; the message names the file.
    """
    row, column, height, width = window
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + height, dataset.height), min(column + width, dataset.width)
    inside = Window(left, top, max(right - left, 0), max(bottom - top, 0))
    whole = inside.height == height and inside.width == width
    if out is None:
        out = np.empty((len(indexes), height, width), dataset.dtypes[indexes[0] - 1])
    if not whole:
        out[:] = np.asarray(fill).astype(out.dtype).reshape(-1, 1, 1)
    if inside.height and inside.width:
        try:
            pixels = dataset.read(list(indexes), window=inside, out=out if whole else None)
        except RasterioIOError as error:
            raise SceneError(
                f"corrupt: rows {top}-{bottom - 1}, columns {left}-{right - 1} cannot be read ({_first_cause(error)})",
                where=dataset.name,
                hint="get the file again",
            ) from None
        if not whole:
            out[:, top - row : bottom - row, left - column : right - column] = pixels
    return out


def tiles(height: int, width: int, size: int) -> list[PixelWindow]:
    """Windows of ``size`` that cover a raster without overlap, row by row; those at the edges reach beyond it."""
    return [(row, column, size, size) for row in range(0, height, size) for column in range(0, width, size)]


def wgs84_bounds(grid: Grid, window: PixelWindow | None = None) -> tuple[float, float, float, float] | None:
    """West, south, east, north in degrees of a window (or of all) of a grid, None where that is not known."""
    bounds = grid.bounds(window)
    if grid.crs is None or bounds is None:
        return None
    from rasterio.warp import transform_bounds

    crs = _crs(grid.crs)
    if not (crs.is_geographic or crs.is_projected):  # an engineering CRS has no place on Earth
        return None
    try:
        with rasterio.Env(**GDAL_OPTIONS):
            result = tuple(float(v) for v in transform_bounds(crs, "EPSG:4326", *bounds))
    except RasterioError:
        return None
    return result if np.isfinite(result).all() else None
