"""Simulated Landsat Collection 2 Level-3 DSWE, layer INWAM, from the reflectance of mixed pixels.

The five tests and their interpretation are those of the published algorithm, so that partial water (3, 4) lies where
real partial water lies: along shores, in narrow rivers, on dark wet ground and shaded slopes.

Sources:
    Tests, thresholds, interpretation: J. W. Jones, "Improved Automated Detection of Subpixel-Scale Inundation: Revised
        DSWE Partial Surface Water Tests", Remote Sensing 11(4), 2019, doi 10.3390/rs11040374; the same numbers in
        NASA's PROTEUS (src/proteus/defaults/dswx_hls.yaml), with which the tests compare this code on a real scene.
    Slope thresholds: 30 % for high and moderate confidence, 20 % for potential wetland, 10 % for low confidence, as the
        first collection's product masked them; kept here.
    Grid: U.S. Analysis Ready Data: Albers equal area on WGS84, tiles of 5000 x 5000 pixels of 30 m.
    Scan-line gaps: Landsat-7 lacks 22 % of a scene after May 2003, nothing within 11 km of its middle, gaps of 390 to
        450 m at its edge (USGS and Geoscience Australia on SLC-off products); two scans of 16 lines cover 960 m.
    NOISE: of TM and ETM+ in reflectance; chosen.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
from scipy import ndimage

from . import optics
from .optics import Sky, Sun
from .rasters import Place, warp, write_sparse_tile
from .world import World

CRS = "+proj=aea +lat_1=29.5 +lat_2=45.5 +lat_0=23 +lon_0=-96 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
PIXEL_M, TILE_PX = 30.0, 5000
TILE_M = PIXEL_M * TILE_PX
WEST_M, NORTH_M = -2565585.0, 3314805.0  # corner of tile h000v000 of the conterminous US
NOT_WATER, CLOUD, FILL = 0, 9, 255
NOISE = 0.004
WETNESS_LIMIT = 0.124  # of the modified normalised difference water index; PROTEUS 0.1 still had 0.0124
SIGMA_M = 14.8  # as Landsat-8's requirement, see landsat8.py
SLOPE_LIMITS = {1: 0.30, 2: 0.30, 3: 0.20, 4: 0.10}  # rise over run
GAP_PERIOD_M, GAP_WIDEST_M, GAP_FREE_M, HALF_SWATH_M = 960.0, 450.0, 11_000.0, 92_500.0


def _interpretation() -> np.ndarray:
    """INTR code for each of the 32 outcomes, test 1 in the lowest bit."""
    table = np.zeros(32, np.uint8)
    for outcome in range(32):
        passed = outcome.bit_count()
        table[outcome] = 0 if passed < 2 else 4 if passed == 2 else 2 if passed == 3 else 1
    table[0b11000] = 3  # both partial tests and no other
    table[0b10000] = 4  # the conservative partial test alone
    return table


INTERPRETATION = _interpretation()


def diagnostic_tests(bands: np.ndarray, wetness_limit: float = WETNESS_LIMIT) -> np.ndarray:
    """The five DSWE tests.

    Args:
        bands: (6, H, W) reflectance: blue, green, red, NIR, SWIR1, SWIR2.
        wetness_limit: of test 1.

    Returns:
        (H, W) uint8, test n in bit n - 1.
    """
    blue, green, red, nir, swir1, swir2 = bands
    with np.errstate(divide="ignore", invalid="ignore"):
        wetness = (green - swir1) / (green + swir1)
        ndvi = (nir - red) / (nir + red)
    tests = (
        wetness > wetness_limit,
        green + red > nir + swir1,
        blue + 2.5 * green - 1.5 * (nir + swir1) - 0.25 * swir2 > 0,
        (wetness > -0.44) & (swir1 < 0.09) & (nir < 0.15) & (ndvi < 0.7),
        (wetness > -0.5) & (blue < 0.1) & (swir1 < 0.3) & (swir2 < 0.1) & (nir < 0.25),
    )
    return sum((test.astype(np.uint8) << bit for bit, test in enumerate(tests)), np.zeros(blue.shape, np.uint8))


def scan_line_gaps(shape: tuple[int, int], edge_share: float, tilt_deg: float, phase: float) -> np.ndarray:
    """(H, W) bool of pixels that Landsat-7 misses without its scan-line corrector.

    Args:
        shape: rows and columns of 30 m.
        edge_share: 0 in the middle of the swath, 1 at its edge.
        tilt_deg: of the scan lines against the rows.
        phase: where the first gap starts, in 0…1.
    """
    y, x = np.mgrid[: shape[0], : shape[1]] * PIXEL_M
    across = edge_share * HALF_SWATH_M + (x - x.mean()) * (0.5 if edge_share < 1 else 0)
    width = GAP_WIDEST_M * np.clip((np.abs(across) - GAP_FREE_M) / (HALF_SWATH_M - GAP_FREE_M), 0, 1)
    along = y * np.cos(np.deg2rad(tilt_deg)) + x * np.sin(np.deg2rad(tilt_deg))
    return (along / GAP_PERIOD_M + phase) % 1 * GAP_PERIOD_M < width


def write_dswe(
    out: Path,
    world: World,
    place: Place,
    acquired: date,
    satellite: str,
    sun: Sun,
    sky: Sky,
    rng: np.random.Generator,
) -> list[Path]:
    """Write INWAM of every tile that the world touches; beyond the world the tiles are fill.

    Args:
        out: folder of products.
        world: the ground.
        place: where it lies (UTM).
        acquired: day.
        satellite: LT05, LE07 or LC08; LE07 has scan-line gaps.
        sun: for slopes.
        sky: clouds over the world.
        rng: noise and gaps.

    Returns:
        The INWAM files.
    """
    from rasterio.warp import transform_bounds

    side = world.size * world.pixel_m
    bounds = transform_bounds(
        f"EPSG:{place.epsg}", CRS, place.west, place.north - side, place.west + side, place.north, densify_pts=21
    )
    left, top = (int((bounds[0] - WEST_M) // PIXEL_M), int((NORTH_M - bounds[3]) // PIXEL_M))
    shape = (int((NORTH_M - bounds[1]) // PIXEL_M) + 1 - top, int((bounds[2] - WEST_M) // PIXEL_M) + 1 - left)
    grid = (PIXEL_M, 0.0, WEST_M + left * PIXEL_M, 0.0, -PIXEL_M, NORTH_M - top * PIXEL_M)

    sigma = SIGMA_M / world.pixel_m
    seen = optics.correction_error(rng, optics.through_sky(optics.reflectance(world, sun), sky), world.pixel_m)
    layers = [ndimage.gaussian_filter(band, sigma) for band in (*seen, sky.opacity, sky.shadow)]
    slope = np.hypot(*np.gradient(ndimage.gaussian_filter(world.height_m, 30 / world.pixel_m), world.pixel_m))
    layers = np.stack([*layers, slope]).astype(np.float32)
    moved = warp(layers, place, CRS, grid, shape, "bilinear", np.float32(np.nan))
    bands = moved[:6] + np.float32(NOISE) * rng.standard_normal((6, *shape), dtype=np.float32)
    water = INTERPRETATION[diagnostic_tests(bands)]
    for code, limit in SLOPE_LIMITS.items():
        water[(water == code) & (moved[8] > limit)] = NOT_WATER
    cloud = ndimage.binary_dilation(moved[6] > 0.15, iterations=3)
    water[cloud | (moved[7] > 0.2)] = CLOUD
    water[np.isnan(moved[0])] = FILL
    if satellite == "LE07":
        water[scan_line_gaps(shape, rng.uniform(0.5, 1), rng.uniform(8, 14), rng.random())] = FILL

    written = []
    for vertical in range(top // TILE_PX, (top + shape[0] - 1) // TILE_PX + 1):
        for horizontal in range(left // TILE_PX, (left + shape[1] - 1) // TILE_PX + 1):
            row, column = top - vertical * TILE_PX, left - horizontal * TILE_PX
            inside = water[max(-row, 0) : TILE_PX - row, max(-column, 0) : TILE_PX - column]
            if (inside == FILL).all():
                continue
            name = f"{satellite}_CU_{horizontal:03d}{vertical:03d}_{acquired:%Y%m%d}_20210430_02"
            path = out / f"{name}_DSWE" / f"{name}_INWAM.TIF"
            corner = (WEST_M + horizontal * TILE_M, NORTH_M - vertical * TILE_M)
            transform = (PIXEL_M, 0.0, corner[0], 0.0, -PIXEL_M, corner[1])
            write_sparse_tile(path, [(row, column, water[None])], (TILE_PX, TILE_PX), CRS, transform, FILL)
            written.append(path)
    return written
