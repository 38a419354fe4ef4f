"""Simulated Sentinel-1 scenes of a high plateau in both orbits, with their water as polygons.

Layout and values as the Tibet-Water-2020 scenes: ``s1_ascend/scene01_s1_as.tif`` and ``s1_descend/scene01_s1_des.tif``
hold VV and VH in dB (float32, 10 m, UTM, 0 = no data) on one grid, ``s1_truth/scene01_truth.gpkg`` the water. The two
orbits look from opposite sides: a slope in layover in one lies in the open, or in shadow, in the other. Scenes of the
published split 01-07 (validation) and 08-39 (training) come in that proportion.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np

from . import backscatter, radar
from .rasters import Place, polygons_of, write_geotiff, write_polygons
from .world import World, make_world

PIXEL_M = 10.0
PUBLISHED, PUBLISHED_VALIDATION = 39, 7
SWATH_DEG, SWATH_M = (29.1, 46.0), 250_000.0  # IW, S1-RS-MDA-52-7440
RESOLUTION_M = 20.0  # IW GRDH: 20 m x 22 m
NODATA = np.float32(0)


def scene_numbers(scenes: int) -> list[int]:
    """Numbers of the published split for so many scenes: validation first, at least one where there are two."""
    validation = min(PUBLISHED_VALIDATION, max(1, round(scenes * PUBLISHED_VALIDATION / PUBLISHED)))
    if scenes == 1:
        return [8]
    return [*range(1, validation + 1), *range(8, 8 + scenes - validation)]


def simulate_tibet_water(out: Path, seed: int, scenes: int, size: int, wide: bool = False) -> list[Path]:
    """Write so many scenes of ``size`` pixels a side; the scenes with numbers 3, 13, 23… miss one orbit.

    ``wide``: with lakes, and look-alikes of dry sand, that are broader than a window of 256 pixels.
    """
    written = []
    for number in scene_numbers(scenes):
        written += _scene(Path(out), seed, number, size, wide)
    return written


def _scene(out: Path, seed: int, number: int, size: int, wide: bool) -> list[Path]:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, number)))
    relief = "mountains" if number % 3 else "hills"
    world = make_world(rng, size, PIXEL_M, relief, lake_share=rng.uniform(0.05, 0.25), farmed=False, wide=wide)
    # 27 to 35 N in zones 44 to 46: scenes 90 km apart never share ground
    column = number // 5
    west = 250_000.0 + 180_000 * (column // 3 % 3) + 90_000 * (column // 9 % 2)
    north = 3_900_000.0 - 200_000 * (number % 5)
    place = Place(32644 + column % 3, west, north, PIXEL_M)
    date = datetime.date(2020, 1, 1) + datetime.timedelta(days=int(rng.integers(366)))
    written = []
    missing = rng.integers(2) if number % 10 == 3 else 2
    for index, (folder, code, east) in enumerate((("s1_ascend", "as", True), ("s1_descend", "des", False))):
        image, tags = _pass(world, rng, east)
        if index == missing:
            continue
        path = out / folder / f"scene{number:02d}_s1_{code}.tif"
        day = (date + datetime.timedelta(days=int(rng.integers(12)))).isoformat()
        write_geotiff(path, image, place, None, ("VV", "VH"), {**tags, "ACQUISITION_DATE": day, "UNIT": "dB"})
        written.append(path)
    truth = out / "s1_truth" / f"scene{number:02d}_truth.gpkg"
    outlines = polygons_of(world.water, place)
    write_polygons(truth, outlines, {"kind": ["water"] * len(outlines)}, f"EPSG:{place.epsg}", date.isoformat())
    return [*written, truth]


def _pass(world: World, rng: np.random.Generator, east: bool) -> tuple[np.ndarray, dict[str, str]]:
    """One pass: (2, H, W) float32 in dB and its metadata."""
    near = rng.uniform(SWATH_DEG[0], SWATH_DEG[1] - 3)
    far = near + (SWATH_DEG[1] - SWATH_DEG[0]) * world.size * PIXEL_M / SWATH_M
    view = radar.View(near, far, east)
    noise_db = backscatter.NOISE_FLOOR_DB - rng.uniform(0, 4)
    local, _ = radar.local_geometry(world.height_m, view, PIXEL_M)
    sigma0 = radar.ground_c(world, local, rng.normal(-2.0, 1.0))  # sparse, dry ground: below temperate covers
    wind_m_s = rng.uniform(1.5, 8.0)
    wind = radar.wind_field(rng, wind_m_s, world.water, PIXEL_M)[world.water]
    incidence = np.broadcast_to(view.incidence_deg(world.size), world.water.shape)[world.water]
    for band, value in zip(sigma0, backscatter.open_water(incidence, wind, rng.uniform(0, 360)), strict=True):
        band[world.water] = value
    power, _, _ = radar.image(
        sigma0, world.height_m, view, PIXEL_M, rng, backscatter.LOOKS_IW_GRDH, noise_db, RESOLUTION_M
    )
    image = backscatter.decibel(power).astype(np.float32)
    image[image == NODATA] = np.nextafter(NODATA, np.float32(1))  # 0 dB is data, 0 is not
    image[:, _beyond_swath(rng, world.size)] = NODATA
    tags = {
        "ORBIT_PASS": "ASCENDING" if east else "DESCENDING", "NEAR_INCIDENCE_DEG": f"{near:.3f}",
        "NOISE_FLOOR_DB": f"{noise_db:.2f}", "WIND_M_S": f"{wind_m_s:.2f}",
    }  # fmt: skip
    return image, tags


def _beyond_swath(rng: np.random.Generator, size: int) -> np.ndarray:
    """Pixels beyond an oblique swath edge, in a third of the passes."""
    depth, right, angle = rng.uniform(0.05, 0.35) * size, rng.random() < 0.5, np.deg2rad(rng.uniform(8, 14))
    y, x = np.mgrid[:size, :size]
    oblique = x * np.cos(angle) + y * np.sin(angle)
    cut = oblique > oblique[-1, -1] - depth if right else oblique < depth
    return cut if rng.random() < 1 / 3 else np.zeros((size, size), bool)
