"""Simulated sea ice off a mountainous coast: floes, leads, new ice, open water, land, and their C-band backscatter.

The ice cover breaks by repeated fragmentation: large Voronoi floes, of which a share breaks into medium ones, and of
those a share into small ones, with leads between, more of all of it towards the ice edge. Repeated fragmentation gives
the heavy-tailed floe sizes that are observed (H. L. Stern et al., 2018, doi 10.1525/elementa.304).

Sources:
    Incidence slopes in dB per degree: first-year ice -0.25 (HH) and -0.16 (HV), M. Makynen and J. Karvonen (2017, doi
        10.1109/TGRS.2017.2721981); multiyear ice -0.16 (HH), M. S. Mahmud et al. (2018, doi 10.1109/TGRS.2018.2841343).
    Water: CMOD5.N, Vachon and Wolfe (2011) and Thompson et al. (1998), see ``backscatter.py`` and ``radar.py``.
    Levels at 35 degrees, floe sizes, lead widths and the cover of land: chosen, in 0.5 dB steps; the order of
        the classes and their levels are compared with real patches in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from . import backscatter, radar, terrain

WATER, NEW_ICE, LEVEL_FIRST_YEAR, DEFORMED_FIRST_YEAR, MULTIYEAR, SNOW, ROCK = range(7)
# sigma0 in dB at 35 degrees in HH and HV, and slopes in dB per degree
ICE_DB = {
    NEW_ICE: (-21.0, -30.0, -0.25, -0.16), LEVEL_FIRST_YEAR: (-15.5, -25.0, -0.25, -0.16),
    DEFORMED_FIRST_YEAR: (-11.5, -20.0, -0.24, -0.16), MULTIYEAR: (-10.0, -17.0, -0.16, -0.16),
    SNOW: (-6.0, -8.0, -0.10, -0.10), ROCK: (-9.0, -14.0, -0.15, -0.15),
}  # fmt: skip
FLOES_M = (9000.0, 2500.0, 700.0)  # mean size of large, medium and small floes
LEAD_M = (450.0, 200.0, 90.0)  # width of the leads between them, at most
RELIEF_M = 350.0  # standard deviation of the land's heights


@dataclass(frozen=True)
class IceScene:
    """A piece of ice-covered sea with its coast, each (H, W): ``kind`` uint8, ``height_m`` float32, ``share`` float32.

    ``share`` is the ice concentration that the cover tends to at each place (0 open sea, 1 closed ice).
    """

    kind: np.ndarray
    height_m: np.ndarray
    share: np.ndarray


def make_ice(rng: np.random.Generator, size: int, pixel_m: float) -> IceScene:
    """A scene with land on one side, an ice edge across the sea, and floes that get smaller towards it."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / size - 0.5
    along = (x * np.cos(angle) + y * np.sin(angle)).astype(np.float32)
    across = (y * np.cos(angle) - x * np.sin(angle)).astype(np.float32)
    outer = 40_000 / pixel_m
    coast = along + 0.16 * terrain.fractal(rng, size, 3.3, outer) - rng.uniform(0.15, 0.4)
    land = terrain.drop_small(coast > 0, 60)
    mountains = terrain.fractal(rng, size, 3.7, 12_000 / pixel_m)
    rise = 1 - np.exp(-np.maximum(coast, 0) * size * pixel_m / 4000)
    height = np.where(land, rise * np.maximum(400 + RELIEF_M * mountains, 20), 0).astype(np.float32)
    edge = across + 0.12 * terrain.fractal(rng, size, 3.3, outer) - rng.uniform(-0.25, 0.15)
    share = np.clip(0.5 - 4 * edge, 0, 1).astype(np.float32)

    kind = _cover(rng, size, pixel_m, share)
    kind[land] = np.where(height > 120 + 80 * mountains, SNOW, ROCK)[land]  # glaciers reach far down
    return IceScene(kind, height, share)


