"""Raw Sentinel-1-like scenes with their true water, from one seed.

A scene is a fractal terrain whose depressions hold lakes and whose runoff forms rivers, under a land cover of forest,
crops, grass, bare soil, settlements and smooth dry sand, as a C-band radar with Sentinel-1's IW geometry would map it
(``backscatter.py`` names the models). What makes it hard is meant to be there: wind that roughens water until it is
as bright as land in VV, sand and radar shadow as dark as water, speckle, mixed shore pixels, wedges without data.
It is not made there: displacement by layover (scenes count as terrain corrected), flooded vegetation, boats, ice.

Every parameter was fixed before any model was trained on the scenes.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from . import backscatter, terrain

PIXEL_M = 10.0
COARSE = 4  # the drainage is computed on blocks of so many pixels
MAX_SIZE_PX = 4096
NODATA = 0.0  # as SNAP's terrain correction writes it; no valid pixel has exactly 0 dB
INCIDENCE_PER_PX = (46.0 - 29.1) / (250_000 / PIXEL_M)  # IW: 29.1 to 46 degrees over 250 km
SPACING_M = 250_000  # between the origins of scenes in one UTM zone: they never share ground
RELIEF_M = {"plain": 8.0, "hills": 70.0, "mountains": 230.0}  # standard deviation of the heights
LEAST_RIVER_KM2 = 200.0  # its river is 10 m wide: one pixel
COVERS = ("forest", "crops", "grass", "soil")


@dataclass(frozen=True)
class SceneInfo:
    """What a scene was made of. ``shares`` are of all pixels; angles in degrees, wind in m/s."""

    id: str
    date: str
    epsg: int
    origin: tuple[float, float]
    size: int
    relief: str
    orbit: str
    incidence_deg: float
    wind_m_s: float
    wind_direction_deg: float
    noise_floor_db: float
    looks: float
    shares: dict[str, float]

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine of the scene's grid in its CRS (UTM north, metres)."""
        return (PIXEL_M, 0.0, self.origin[0], 0.0, -PIXEL_M, self.origin[1])

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**asdict(self), "origin": list(self.origin)}


def simulate_scene(seed: int, index: int, size: int, looks: float) -> tuple[np.ndarray, np.ndarray, SceneInfo]:
    """One scene, independent of how many others there are.

    Args:
        seed: of the whole set.
        index: number of the scene in it; kinds of relief alternate.
        size: side in pixels of 10 m, a multiple of 4.
        looks: equivalent number of looks of the speckle.

    Returns:
        backscatter: (2, size, size) float32 in dB, VV and VH; 0 where there is no data.
        water: (size, size) bool, also under the wedges without data.
        info: what the scene was made of.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    relief = tuple(RELIEF_M)[index % len(RELIEF_M)]
    ascending, wind = bool(rng.integers(2)), rng.uniform(1.5, 9.0)
    near_deg, wind_direction = rng.uniform(30, 45), rng.uniform(0, 360)
    noise_floor_db = backscatter.NOISE_FLOOR_DB - rng.uniform(0, 4)
    date = datetime.date(2021, 1, 1) + datetime.timedelta(days=int(rng.integers(730)))

    height = RELIEF_M[relief] * _height(rng, size, relief)
    water = _water(rng, height)
    ramp = near_deg + INCIDENCE_PER_PX * np.arange(size)
    incidence = np.broadcast_to(ramp if ascending else ramp[::-1], height.shape)
    facing = (height, incidence) if ascending else (height[:, ::-1], incidence[:, ::-1])
    local, shadow = backscatter.local_incidence(*facing, PIXEL_M)
    local, shadow = (local, shadow) if ascending else (local[:, ::-1], shadow[:, ::-1])

    sand, smoothness = _sand(rng, height)
    land = _land(rng, size, local, sand, smoothness)
    area = np.sin(np.deg2rad(incidence)) / np.sin(np.deg2rad(local))  # slopes facing the radar return more
    local_wind = _wind(rng, wind, water)
    surface = backscatter.open_water(incidence[water], local_wind[water], wind_direction)
    bands = []
    for on_land, on_water in zip(land, surface, strict=True):
        sigma0 = np.where(shadow, 0, on_land * area)
        sigma0[water] = on_water
        bands.append(backscatter.observe(sigma0, rng, looks, noise_floor_db))
    empty = _wedge(rng, size)
    image = np.stack(bands)
    image[image == NODATA] = np.nextafter(np.float32(NODATA), np.float32(1))
    image[:, empty] = NODATA

    dry = ~water & ~empty
    shares = {
        "water": float((water & ~empty).mean()), "dark sand": float((sand & dry & ~shadow).mean()),
        "radar shadow": float((shadow & dry).mean()), "no data": float(empty.mean()),
    }  # fmt: skip
    info = SceneInfo(
        id=f"{index:03d}", date=date.isoformat(), epsg=32631 + index // 20 % 30,
        origin=(300_000.0 + PIXEL_M * int(rng.integers(15_000)), 5_600_000.0 - SPACING_M * (index % 20)),
        size=size, relief=relief, orbit="ascending" if ascending else "descending",
        incidence_deg=round(near_deg, 3), wind_m_s=round(wind, 3), wind_direction_deg=round(wind_direction, 2),
        noise_floor_db=round(noise_floor_db, 3), looks=looks, shares={k: round(v, 6) for k, v in shares.items()},
    )  # fmt: skip
    return image, water, info


def _height(rng: np.random.Generator, size: int, relief: str) -> np.ndarray:
    """(size, size) float32, standard deviation about 1: rough mountains, smooth plains, tilted to the south."""
    exponent = {"plain": 3.8, "hills": 3.9, "mountains": 4.1}[relief]
    tilt = np.linspace(1.5, 0, size, dtype=np.float32)[:, None]
    return terrain.fractal(rng, size, exponent, outer_px=600) + tilt


def _water(rng: np.random.Generator, height: np.ndarray) -> np.ndarray:
    """Lakes over a random share of the scene, its own streams, and one river that enters from outside."""
    size = height.shape[0]
    coarse = height.reshape(size // COARSE, COARSE, -1, COARSE).mean((1, 3))
    filled, receiver, order = terrain.drain(coarse)
    cell_km2 = (COARSE * PIXEL_M / 1000) ** 2
    supply = np.full(coarse.shape, cell_km2)
    share, inflow_km2 = rng.uniform(0.03, 0.22), 10 ** rng.uniform(2.7, 4.7)
    middle = slice(coarse.shape[1] // 4, -(coarse.shape[1] // 4))
    supply[0, middle.start + int(np.argmin(filled[0, middle]))] += inflow_km2
    flow = terrain.accumulate(receiver, order, supply)
    channels = terrain.rivers(receiver, flow, coarse.shape, COARSE, rng, PIXEL_M, least_km2=LEAST_RIVER_KM2)
    return terrain.drop_small(terrain.lakes(height, coarse, filled, share, 12) | channels, 12)


def _wind(rng: np.random.Generator, wind_m_s: float, water: np.ndarray) -> np.ndarray:
    """Wind over the water: gusts of kilometres, and shelter within some 300 m of the shore, where rivers lie wholly."""
    gusts = np.exp(0.2 * terrain.fractal(rng, water.shape[0], 3.0, outer_px=300))
    fetch_m = PIXEL_M * ndimage.distance_transform_edt(water)
    return wind_m_s * gusts * (0.45 + 0.55 * (1 - np.exp(-fetch_m / 300)))


def _sand(rng: np.random.Generator, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smooth dry sand in low places: where it lies, and a measure above 0 that grows towards its smooth middle."""
    size = height.shape[0]
    score = terrain.fractal(rng, size, 3.4, outer_px=160) - 0.5 * (height - height.mean()) / height.std()
    score = score - np.quantile(score, 1 - rng.uniform(0.02, 0.16))
    return score > 0, np.maximum(score, 0)


