"""Where chips lie on the ground, and which of two groups lie closer than a guard distance.

Works for any CRS and anywhere on Earth: centres are compared in space (no antimeridian, no poles), and the few
candidates as polygons in an azimuthal equidistant plane around each pair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform as warp_points
from scipy.spatial import cKDTree

from ..errors import FormatError

# WGS84 ellipsoid, NIMA TR8350.2.
SEMI_MAJOR_M = 6378137.0
FLATTENING = 1 / 298.257223563
EDGE_POINTS = 32  # along each side of a scene: a parallel of 10 degrees is then followed within 15 m
BLOCK_PAIRS = 100_000  # candidates of four corners compared at a time, some 0.2 GB


def stated_crs(text: str) -> CRS:
    """A manifest's CRS, WKT or an EPSG code. Raises rasterio's CRSError where it is none."""
    code = re.fullmatch(r"EPSG:(\d{1,6})", text)
    return CRS.from_epsg(int(code[1])) if code else CRS.from_wkt(text)


def corners_lonlat(
    transforms: np.ndarray, height: int, width: int, crs: str | None, edge_points: int = 1
) -> np.ndarray:
    """float64 (N, 4 * edge_points, 2): outlines of grids of one size in WGS84 longitude and latitude, in degrees.

    Args:
        transforms: float64 (N, 6), affine a, b, c, d, e, f; rotated and sheared ones too.
        height, width: of the grid in pixels.
        crs: WKT (or an EPSG code), or None (all NaN); one without a place on Earth too gives NaN.
        edge_points: 1 for the corners alone; ``EDGE_POINTS`` for scenes, whose sides are curves in another CRS.

    Raises:
        FormatError: the WKT is not a CRS that can be transformed.
    """
    a, b, c, d, e, f = np.asarray(transforms, np.float64).reshape(-1, 6).T[:, :, None]
    along = np.arange(edge_points) / edge_points
    first, last = np.zeros(edge_points), np.ones(edge_points)
    column = width * np.concatenate([along, last, 1 - along, first])
    row = height * np.concatenate([first, along, last, 1 - along])
    x, y = a * column + b * row + c, d * column + e * row + f
    result = np.full((len(x), 4 * edge_points, 2), np.nan)
    usable = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    if crs is None or not usable.any():
        return result
    try:
        source = stated_crs(crs)
        if not (source.is_geographic or source.is_projected):
            return result
        lon, lat = warp_points(source, CRS.from_epsg(4326), x[usable].ravel(), y[usable].ravel())
    except (CRSError, ValueError, RuntimeError) as error:
        raise FormatError(f"its CRS cannot be transformed to WGS84 ({error})") from None
    points = np.stack([lon, lat], axis=1).reshape(-1, 4 * edge_points, 2)
    points[~np.isfinite(points)] = np.nan
    result[usable] = points
    return result


def enclosing(outlines: list[np.ndarray]) -> np.ndarray:
    """float64 (N, 4, 2): of several outlines a chip (its arrays and contexts), the one of the largest extent."""
    stacked = np.stack(outlines)
    extent = np.nan_to_num(_radius_m(stacked.reshape(-1, 4, 2)).reshape(stacked.shape[:2]), nan=-1.0)
    return stacked[extent.argmax(axis=0), np.arange(stacked.shape[1])]


def _cartesian(lonlat: np.ndarray) -> np.ndarray:
    """Earth-centred x, y, z in metres (…, 3) on the ellipsoid."""
    lon, lat = np.radians(lonlat[..., 0]), np.radians(lonlat[..., 1])
    eccentricity = FLATTENING * (2 - FLATTENING)
    normal = SEMI_MAJOR_M / np.sqrt(1 - eccentricity * np.sin(lat) ** 2)
    x, y = normal * np.cos(lat) * np.cos(lon), normal * np.cos(lat) * np.sin(lon)
    return np.stack([x, y, normal * (1 - eccentricity) * np.sin(lat)], axis=-1)


def _radius_m(corners: np.ndarray) -> np.ndarray:
    points = _cartesian(corners)
    return np.linalg.norm(points - points.mean(axis=1, keepdims=True), axis=-1).max(axis=1)


def near_pairs(first: np.ndarray, second: np.ndarray, guard_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of outlines (N, P, 2), (M, P, 2) that overlap or are closer than ``guard_m`` metres on the ground.

    Touching outlines are a pair only when the guard is above 0. Outlines with NaN are in no pair.

    Returns:
        int64 (K, 2) indices, sorted, and float64 (K,) distance in metres (0 where they overlap).
    """
    pairs, distances = zip((np.empty((0, 2), np.int64), np.empty(0)), *near_blocks(first, second, guard_m), strict=True)
    return np.concatenate(pairs), np.concatenate(distances)