def _cover(rng: np.random.Generator, size: int, pixel_m: float, share: np.ndarray) -> np.ndarray:
    """Kind of ice or water at each place of the sea."""
    shake = [terrain.fractal(rng, size, 4.2, 5000 / pixel_m) for _ in range(2)]
    rows, columns = (axis.astype(np.float32) * pixel_m for axis in np.mgrid[:size, :size])
    floe = np.zeros((size, size), np.int64)
    gap = np.full((size, size), -np.inf, np.float32)
    broken = np.ones((size, size), bool)
    old_ice = np.clip(rng.normal(0.3, 0.2), 0.02, 0.8)
    numbers = []
    for level, (length, lead) in enumerate(zip(FLOES_M, LEAD_M, strict=True)):
        wobble = 0.18 * length
        places = np.stack([rows + wobble * shake[0], columns + wobble * shake[1]], -1).reshape(-1, 2)
        count = max(6, int((size * pixel_m / length + 2) ** 2))
        seeds = rng.uniform(-length, size * pixel_m + length, (count, 2))
        distance, nearest = cKDTree(seeds).query(places, k=2)
        here = nearest[:, 0].reshape(size, size)
        # half the difference of the distances to the two nearest seeds is about the distance to the border
        border = ((distance[:, 1] - distance[:, 0]) / 2).reshape(size, size).astype(np.float32)
        width = lead * (0.05 + 1.5 * (1 - share) ** 2) * (0.3 + 1.4 * rng.random(count)[here])
        floe = np.where(broken, here + sum(numbers), floe)
        gap = np.where(broken, np.maximum(gap, width - border), gap)
        numbers.append(count)
        if level < 2:
            broken = broken & (rng.random(count)[here] < (0.75, 0.65)[level] * (1.15 - share))
    total = sum(numbers)
    present = rng.random(total)[floe] < 0.1 + 1.1 * share
    sort, age = rng.random(total)[floe], rng.random(total)[floe]
    kind = np.where(age < old_ice, MULTIYEAR, np.where(sort < 0.55, LEVEL_FIRST_YEAR, DEFORMED_FIRST_YEAR))
    frozen = rng.random(total)[floe] < 0.35 * share
    lead = (gap > 0) | ~present
    return np.where(lead, np.where(frozen, NEW_ICE, WATER), np.where(share > 0.02, kind, WATER)).astype(np.uint8)


def backscatter_hh_hv(
    rng: np.random.Generator, scene: IceScene, view: radar.View, pixel_m: float, wind_m_s: float, direction_deg: float
) -> np.ndarray:
    """sigma0 (HH, HV), (2, H, W) float32 linear, at the local incidence."""
    local, _ = radar.local_geometry(scene.height_m, view, pixel_m)
    size = scene.kind.shape[0]
    ridges = np.abs(terrain.fractal(rng, size, 2.2, 3000 / pixel_m))  # bright lines where the field passes zero
    texture = 0.7 * terrain.fractal(rng, size, 1.0) + 1.2 * terrain.fractal(rng, size, 2.6, 4000 / pixel_m)
    out = np.empty((2, size, size), np.float32)
    for band in range(2):
        level = np.zeros((size, size), np.float32)
        for kind, values in ICE_DB.items():
            where = scene.kind == kind
            level[where] = values[band] + values[2 + band] * (local[where] - 35)
        level += texture + np.where((scene.kind == DEFORMED_FIRST_YEAR) & (ridges < 0.06), 4.0, 0)
        out[band] = backscatter.linear(level)
    water = scene.kind == WATER
    wind = radar.wind_field(rng, wind_m_s, ndimage.binary_closing(water), pixel_m)[water]
    incidence = np.broadcast_to(view.incidence_deg(size), water.shape)[water]
    vv, vh = backscatter.open_water(incidence, wind, direction_deg)
    out[0][water], out[1][water] = radar.water_hh(vv, incidence), vh
    return out
