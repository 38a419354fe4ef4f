"""A season over simulated farmland, seen on the same days by Landsat-8 and Sentinel-2, and where its parcels lie."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from . import landsat8, optics, sentinel2
from .l8s2 import MARGIN_M, PIXEL_M, ZONES
from .optics import Sun
from .rasters import Place, write_geotiff
from .world import CROPS, World, make_world

START = datetime.date(2021, 4, 10)
STEP_DAYS = 8  # between the dates; Landsat-8 alone comes every 16 days
PEAK_DAYS, PEAK_WIDTH_DAYS = (10.0, 90.0), 30.0  # after the start: when a crop stands highest, and for how long; chosen
WETNESS_SD = 0.02  # of the soil's moisture from date to date, volumetric; chosen
PARCELS = "parcels.tif"
DRAWS = 4  # worlds, of which the one with most crops is taken: farmland
EDGE_PX = 2  # of the ground (10 m): so far from its edge a parcel's inside begins


def simulate_location(
    out: Path, seed: int, index: int, size: int, dates: int, sensors: tuple[str, ...] = ("l8", "s2")
) -> Path:
    """Write the products of one location, without clouds, and ``parcels.tif``.

    Args:
        out: folder of products to make; it gets ``parcels.tif`` on the Sentinel-2 grid: 1 inside a parcel of crops, at
            least 10 m from its edge, else 0.
        seed, index: everything is drawn from them; each index lies in a tile of its own.
        size: pixels of 10 m a side, even.
        dates: every 8 days from 10 April on.
        sensors: ``l8``, ``s2`` or both.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(5, index)))
    zone = ZONES[index % len(ZONES)]
    west, north = sentinel2.tile_corner(3 + 2 * (index // 20 % 3), 42 + 2 * (index // 4 % 5))
    place = Place(32600 + zone, west, north, 10.0)
    corner = Place(place.epsg, west - MARGIN_M, north + MARGIN_M, PIXEL_M)
    ground = round((size * 10.0 + 2 * MARGIN_M) / PIXEL_M)
    draws = [make_world(rng, ground, PIXEL_M, "plain", lake_share=rng.uniform(0.01, 0.04)) for _ in range(DRAWS)]
    world = max(draws, key=lambda draw: float((draw.cover == CROPS).mean()))
    margin = round(MARGIN_M / PIXEL_M)
    fine = parcels(world)[margin : margin + 2 * size, margin : margin + 2 * size]
    inside = fine.reshape(size, 2, size, 2).all((1, 3))
    write_geotiff(out / PARCELS, inside[None].astype(np.uint8), place, None, ("inside of a parcel",))
    tile, path_row = sentinel2.tile_name(zone, west, north), f"{190 + index % 12:03d}{25 + index // 12:03d}"
    clear = optics.clouds(rng, ground, PIXEL_M, 0.0, Sun(50.0, 140.0))
    for number in range(dates):
        day = START + datetime.timedelta(days=STEP_DAYS * number)
        sun = Sun(50.0 + 0.15 * STEP_DAYS * number * (1 - number / 24), 145.0)
        seen = on_day(world, STEP_DAYS * number, float(rng.normal(0, WETNESS_SD)))
        if "s2" in sensors:
            sentinel2.write_sentinel2(
                out, seen, MARGIN_M, place, tile, f"{day:%Y%m%d}T105031", "0500", 8 + index % 130, sun, clear, rng,
                "GTiff",
            )  # fmt: skip
        if "l8" in sensors:
            processed = f"{day + datetime.timedelta(days=7):%Y%m%d}"
            moved = Sun(sun.elevation - 1.5, sun.azimuth - 2)
            landsat8.write_landsat8(out, seen, corner, path_row, f"{day:%Y%m%d}", processed, moved, clear, rng)
    return out


def on_day(world: World, day: float, wetter: float) -> World:
    """The world so many days after the start: each field's crop grows and ripens at its own time."""
    peak = PEAK_DAYS[0] + (PEAK_DAYS[1] - PEAK_DAYS[0]) * np.modf(world.field * 977.0)[0]
    stands = np.exp(-(((day - peak) / PEAK_WIDTH_DAYS) ** 2)).astype(np.float32)
    return replace(world, field=world.field * stands, moisture=np.clip(world.moisture + np.float32(wetter), 0.03, 0.45))


def parcels(world: World) -> np.ndarray:
    """bool (H, W): inside a field of crops, ``EDGE_PX`` and more from any other field or cover."""
    number = np.where(world.cover == CROPS, world.field, np.float32(-1))
    around = {"size": 2 * EDGE_PX + 1, "mode": "nearest"}
    low, high = ndimage.minimum_filter(number, **around), ndimage.maximum_filter(number, **around)
    return (low == high) & (low >= 0)
