"""Polygons from GeoPackage, GeoJSON or shapefile, brought onto a scene's grid window by window."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import shapely

from ..errors import SceneError
from .raster import Affine6, Grid, PixelWindow, check_north_up, local_file

IGNORE = 255
MAX_GEOJSON_BYTES = 512 << 20
SHAPEFILE_MAGIC = b"\x00\x00\x27\x0a"


class Polygons:
    """Polygons with a class each, in the CRS of one scene.

    Args:
        geometries: (N,) shapely polygons or multipolygons.
        values: (N,) uint8 class of each.
    """

    def __init__(self, geometries: np.ndarray, values: np.ndarray) -> None:
        self.geometries, self.values = geometries, values
        self._tree = shapely.STRtree(geometries)

    def rasterise(self, grid: Grid, window: PixelWindow, background: int = 0) -> np.ndarray:
        """Classes of one window: a pixel belongs to the polygon that holds its centre.

        Pixels that polygons of different classes claim are 255 (ignore): file order decides nothing.

        Returns:
            (height, width) uint8.
        """
        from rasterio import features

        _, _, height, width = window
        out = np.full((height, width), background, np.uint8)
        a, _, c, _, e, f = transform = grid.window_transform(window)
        # One pixel more on each side: the cut edges stay outside of every pixel centre of the window.
        rectangle = (c - a, f + e * (height + 1), c + a * (width + 1), f - e)
        hits = np.sort(self._tree.query(shapely.box(*rectangle)))
        claimed = np.zeros((height, width), bool)
        for value in np.unique(self.values[hits]):
            parts = shapely.clip_by_rect(self.geometries[hits[self.values[hits] == value]], *rectangle)
            parts = [part for part in parts if not part.is_empty and shapely.get_dimensions(part) == 2]
            if not parts:
                continue
            inside = features.rasterize(parts, (height, width), transform=_affine(transform), dtype="uint8") == 1
            out[inside & claimed] = IGNORE
            out[inside & ~claimed] = value
            claimed |= inside
        return out

    def classes_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """uint8 (N,): the class of the polygons that hold each point; 255 where none does, or two classes claim it."""
        out = np.full(len(x), IGNORE, np.uint8)
        claimed = np.zeros(len(x), bool)
        points, polygons = self._tree.query(shapely.points(x, y), predicate="within")
        for value in np.unique(self.values[polygons]):
            inside = np.zeros(len(x), bool)
            inside[points[self.values[polygons] == value]] = True
            out[inside & ~claimed] = value
            out[inside & claimed] = IGNORE
            claimed |= inside
        return out


def read_polygons(
    path: str | Path,
    grid: Grid,
    *,
    value: int | None = None,
    attribute: str | None = None,
    values: Mapping[str, int] | None = None,
    layer: str | None = None,
) -> Polygons:
    """Read the polygons that meet a scene, reprojected to its CRS.

    Args:
        path: GeoPackage (.gpkg), GeoJSON (.geojson, .json) or shapefile (.shp).
        grid: the scene's grid; needs a CRS.
        value: class of every polygon, where no ``attribute`` tells it.
        attribute: field that names the class.
        values: class by the attribute's text.
        layer: layer of a GeoPackage; the first one by default.

    Raises:
        InputError: not a local file.
        SceneError: another format, no CRS on either side, geometries that are no polygons, an unknown attribute value.
    """
    frame = read_frame(path, grid, layer)
    classes = _classes(frame, path, value, attribute, values or {})
    return Polygons(np.asarray(frame.geometry.array, dtype=object), classes)


def read_frame(path: str | Path, grid: Grid, layer: str | None = None):
    """The polygons that meet a scene with their attributes: a GeoDataFrame of valid polygons in the scene's CRS.

    Raises:
        InputError: not a local file.
        SceneError: another format, no CRS on either side, geometries that are no polygons.
    """
    file = local_file(path)
    if grid.crs is None or grid.transform is None:
        raise SceneError("polygons need a georeferenced image", where=path, hint="give masks instead")
    check_north_up(grid, f"the image of {path}")
    frame = _read_geojson(file, path) if file.suffix in (".geojson", ".json") else _read_ogr(file, path, grid, layer)
    if frame.crs is None:
        raise SceneError("no coordinate reference system", where=path)
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)]
    kinds = sorted(set(frame.geom_type) - {"Polygon", "MultiPolygon"})
    if kinds:
        raise SceneError(f"expected polygons, found {', '.join(kinds)}", where=path)
    _check_degrees(frame.crs, frame.total_bounds, path)
    try:
        frame = frame.set_geometry(_cut(frame, grid), crs=frame.crs)
        frame = frame[~frame.geometry.is_empty].to_crs(grid.crs)
        return frame.set_geometry(_valid(np.array(frame.geometry.array, object)), crs=grid.crs)
    except shapely.errors.GEOSException as error:
        raise SceneError(f"polygons that have no place in the image's CRS ({error})", where=path) from None


def _check_degrees(crs, bounds, where: object) -> None:
    if crs.is_geographic and (np.abs(np.array(bounds, float)) > 360).any():
        raise SceneError("coordinates beyond 360 degrees", where=where, hint="state the CRS that they are in")


def _valid(geometries: np.ndarray) -> np.ndarray:
    broken = ~shapely.is_valid(geometries)
    geometries[broken] = shapely.make_valid(geometries[broken], method="structure", keep_collapsed=False)
    return geometries


def _cut(frame, grid: Grid) -> np.ndarray:
    """The polygons without what lies farther from the scene than its own size: its CRS may have no place for that."""
    geometries = np.array(frame.geometry.array, object)
    if frame.crs == grid.crs or (box := _bounds_in(grid, frame.crs)) is None:
        return geometries
    margin = max(box[2] - box[0], box[3] - box[1])
    rectangle = (box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin)
    far = ~shapely.covered_by(geometries, shapely.box(*rectangle))
    geometries[far] = shapely.clip_by_rect(_valid(geometries[far]), *rectangle)
    return geometries


def _bounds_in(grid: Grid, crs) -> tuple[float, float, float, float] | None:
    """Bounds of a scene in another CRS, None across the antimeridian (west > east) or beyond the projection."""
    from pyproj import Transformer

    transformer = Transformer.from_crs(grid.crs, crs, always_xy=True)
    box = transformer.transform_bounds(*grid.bounds(), densify_pts=21)
    return box if np.isfinite(box).all() and box[0] < box[2] else None


def _classes(frame, path, value: int | None, attribute: str | None, values: Mapping[str, int]) -> np.ndarray:
    if attribute is None:
        return np.full(len(frame), value, np.uint8)
    if attribute not in frame.columns:
        fields = ", ".join(str(c) for c in frame.columns if c != frame.geometry.name) or "none"
        raise SceneError(f"no attribute {attribute!r}, there is {fields}", where=path)
    names = [str(v) for v in frame[attribute]]
    unknown = sorted(set(names) - set(values))
    if unknown:
        raise SceneError(f"attribute {attribute} has values without a class: {', '.join(unknown[:5])}", where=path)
    return np.array([values[name] for name in names], np.uint8)


def _read_geojson(file: Path, where: object):
    """GeoJSON without OGR, whose driver detection would also accept remote catalogues in JSON."""
    import geopandas

    if file.stat().st_size > MAX_GEOJSON_BYTES:
        raise SceneError(f"{file.stat().st_size} bytes, over {MAX_GEOJSON_BYTES}", where=where, hint="use GeoPackage")
    try:
        content = json.loads(file.read_bytes())
        if content["type"] != "FeatureCollection":
            raise ValueError(f"expected a FeatureCollection, found {content['type']}")
        # RFC 7946 is WGS84; the member `crs` of the 2008 draft is still common.
        crs = content.get("crs", {}).get("properties", {}).get("name", "OGC:CRS84")
        features = content["features"]
        if not features:
            return geopandas.GeoDataFrame(geometry=[], crs=crs)
        return geopandas.GeoDataFrame.from_features(features, crs=crs)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
        raise SceneError(f"not valid GeoJSON ({error})", where=where) from None


def _read_ogr(file: Path, where: object, grid: Grid, layer: str | None):
    import pyogrio
    from pyproj import CRS
    from pyproj.exceptions import ProjError

    with open(file, "rb") as opened:
        head = opened.read(16)
    formats = {".gpkg": b"SQLite format 3\0", ".shp": SHAPEFILE_MAGIC}
    if file.suffix not in formats or not head.startswith(formats[file.suffix]):
        raise SceneError("not a GeoPackage, GeoJSON or shapefile, whatever its name says", where=where)
    try:
        info = pyogrio.read_info(file, layer=layer)
        box = None
        if info["crs"]:
            crs = CRS.from_user_input(info["crs"])
            _check_degrees(crs, info["total_bounds"], where)
            box = _bounds_in(grid, crs)
        return pyogrio.read_dataframe(file, layer=layer, bbox=box, force_2d=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ProjError, ValueError) as error:
        raise SceneError(f"unreadable polygons ({error})", where=where) from None


def _affine(transform: Affine6):
    from rasterio import Affine

    return Affine(*transform)
