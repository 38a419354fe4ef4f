"""Simulated global layers on their archives' own grids: Global Forest Change composites and GLO-30 HAND.

Sources:
    Global Forest Change 2000-2020 v1.8, product ``first``: M. C. Hansen et al., "High-Resolution Global Maps of
        21st-Century Forest Cover Change", Science 342, 2013, doi 10.1126/science.1244693: growing-season composites of
        red, NIR, SWIR1 and SWIR2 in 8 bits, g of 508, 254, 363 and 423 (so the R package gfcanalysis, ``scale_toar``),
        0 = no data; tiles of 10 degrees with 40000 x 40000 pixels, named by their top-left corner. DN = rho * g + 1 is
        assumed, and the real composites hold top-of-atmosphere reflectance, these hold that of the surface.
    HAND from the Copernicus GLO-30 DEM (ASF, https://glo-30-hand.s3.amazonaws.com/readme.html): float32 metres on the
        DEM's tiles of 1 degree with 3600 x 3600 pixels whose centres lie on whole arc seconds, NaN = no data.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from . import optics
from .dswe import SIGMA_M
from .optics import Sun
from .rasters import Place, warp, write_sparse_tile
from .world import World

GFC_PX, GFC_TILE_PX, GFC_GAIN = 0.00025, 40_000, (508, 254, 363, 423)
HAND_PX, HAND_TILE_PX = 1 / 3600, 3600
GFC_SUN = Sun(60.0, 140.0)

Part = tuple[int, int, np.ndarray]  # row and column in the tile, (C, h, w) pixels
Tiles = dict[str, tuple[float, float, list[Part]]]  # by file name: west and north edge, parts


def add_forest_change(tiles: Tiles, world: World, place: Place) -> None:
    """Add a world to the ``first`` tiles it lies in; its fields bore other crops then, and none was bare."""
    then = replace(world, field=1 - world.field, bare=np.zeros_like(world.bare))
    surface = optics.reflectance(then, GFC_SUN)[2:]
    dn = np.stack([np.clip(rho * g + 1, 1, 255) for rho, g in zip(surface, GFC_GAIN, strict=True)])
    dn = np.stack([ndimage.gaussian_filter(band, SIGMA_M / world.pixel_m) for band in dn]).astype(np.float32)
    pixels, west, north = _on_degrees(dn, place, world, GFC_PX, 0.0)
    pixels = np.where(np.isnan(pixels), 0, np.clip(np.rint(pixels), 1, 255)).astype(np.uint8)
    _cut(tiles, pixels, west, north, GFC_PX, GFC_TILE_PX, 0.0, _forest_change_name)


def add_hand(tiles: Tiles, world: World, place: Place) -> None:
    """Add a world to the HAND tiles it lies in."""
    pixels, west, north = _on_degrees(world.hand_m[None], place, world, HAND_PX, HAND_PX / 2)
    _cut(tiles, pixels, west, north, HAND_PX, HAND_TILE_PX, HAND_PX / 2, _hand_name)


def write_tiles(out: Path, tiles: Tiles, pixel: float, side: int, nodata: float | None) -> list[Path]:
    """Write every tile as a whole, sparse GeoTIFF."""
    written = []
    for name, (west, north, parts) in sorted(tiles.items()):
        write_sparse_tile(out / name, parts, (side, side), "EPSG:4326", (pixel, 0.0, west, 0.0, -pixel, north), nodata)
        written.append(out / name)
    return written


def _on_degrees(
    layers: np.ndarray, place: Place, world: World, pixel: float, shift: float
) -> tuple[np.ndarray, float, float]:
    """Layers on a grid of degrees that starts at whole multiples of its pixel, moved west and north by ``shift``."""
    from rasterio.warp import transform_bounds

    side = world.size * world.pixel_m
    box = (place.west, place.north - side, place.west + side, place.north)
    left, bottom, right, top = transform_bounds(f"EPSG:{place.epsg}", "EPSG:4326", *box, densify_pts=21)
    west = np.floor((left + shift) / pixel) * pixel - shift
    north = np.ceil((top - shift) / pixel) * pixel + shift
    shape = (int(np.ceil((north - bottom) / pixel)), int(np.ceil((right - west) / pixel)))
    moved = warp(
        layers, place, "EPSG:4326", (pixel, 0.0, west, 0.0, -pixel, north), shape, "bilinear", np.float32(np.nan)
    )
    return moved, float(west), float(north)


def _cut(
    tiles: Tiles, pixels: np.ndarray, west: float, north: float, pixel: float, side: int, shift: float, name
) -> None:
    degrees = round(side * pixel)
    first = int(np.floor((west + shift) / degrees + 1e-9)) * degrees
    last = int(np.floor((west + shift + (pixels.shape[2] - 1) * pixel) / degrees + 1e-9)) * degrees
    top = int(np.ceil((north - shift) / degrees - 1e-9)) * degrees
    bottom = int(np.ceil((north - shift - (pixels.shape[1] - 1) * pixel) / degrees - 1e-9)) * degrees
    for tile_north in range(bottom, top + 1, degrees):
        for tile_west in range(first, last + 1, degrees):
            edges = (tile_west - shift, tile_north + shift)
            row, column = round((edges[1] - north) / pixel), round((west - edges[0]) / pixel)
            tiles.setdefault(name(tile_west, tile_north), (*edges, []))[2].append((row, column, pixels))


def _forest_change_name(west: int, north: int) -> str:
    vertical = f"{abs(north):02d}{'N' if north >= 0 else 'S'}"
    return f"Hansen_GFC-2020-v1.8_first_{vertical}_{abs(west):03d}{'W' if west < 0 else 'E'}.tif"


def _hand_name(west: int, north: int) -> str:
    south = north - 1
    vertical = f"{'N' if south >= 0 else 'S'}{abs(south):02d}_00"
    return f"Copernicus_DSM_COG_10_{vertical}_{'W' if west < 0 else 'E'}{abs(west):03d}_00_HAND.tif"