def _land(
    rng: np.random.Generator, size: int, local_deg: np.ndarray, sand: np.ndarray, smoothness: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """sigma0 (VV, VH) of dry land, linear, (size, size) each."""
    scores = [rng.normal(0, 0.7) + terrain.fractal(rng, size, 3.2, outer_px=120) for _ in COVERS]
    cover = np.argmax(scores, axis=0)
    moisture = np.clip(rng.uniform(0.08, 0.25) + 0.05 * terrain.fractal(rng, size, 3.0, outer_px=200), 0.03, 0.4)
    rms_cm = np.clip(1.1 + 0.5 * terrain.fractal(rng, size, 2.5, outer_px=80), 0.4, 3.0)
    field, bare, sown = _fields(rng, size)
    in_field = cover == COVERS.index("crops")
    is_soil = (cover == COVERS.index("soil")) | in_field & bare
    # Sown fields are rolled smooth and dry at the surface: small dark rectangles.
    rms_cm = np.where(in_field, np.where(sown, 0.35, 0.8 + 1.2 * field), rms_cm)
    rms_cm = np.where(sand, 0.15 + 0.4 * np.exp(-smoothness / 0.25), rms_cm)
    moisture = np.where(sand, 0.02, np.where(in_field & sown, 0.05, moisture))
    bands = list(backscatter.bare_soil(local_deg, rms_cm, moisture))
    vigour = backscatter.linear(rng.normal(0, 0.7) + np.where(in_field, 4 * (field - 0.5), 0))
    for name in ("forest", "crops", "grass"):
        where = (cover == COVERS.index(name)) & ~is_soil & ~sand
        for band, value in zip(bands, backscatter.vegetation(name, local_deg), strict=True):
            band[where] = (value * vigour)[where]
    town = terrain.fractal(rng, size, 3.2, outer_px=90)
    town = (town > np.quantile(town, 1 - rng.uniform(0, 0.02))) & ~sand
    strong = backscatter.linear(3 * rng.exponential(1, (size, size)) - 3)  # single houses outshine their surroundings
    texture = backscatter.linear(terrain.fractal(rng, size, 1.5))  # 1 dB
    for band, value in zip(bands, backscatter.vegetation("built-up", local_deg), strict=True):
        band[town] = (value * strong)[town]
        band *= texture
    return bands[0], bands[1]


def _fields(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mosaic of rectangular fields: a number in 0…1 for each, whether it is bare, and whether freshly sown."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    strip = np.floor(across / rng.uniform(14, 40)).astype(int) % 997
    shift = rng.uniform(0, 100, 997)
    plot = np.floor((along + shift[strip]) / rng.uniform(25, 80)).astype(int) % 991
    number, kind = (rng.random((997, 991), dtype=np.float32)[strip, plot] for _ in range(2))
    return number, kind < 0.3, kind < 0.06


def _wedge(rng: np.random.Generator, size: int) -> np.ndarray:
    """Pixels beyond the swath, whose edge runs oblique to the grid: in half of the scenes, at one side or both."""
    depth, side, angle = rng.uniform(0.02, 0.25, 2) * size, rng.integers(3), np.deg2rad(rng.uniform(8, 14))
    y, x = np.mgrid[:size, :size]
    oblique = x * np.cos(angle) + y * np.sin(angle)
    left, right = oblique < depth[0], oblique > oblique[-1, -1] - depth[1]
    wanted = (left, right, left | right)[side]
    return wanted if rng.random() < 0.5 else np.zeros((size, size), bool)
