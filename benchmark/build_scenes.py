"""Raw scenes of real size for ``tidemark bench build``: one large scene and two small ones, so that three splits fill.

The layers have their archives' names, grids, types and blocks. Their pixels repeat one simulated square: entropy and
codecs see real textures, and a scene of 8192 pixels takes seconds to draw instead of minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.shutil import copy
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from .synthetic import fractal

UTM = "EPSG:32615"
ALBERS = "+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
SIDE = 768  # of the square that repeats, in pixels of each layer (l8s2: of Sentinel-2)
SMALL = 512
NOISE_DN = 12
ISO = "<a><gml:beginPosition>2007-07-10T16:47:59Z</gml:beginPosition></a>"


def alos_dswe(out: Path, size: int) -> str:
    """A PALSAR scene of ``size`` pixels a side with DSWE, composite and HAND; returns the large scene's id."""
    rng, names = np.random.default_rng(1), []
    ground, texture = fractal(rng, SIDE), fractal(rng, SIDE)
    water = ground < np.quantile(ground, 0.15)
    power = 10 ** ((np.where(water, -22, -9) + 2 * texture) / 10)
    sar = [(power * rng.gamma(4, 0.25, power.shape) * share).astype(np.float32) for share in (1, 0.2)]
    codes = np.where(water, 1, 0).astype(np.uint8)
    codes[texture > 1.2] = 9
    codes = codes[::3, ::3]  # so that a small scene has its share of water too
    composite = [np.clip(level + 15 * texture + rng.normal(0, 1, texture.shape), 1, 255) for level in (60, 90, 80, 50)]
    for number, pixels in enumerate((size, SMALL, SMALL)):
        granule = f"AP_{15742 + number}_FBD_F0290_RT1"
        west, north = 400_000.09375 + 150_000 * number, 3_900_000.40625
        folder, grid = out / "alos" / granule, from_origin(west, north, 12.5, 12.5)
        for band, values in zip(("_HH", "_HV"), sar, strict=True):
            _write(folder / f"{granule}{band}.tif", [values], (pixels, pixels), UTM, grid, predictor=3)
        height = np.rint(300 + 80 * ground).astype(np.int16)
        _write(folder / f"{granule}.dem.tif", [height], (pixels, pixels), UTM, grid)
        (folder / f"{granule}.iso.xml").write_text(ISO)
        bounds = (west, north - 12.5 * pixels, west + 12.5 * pixels, north)
        tile = f"LE07_CU_{number:03d}010_20070710_20210502_02"
        _around(out / "dswe" / tile / f"{tile}_INWAM.TIF", [codes], bounds, ALBERS, 30.0, nodata=255)
        name = f"Hansen_GFC-2020-v1.8_first_40N_{100 - 10 * number:03d}W.tif"
        _around(out / "gfc" / name, [v.astype(np.uint8) for v in composite], bounds, "EPSG:4326", 0.00025)
        name = f"Copernicus_DSM_COG_10_N35_00_W{91 + number:03d}_00_HAND.tif"
        hand = np.maximum(30 * (ground + 1), 0).astype(np.float32)
        _around(out / "hand" / name, [hand], bounds, "EPSG:4326", 1 / 3600, nodata=np.nan, predictor=3)
        names.append(granule)
    return names[0]


