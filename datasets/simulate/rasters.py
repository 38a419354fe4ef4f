"""Simulated layers as files: GeoTIFF, sparse tiles, vector files, with bytes that depend on content only."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import atomic_path, write_atomic
from ..raster import Affine6

NOTICE = "SIMULATED product, not an observation"


@dataclass(frozen=True)
class Place:
    """The grid of a north-up layer: EPSG code, west and north edge, pixel size, in the CRS's units."""

    epsg: int
    west: float
    north: float
    pixel: float

    @property
    def transform(self) -> Affine6:
        """Affine a, b, c, d, e, f from (column, row)."""
        return (self.pixel, 0.0, self.west, 0.0, -self.pixel, self.north)

    def cropped(self, rows: int, columns: int) -> Place:
        """The grid that starts so many rows and columns further inside."""
        return Place(self.epsg, self.west + columns * self.pixel, self.north - rows * self.pixel, self.pixel)


def write_geotiff(
    path: Path,
    bands: np.ndarray,
    place: Place,
    nodata: float | None = None,
    descriptions: Sequence[str] = (),
    tags: dict[str, Any] | None = None,
    tile: int = 256,
) -> None:
    """Write (C, H, W) as a tiled, deflated GeoTIFF that calls itself simulated."""
    write_atomic(path, encode(bands, place, "GTiff", nodata, descriptions, tags, tile))


def encode(
    bands: np.ndarray,
    place: Place,
    driver: str,
    nodata: float | None = None,
    descriptions: Sequence[str] = (),
    tags: dict[str, Any] | None = None,
    tile: int = 256,
) -> bytes:
    """The bytes of (C, H, W) as ``GTiff`` or as lossless ``JP2OpenJPEG``."""
    import rasterio
    from rasterio.shutil import copy

    profile = {
        "driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "nodata": nodata,
        "dtype": bands.dtype.name, "crs": f"EPSG:{place.epsg}", "transform": rasterio.Affine(*place.transform),
        "tiled": True, "blockxsize": tile, "blockysize": tile, "compress": "deflate", "zlevel": 6,
        "predictor": 3 if bands.dtype.kind == "f" else 2,
    }  # fmt: skip
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(bands)
            for index, name in enumerate(descriptions, 1):
                dataset.set_band_description(index, name)
            dataset.update_tags(TIFFTAG_IMAGEDESCRIPTION=NOTICE, SIMULATED="YES", **(tags or {}))
        if driver == "GTiff":
            return bytes(memory.getbuffer())
        # written straight into memory, the driver leaves the georeference out
        with rasterio.MemoryFile(ext=".jp2") as converted:
            copy(memory.name, converted.name, driver=driver, QUALITY="100", REVERSIBLE="YES", WRITE_METADATA="NO")
            return bytes(converted.getbuffer())


def write_sparse_tile(
    path: Path, parts: Sequence[tuple[int, int, np.ndarray]], shape: tuple[int, int], crs: str, transform: Affine6,
    nodata: float | None, tags: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write a whole archive tile of which only parts hold data; blocks without any are not stored.

    Args:
        path: GeoTIFF to write.
        parts: (row, column, (C, h, w) pixels) of each part; what lies beyond the tile is left out.
        shape: rows and columns of the tile.
        crs: as rasterio takes it.
        transform: of the tile.
        nodata: what pixels without data read as (and the tag); None: 0, without a tag.
        tags: further metadata.
    """
    import rasterio
    from rasterio.windows import Window

    first = parts[0][2]
    profile = {
        "driver": "GTiff", "count": len(first), "height": shape[0], "width": shape[1], "dtype": first.dtype.name,
        "crs": crs, "transform": rasterio.Affine(*transform), "nodata": nodata, "tiled": True, "blockxsize": 256,
        "blockysize": 256, "compress": "deflate", "SPARSE_OK": "TRUE",
    }  # fmt: skip
    with atomic_path(path) as file:
        with rasterio.open(file, "w", **profile) as dataset:
            dataset.update_tags(TIFFTAG_IMAGEDESCRIPTION=NOTICE, SIMULATED="YES", **(tags or {}))
        with rasterio.open(file, "r+") as dataset:  # opened anew, blocks that are not written stay out
            for row, column, pixels in parts:
                top, left = max(row, 0), max(column, 0)
                bottom, right = min(row + pixels.shape[1], shape[0]), min(column + pixels.shape[2], shape[1])
                if top < bottom and left < right:
                    inside = pixels[:, top - row : bottom - row, left - column : right - column]
                    dataset.write(inside, window=Window(left, top, right - left, bottom - top))


def warp(layer: np.ndarray, place: Place, crs: str, transform: Affine6, shape: tuple[int, int], method: str, fill):
    """A (H, W) or (C, H, W) layer on another grid; ``method`` is a name of ``rasterio.enums.Resampling``."""
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.warp import reproject

    out = np.full((*layer.shape[:-2], *shape), fill, layer.dtype)
    reproject(
        layer, out, src_crs=f"EPSG:{place.epsg}", src_transform=rasterio.Affine(*place.transform), dst_crs=crs,
        dst_transform=rasterio.Affine(*transform), resampling=Resampling[method], init_dest_nodata=False,
        dst_nodata=fill, tolerance=0.0,
    )  # fmt: skip
    return out


def polygons_of(mask: np.ndarray, place: Place) -> list:
    """The connected parts of a mask as shapely polygons along its pixel edges."""
    import rasterio
    import shapely
    from rasterio import features

    found = features.shapes(mask.astype(np.uint8), mask=mask, transform=rasterio.Affine(*place.transform))
    return [shapely.geometry.shape(geometry) for geometry, _ in found]


def write_polygons(path: Path, geometries: list, columns: dict[str, list], crs: str, date: str) -> None:
    """Write polygons as GeoPackage (``.gpkg``) or shapefile (``.shp`` with its parts), stamped with ``date``."""
    import geopandas
    import pyogrio

    frame = geopandas.GeoDataFrame(columns, geometry=geometries, crs=crs)
    if path.suffix == ".shp":
        with tempfile.TemporaryDirectory() as folder:
            frame.to_file(Path(folder) / path.name, layer_options={"DBF_DATE_LAST_UPDATE": date})
            for part in sorted(Path(folder).iterdir()):
                write_atomic(path.with_suffix(part.suffix), part.read_bytes())
        return
    buffer = io.BytesIO()
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": f"{date}T00:00:00.000Z"})  # else the bytes hold the time
    try:
        frame.to_file(buffer, driver="GPKG", layer=path.stem, geometry_type="Polygon")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    write_atomic(path, buffer.getvalue())
