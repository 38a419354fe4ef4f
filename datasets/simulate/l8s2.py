"""Simulated pairs of Landsat-8 and Sentinel-2 over the same ground, at most a day apart, one Sentinel-2 tile each."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import rasterio

from . import landsat8, optics, sentinel2
from .optics import Sun
from .rasters import Place
from .world import make_world

PIXEL_M = 5.0  # the ground is finer than the finest sensor: Sentinel-2 pixels are mixed, too
MARGIN_M = 300.0  # ground around the Sentinel-2 scene: the two registrations differ, Landsat's grid is its own
RELIEFS = ("plain", "hills", "mountains")
BASELINES = ("0301", "0400", "0500", "0509")  # without and with the offset of baseline 04.00
ZONES = (30, 31, 32, 33)


def corner_of(index: int) -> tuple[int, float, float]:
    """UTM zone, west and north of a scene: each has a 100 km square of its own, so that they never share ground."""
    column, row = 3 + 2 * (index // 20 % 3), 42 + 2 * (index // 4 % 5) + index // 60 % 2
    return ZONES[index % len(ZONES)], *sentinel2.tile_corner(column, row)


def simulate_l8s2(out: Path, seed: int, scenes: int, size: int, driver: str | None = None) -> list[Path]:
    """Write so many pairs of ``size`` Sentinel-2 pixels a side, a multiple of 2; every pair lies in a tile of its own.

    Args:
        out: folder for the ``.SAFE``, ``LC08_L2SP_…`` and ``LC08_L1TP_…`` folders.
        seed: everything is drawn from it and the pair's number.
        scenes: pairs.
        size: pixels of 10 m.
        driver: of the Sentinel-2 bands, JP2OpenJPEG or GTiff; by default the first that GDAL has here.
    """
    if driver is None:
        with rasterio.Env() as environment:
            driver = "JP2OpenJPEG" if "JP2OpenJPEG" in environment.drivers() else "GTiff"
    written = []
    for index in range(scenes):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(4, index)))
        zone, west, north = corner_of(index)
        place = Place(32600 + zone, west, north, 10.0)
        corner = Place(place.epsg, west - MARGIN_M, north + MARGIN_M, PIXEL_M)
        ground = round((size * 10.0 + 2 * MARGIN_M) / PIXEL_M)
        world = make_world(rng, ground, PIXEL_M, RELIEFS[index % 3], lake_share=rng.uniform(0.01, 0.08))
        day = datetime.date(2021, 5, 1) + datetime.timedelta(days=int(rng.integers(120)))
        later = day + datetime.timedelta(days=int(rng.integers(2)))
        sun = Sun(rng.uniform(45, 62), rng.uniform(130, 155))
        cloudy = rng.uniform(0.03, 0.2, 2) * (rng.random(2) < 0.4)
        skies = [optics.clouds(rng, ground, PIXEL_M, cover, sun) for cover in cloudy]
        tile = sentinel2.tile_name(zone, west, north)
        baseline = BASELINES[index % len(BASELINES)]
        time = f"{day:%Y%m%d}T10{int(rng.integers(10, 59)):02d}{int(rng.integers(10, 59)):02d}"
        orbit = 8 + index % 130
        written.append(
            sentinel2.write_sentinel2(
                out, world, MARGIN_M, place, tile, time, baseline, orbit, sun, skies[0], rng, driver
            )
        )
        path_row = f"{190 + index % 12:03d}{25 + index // 12:03d}"
        processed = f"{later + datetime.timedelta(days=7):%Y%m%d}"
        beyond = rng.uniform(0.1, 0.3) if index % 5 == 4 else 0.0
        moved = Sun(sun.elevation - 1.5, sun.azimuth - 2)  # Landsat passes some ten minutes earlier
        written += landsat8.write_landsat8(
            out, world, corner, path_row, f"{later:%Y%m%d}", processed, moved, skies[1], rng, beyond
        )
    return written
