"""How much ground a pixel covers, on any grid."""

from __future__ import annotations

import numpy as np

from ..datasets.raster import Grid
from ..errors import SceneError

NODES_PX = 64  # between them the area of a pixel is as good as linear
STEP_PX = 8  # of the differences: far above rounding, far below any curvature


def ground_area_km2(grid: Grid, first: int, stop: int) -> np.ndarray:
    """Area of the pixels of some rows on the ellipsoid, float64 (stop - first, width) in km² (a view: don't write).

    On a geographic grid exact: a band between two parallels has, per radian of longitude, b²/2 [sin(phi) / (1 - e²
    sin²(phi)) + ln((1 + e sin(phi)) / (1 - e sin(phi))) / 2e] (Snyder 1987, USGS Professional Paper 1395, eq. 3-12).
    On a projected grid by the projection's differences, so that UTM's 0.9996, Mercator's and polar stereographic's
    stretching are undone.

    Raises:
        SceneError: the grid has no CRS, or one without a place on Earth.
    """
    from pyproj import CRS

    if grid.crs is None or grid.transform is None:
        raise SceneError("no coordinate reference system: areas are not known")
    crs = CRS.from_wkt(grid.crs)
    if not (crs.is_geographic or crs.is_projected):
        raise SceneError(f"areas are not known in {crs.name!r}")
    a, _, c, _, e, f = grid.transform
    if crs.is_geographic:
        radian = crs.axis_info[0].unit_conversion_factor
        edges = (f + e * np.arange(first, stop + 1)) * radian
        band = np.abs(np.diff(_zone(np.clip(edges, -np.pi / 2, np.pi / 2), crs.ellipsoid)))
        return np.broadcast_to((band * abs(a) * radian / 1e6)[:, None], (stop - first, grid.width))
    rows, columns = _nodes(first, stop), _nodes(0, grid.width)
    x, y = np.meshgrid(c + a * (columns + 0.5), f + e * (rows + 0.5))
    area = _area_at(crs, x, y, a, e)
    if not np.isfinite(area).all():
        raise SceneError("part of the grid lies beyond its projection")
    along = np.array([np.interp(np.arange(grid.width), columns, line) for line in area])
    whole = np.arange(first, stop)
    right = np.clip(np.searchsorted(rows, whole), 1, len(rows) - 1)
    share = ((whole - rows[right - 1]) / (rows[right] - rows[right - 1]))[:, None]
    return along[right - 1] * (1 - share) + along[right] * share


def _nodes(first: int, stop: int) -> np.ndarray:
    """Whole pixels at most ``NODES_PX`` apart, at least two."""
    return np.linspace(first, max(stop - 1, first + 1), max(2, -(-(stop - first) // NODES_PX) + 1))


def _area_at(crs, x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    """km² of pixels with their centres at x, y: meridian and normal radius times the change of latitude, longitude."""
    from pyproj import Transformer

    to_ground = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    _, latitude = np.deg2rad(to_ground.transform(x, y))
    steps = []
    for dx, dy in ((STEP_PX * width, 0), (0, STEP_PX * height)):
        ahead, behind = (np.deg2rad(to_ground.transform(x + s * dx, y + s * dy)) for s in (0.5, -0.5))
        longitude = np.mod(ahead[0] - behind[0] + np.pi, 2 * np.pi) - np.pi  # across the antimeridian too
        steps.append((longitude, ahead[1] - behind[1]))
    (east_x, north_x), (east_y, north_y) = steps
    major, minor = crs.ellipsoid.semi_major_metre, crs.ellipsoid.semi_minor_metre
    square = 1 - (minor / major) ** 2
    bent = 1 - square * np.sin(latitude) ** 2
    radii = major**2 * (1 - square) * np.cos(latitude) / bent**2
    return np.abs(east_x * north_y - east_y * north_x) * radii / (STEP_PX**2 * 1e6)


def _zone(latitude: np.ndarray, ellipsoid) -> np.ndarray:
    """m² per radian of longitude from the equator to a latitude (radians)."""
    major, minor = ellipsoid.semi_major_metre, ellipsoid.semi_minor_metre
    sine = np.sin(latitude)
    eccentricity = np.sqrt(max(0.0, 1 - (minor / major) ** 2))
    if not eccentricity:
        return major**2 * sine
    term = np.log((1 + eccentricity * sine) / (1 - eccentricity * sine)) / (2 * eccentricity)
    return minor**2 / 2 * (sine / (1 - (eccentricity * sine) ** 2) + term)
