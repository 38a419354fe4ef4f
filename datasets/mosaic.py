"""Several rasters of one kind as one layer on a scene's grid: warped and mosaicked window by window.

Nothing is written between: GDAL warps just the blocks that a window needs, from files that ``open_raster`` opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import rasterio
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from ..errors import SceneError
from .footprints import EDGE_POINTS, corners_lonlat, near_pairs
from .raster import Grid, PixelWindow, check_georeferenced, open_raster, read_window

WARP_TOLERANCE_PX = 0.01  # of the source; GDAL's own default is 0.125
WARP_MEMORY_MB = 64


class Mosaic:
    """A layer on ``grid``, open while used as a context manager.

    Where several files have data, the first in the given order counts.

    Args:
        paths: GeoTIFFs in any CRS; those that do not reach the grid cost nothing.
        grid: georeferenced grid of the scene.
        bands: band numbers (from 1) to read.
        resampling: ``nearest`` for labels, ``bilinear`` for what is continuous.
        dtype: of the result, wide enough for the warped values and ``nodata``.
        nodata: of the result, where no file has data.
        source_nodata: of the files, where they do not state it themselves.
        num_threads: that warp one window.

    Raises:
        SceneError: a file is no GeoTIFF, has no CRS, is rotated, or (when reading) is corrupt.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        grid: Grid,
        *,
        bands: Sequence[int] = (1,),
        resampling: str = "nearest",
        dtype: str = "uint8",
        nodata: float = 255,
        source_nodata: float = 255,
        num_threads: int = 2,
    ) -> None:
        self.paths, self.grid, self.bands = list(paths), grid, list(bands)
        self.dtype, self.nodata, self.source_nodata = np.dtype(dtype), nodata, source_nodata
        self._resampling, self._threads = Resampling[resampling], num_threads
        self._stack = ExitStack()

    def __enter__(self) -> Mosaic:
        crs, self._layers = rasterio.CRS.from_wkt(self.grid.crs), []
        with self._stack as stack:
            for path in self.paths:
                source = stack.enter_context(open_raster(path))
                own = check_georeferenced(source)
                if max(self.bands) > source.count:
                    raise SceneError(f"expected at least {max(self.bands)} bands, found {source.count}", where=path)
                if not overlap(own, self.grid):
                    continue
                vrt = WarpedVRT(
                    source,
                    crs=crs,
                    transform=Affine(*self.grid.transform),
                    height=self.grid.height,
                    width=self.grid.width,
                    resampling=self._resampling,
                    src_nodata=self.source_nodata if source.nodata is None else source.nodata,
                    nodata=self.nodata,
                    dtype=self.dtype.name,
                    tolerance=WARP_TOLERANCE_PX,
                    warp_mem_limit=WARP_MEMORY_MB,
                    warp_extras={"NUM_THREADS": str(self._threads)},
                )
                self._layers.append((path, stack.enter_context(vrt)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._stack.close()

    @property
    def empty(self) -> bool:
        """Whether no file reaches the grid."""
        return not self._layers

    def read(self, window: PixelWindow, out: np.ndarray | None = None) -> np.ndarray:
        """(bands, h, w) of a window that may leave the grid, in ``out`` where given; ``nodata`` where nothing is."""
        if out is None:
            out = np.empty((len(self.bands), *window[2:]), self.dtype)
        if self.empty:
            out[...] = self.nodata
        for number, (path, vrt) in enumerate(self._layers):
            try:
                values = read_window(vrt, window, self.bands, self.nodata, out if number == 0 else None)
            except SceneError as error:
                raise SceneError(error.what, where=path, hint=error.hint) from None
            if number and (gaps := out == self.nodata).any():
                out[gaps] = values[gaps]
        return out


def overlap(one: Grid, other: Grid) -> bool:
    """Whether two georeferenced grids share ground."""
    outlines = [corners_lonlat(np.array(g.transform), g.height, g.width, g.crs, EDGE_POINTS) for g in (one, other)]
    return len(near_pairs(*outlines, 0.0)[0]) > 0
