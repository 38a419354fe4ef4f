"""Class maps as polygons in a GeoPackage."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import geopandas
import pyogrio
import rasterio
from rasterio import features
from shapely.geometry import shape

from ..errors import StorageError
from .predictions import NODATA

BATCH = 20_000  # polygons in memory at a time


def write_polygons(class_map: Path, out: Path, classes: Sequence[Mapping[str, Any]], layer: str = "classes") -> None:
    """Polygons of equal class (pixels that share an edge), written as a GeoPackage in the map's CRS.

    Args:
        class_map: GeoTIFF of class ids uint8, 255 = nodata.
        out: file to make.
        classes: with ``id`` and ``name``. Of two classes only class 1 becomes polygons.
        layer: name of the layer; its fields are ``class`` and ``name``.

    Raises:
        StorageError: the file cannot be written.
    """
    names = {c["id"]: c["name"] for c in classes}
    with rasterio.open(class_map, driver="GTiff") as file:
        band = rasterio.band(file, 1)
        # The band is its own mask: GDAL leaves pixels of class 0 out without reading the map as a whole.
        mask = band if len(classes) == 2 else None
        found = features.shapes(band, mask=mask, connectivity=4, transform=file.transform)
        pairs = ((polygon, int(value)) for polygon, value in found if int(value) != NODATA)
        append = False
        while (batch := list(islice(pairs, BATCH))) or not append:
            columns = {"class": [value for _, value in batch], "name": [names.get(value, "") for _, value in batch]}
            frame = geopandas.GeoDataFrame(columns, geometry=[shape(polygon) for polygon, _ in batch], crs=file.crs)
            frame = frame.astype({"class": "int32", "name": "str"})
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # no CRS; a temporary name without .gpkg
                    pyogrio.write_dataframe(
                        frame, out, layer=layer, driver="GPKG", geometry_type="Polygon", append=append
                    )
            except (pyogrio.errors.DataSourceError, pyogrio.errors.FeatureError) as error:
                raise StorageError(f"cannot write polygons ({error})", where=out) from None
            append = True
