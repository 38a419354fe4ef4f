"""Cloud Optimized GeoTIFF: a draft is filled strip by strip, then copied into the order that readers want."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import rasterio
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetWriter
from rasterio.shutil import copy as copy_raster

from ..datasets.files import atomic_path, storage_error
from ..datasets.raster import GDAL_OPTIONS, Grid

BLOCK_PX = 256


def write_cog(draft: str | Path, out: str | Path, *, resampling: str = "average", predictor: bool = False) -> None:
    """Copy a finished GeoTIFF to a Cloud Optimized GeoTIFF: tiles of 256 px, deflated, with overviews.

    Pixels, nodata, colours, band descriptions, units and tags stay. GDAL copies block by block, so memory does not grow
    with the file; the overviews are first built inside ``draft``.

    Args:
        draft: GeoTIFF that was written and closed; gets overviews.
        out: file to make, not atomically: give what ``atomic_path`` yields.
        resampling: of the overviews: ``average`` for what is continuous, ``mode`` or ``nearest`` for classes.
        predictor: deflate differences of neighbours: smaller for reflectance and other continuous values.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        with rasterio.Env(**GDAL_OPTIONS), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(draft, "r+", driver="GTiff") as file:
                side = max(file.shape)
                factors = [2**k for k in range(1, 24) if side // 2 ** (k - 1) > BLOCK_PX]
                if factors:
                    file.build_overviews(factors, Resampling[resampling])
            copy_raster(
                str(draft),
                str(out),
                driver="COG",
                strict=True,
                BLOCKSIZE=str(BLOCK_PX),
                COMPRESS="DEFLATE",
                PREDICTOR="YES" if predictor else "NO",
                OVERVIEWS="FORCE_USE_EXISTING",
                BIGTIFF="IF_SAFER",
            )
    except RasterioError as error:
        raise storage_error(OSError(None, str(error)), Path(out)) from error


def draft_profile(grid: Grid, **changes: Any) -> dict[str, Any]:
    """Creation options of a draft on a grid: one uint8 band unless ``changes`` say otherwise.

    The draft is deflated lightly: it is read once and goes.
    """
    place = {} if grid.transform is None else {"transform": rasterio.Affine(*grid.transform)}
    return {
        "driver": "GTiff", "height": grid.height, "width": grid.width, "count": 1, "dtype": "uint8", "crs": grid.crs,
        "tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "compress": "deflate", "zlevel": 1,
        "bigtiff": "IF_SAFER", **place, **changes,
    }  # fmt: skip


@contextmanager
def cog_writer(
    out: str | Path, profile: dict[str, Any], *, resampling: str = "average", predictor: bool = False
) -> Iterator[DatasetWriter]:
    """Yield an open GeoTIFF to fill; on success it becomes the Cloud Optimized GeoTIFF ``out``, else ``out`` stays.

    Args:
        out: file to make or to replace.
        profile: as ``draft_profile`` gives it.
        resampling, predictor: see ``write_cog``.

    Raises:
        StorageError: it cannot be written.
    """
    out = Path(out)
    with ExitStack() as stack:
        finished = stack.enter_context(atomic_path(out))
        draft = stack.enter_context(draft_beside(out))
        with open_draft(draft, profile) as file:
            yield file
        write_cog(draft, finished, resampling=resampling, predictor=predictor)


@contextmanager
def draft_beside(out: Path) -> Iterator[Path]:
    """A temporary path beside ``out`` that goes in any case."""
    draft = out.with_name(f"{out.name}.draft-{os.getpid()}")
    try:
        yield draft
    finally:
        with suppress(OSError):
            draft.unlink()


@contextmanager
def open_draft(draft: Path, profile: dict[str, Any]) -> Iterator[DatasetWriter]:
    """A new GeoTIFF at ``draft``. Raises StorageError where it cannot be written."""
    try:
        with rasterio.Env(**GDAL_OPTIONS), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(draft, "w", **profile) as file:
                yield file
    except RasterioError as error:
        raise storage_error(OSError(None, str(error)), draft) from error