def near_blocks(first: np.ndarray, second: np.ndarray, guard_m: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All of ``near_pairs``, block by block in the same order: the memory grows with N + M, not with the pairs."""
    rows, columns = (np.flatnonzero(np.isfinite(c).all(axis=(1, 2))) for c in (first, second))
    if not rows.size or not columns.size:
        return
    one, two = _cartesian(first[rows]).mean(axis=1), _cartesian(second[columns]).mean(axis=1)
    own, others = _radius_m(first[rows]), _radius_m(second[columns])
    tree, reach = cKDTree(two), guard_m + own + others.max()
    candidates = tree.query_ball_point(one, reach, return_length=True)
    block = np.cumsum(candidates * (first.shape[1] // 4)) // BLOCK_PAIRS
    for rows_of_block in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(block)) + 1):
        members = tree.query_ball_point(one[rows_of_block], reach[rows_of_block], return_sorted=True)
        i = np.repeat(rows_of_block, [len(m) for m in members])
        j = np.concatenate(members).astype(np.int64)
        within = np.linalg.norm(one[i] - two[j], axis=1) <= guard_m + own[i] + others[j]
        pairs = np.stack([rows[i[within]], columns[j[within]]], axis=1)
        if not len(pairs):
            continue
        a, b = _plane(first[pairs[:, 0]], second[pairs[:, 1]])
        distance = shapely.distance(a, b)
        overlap = shapely.area(shapely.intersection(a, b)) > 1e-6 * np.minimum(shapely.area(a), shapely.area(b))
        near = (distance < guard_m) | overlap
        yield pairs[near], distance[near]


def _plane(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both outlines of each pair as polygons in metres, azimuthal equidistant around the first one's first corner.

    Snyder (1987), Map Projections, USGS PP 1395, eq. 25-2, on the sphere of the local Gaussian radius: within 0.3 %.
    """
    lon0, lat0 = np.radians(first[:, :1, 0]), np.radians(first[:, :1, 1])
    eccentricity = FLATTENING * (2 - FLATTENING)
    radius = SEMI_MAJOR_M * np.sqrt(1 - eccentricity) / (1 - eccentricity * np.sin(lat0) ** 2)
    polygons = []
    for corners in (first, second):
        lon, lat = np.radians(corners[..., 0]), np.radians(corners[..., 1])
        cosine = np.sin(lat0) * np.sin(lat) + np.cos(lat0) * np.cos(lat) * np.cos(lon - lon0)
        east = np.cos(lat) * np.sin(lon - lon0)
        north = np.cos(lat0) * np.sin(lat) - np.sin(lat0) * np.cos(lat) * np.cos(lon - lon0)
        sine = np.hypot(east, north)
        stretch = np.where(sine > 1e-12, np.arctan2(sine, cosine) / np.where(sine > 1e-12, sine, 1), 1.0)
        outlines = shapely.polygons(np.stack([east, north], axis=-1) * (radius * stretch)[..., None])
        broken = ~shapely.is_valid(outlines)  # those that reach around the Earth
        outlines[broken] = shapely.make_valid(outlines[broken])
        polygons.append(outlines)
    return polygons[0], polygons[1]