def l8s2(out: Path, size: int) -> str:
    """A Sentinel-2 product of ``size`` pixels a side (JPEG 2000) with its Landsat-8 scene; returns the product's id."""
    rng, names = np.random.default_rng(2), []
    base = fractal(rng, 2 * SIDE)  # 5 m
    fields = 0.3 * fractal(rng, 2 * SIDE)
    levels = ((0.05, 0.01), (0.08, 0.015), (0.09, 0.03), (0.3, 0.06), (0.22, 0.05), (0.13, 0.04))
    ground = np.stack([np.clip(mean + spread * (base + fields), 0.005, 0.8) for mean, spread in levels])
    shifted = np.roll(ground, 3, (1, 2))  # 15 m: Landsat's pixels begin at odd multiples of 15 m
    for number, pixels in enumerate((size, SMALL, SMALL)):
        tile, time = f"15S{'VWX'[number]}A", "20210705T105031"
        west, north = 300_000.0 + 300_000 * number, 3_900_000.0
        scene = f"S2A_MSIL2A_{time}_N0500_R051_T{tile}_20210705T135229"
        folder = out / f"{scene}.SAFE" / "GRANULE" / f"L2A_T{tile}_A031000_{time}" / "IMG_DATA"
        for index, band in enumerate(("B02", "B03", "B04", "B8A", "B11", "B12")):
            step = 10 if index < 3 else 20
            values = _counts(rng, _mean(ground[index], step // 5), 1e-4, -0.1)
            grid, side = from_origin(west, north, step, step), pixels * 10 // step
            path = folder / f"R{step}m" / f"T{tile}_{time}_{band}_{step}m.jp2"
            _write(path, [values], (side, side), UTM, grid, jp2=True)
        scl = np.full((SIDE // 2, SIDE // 2), 4, np.uint8)
        grid, side = from_origin(west, north, 20, 20), pixels // 2
        _write(folder / "R20m" / f"T{tile}_{time}_SCL_20m.jp2", [scl], (side, side), UTM, grid, jp2=True)
        _landsat(out, rng, shifted, number, (west - 15 - 7680, north + 15 + 7680), pixels * 10 // 30 + 2 * 256)
        names.append(scene)
    return names[0]


def _landsat(out: Path, rng, ground: np.ndarray, number: int, corner: tuple[float, float], side: int) -> None:
    scene = f"{25 + number:03d}035_20210705_20210712_02_T1"
    level2, level1 = out / f"LC08_L2SP_{scene}", out / f"LC08_L1TP_{scene}"
    grid = from_origin(*corner, 30, 30)
    for index in range(6):
        values = _counts(rng, _mean(ground[index], 6), 2.75e-5, -0.2)
        _write(level2 / f"LC08_L2SP_{scene}_SR_B{index + 2}.TIF", [values], (side, side), UTM, grid, nodata=0)
    quality = np.full((256, 256), 21824, np.uint16)
    quality[:30, :30] = 22280  # cloud over one chip in nine
    _write(level2 / f"LC08_L2SP_{scene}_QA_PIXEL.TIF", [quality], (side, side), UTM, grid, nodata=1)
    pan = _counts(rng, _mean(ground[1:3].mean(0), 3), 2e-5, -0.1)
    _write(
        level1 / f"LC08_L1TP_{scene}_B8.TIF", [pan], (2 * side, 2 * side), UTM, from_origin(*corner, 15, 15), nodata=0
    )
    gains = {"REFLECTANCE_MULT_BAND_8": "2.0000E-05", "REFLECTANCE_ADD_BAND_8": "-0.100000", "SUN_ELEVATION": "61.5"}
    (level1 / f"LC08_L1TP_{scene}_MTL.json").write_text(json.dumps(gains))


SCENES: dict[str, Callable[[Path, int], str]] = {"alos-dswe": alos_dswe, "l8s2": l8s2}


def _mean(values: np.ndarray, step: int) -> np.ndarray:
    rows, columns = values.shape
    return values.reshape(rows // step, step, columns // step, step).mean((1, 3))


def _counts(rng: np.random.Generator, reflectance: np.ndarray, scale: float, offset: float) -> np.ndarray:
    noise = rng.normal(0, NOISE_DN, reflectance.shape)
    return np.clip(np.rint((reflectance - offset) / scale + noise), 1, 65535).astype(np.uint16)


def _around(path: Path, bands: list, bounds: tuple[float, ...], crs: str, step: float, **options) -> None:
    """A layer on its own grid, somewhat larger than ``bounds`` (in UTM)."""
    left, bottom, right, top = transform_bounds(UTM, crs, *bounds)
    shape = int((top - bottom) / step) + 40, int((right - left) / step) + 40
    _write(path, bands, shape, crs, from_origin(left - 20 * step, top + 20 * step, step, step), **options)


def _write(
    path: Path, bands: list, shape: tuple[int, int], crs: str, transform, *, jp2: bool = False, **options
) -> None:
    """The bands repeated over ``shape``, tiled and deflated, or as lossless JPEG 2000."""
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.with_suffix(".tmp.tif") if jp2 else path
    profile = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "zlevel": 1} | options
    rows, columns = bands[0].shape
    wide = [np.tile(band, (1, -(-shape[1] // columns)))[:, : shape[1]] for band in bands]
    with rasterio.open(
        target, "w", driver="GTiff", count=len(bands), height=shape[0], width=shape[1], dtype=bands[0].dtype, crs=crs,
        transform=transform, **profile,
    ) as file:  # fmt: skip
        for row in range(0, shape[0], rows):
            height = min(rows, shape[0] - row)
            file.write(np.stack([w[:height] for w in wide]), window=Window(0, row, shape[1], height))
    if jp2:
        copy(target, path, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
        target.unlink()
