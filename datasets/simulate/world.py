"""One simulated piece of ground, seen by every simulated sensor: terrain, water, drainage, cover, fields.

Terrain is fractal; its depressions hold lakes and its runoff forms rivers (``terrain.py``); the height above the
nearest drainage (HAND) follows the flow down to the channel that each place drains to, as Rennó et al. (2008,
doi 10.1016/j.rse.2008.03.018) define it. Cover follows height, wetness and a fractal mosaic; fields are rectangles.

Every parameter was fixed before any model was trained on the scenes. Those without a source named at the constant are
chosen: they set how varied the ground is, not how a sensor sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from . import terrain

COVERS = ("forest", "crops", "grass", "soil", "built-up", "sand", "water")
FOREST, CROPS, GRASS, SOIL, BUILT_UP, SAND, WATER = range(7)
RELIEF_M = {"plain": 8.0, "hills": 60.0, "mountains": 260.0}  # standard deviation of the heights
OUTER_M = 6000.0  # wavelength above which the terrain carries no more power
DRAINAGE_CELL_M = 40.0  # drainage is computed on cells about so large
MAX_DRAINAGE_CELLS = 512  # a side; larger scenes get larger cells
CHANNEL_KM2 = 1.0  # HAND channels begin where so much area drains; the order of 1 km2 is usual for 30 m DEMs
RIVER_KM2 = 150.0  # rivers wide enough to be water in a 10 m image (7.2 * Q^0.5 m, see terrain.rivers)
LEAST_LAKE_M2 = 3000.0
# Wide ground, on which lakes and dark sand are broader than a chip of 256 pixels of 10 m: the plateau's closed basins.
WIDE_OUTER_M = 24_000.0
WIDE_SAND_M, WIDE_SAND_SHARE, WIDE_SAND_SMOOTH_M = 9000.0, (0.10, 0.25), 250.0


@dataclass(frozen=True)
class World:
    """Layers of one piece of ground, each (H, W).

    Attributes:
        pixel_m: pixel size.
        height_m: float32 surface; lakes are level.
        water: bool.
        hand_m: float32 height above the nearest drainage, 0 in water.
        cover: uint8 index into ``COVERS``.
        field: float32 in 0…1, one number for each field (vigour of its crop).
        bare: bool, fields without a crop.
        moisture: float32 volumetric soil moisture.
        rms_cm: float32 root mean square height of bare soil.
        texture: float32 of mean 0 and standard deviation 1, small-scale variation within a cover.
        turbidity: float32 in 0…1, one number for each water body.
    """

    pixel_m: float
    height_m: np.ndarray
    water: np.ndarray
    hand_m: np.ndarray
    cover: np.ndarray
    field: np.ndarray
    bare: np.ndarray
    moisture: np.ndarray
    rms_cm: np.ndarray
    texture: np.ndarray
    turbidity: np.ndarray

    @property
    def size(self) -> int:
        """Pixels a side."""
        return self.height_m.shape[0]


def make_world(
    rng: np.random.Generator,
    size: int,
    pixel_m: float,
    relief: str,
    lake_share: float,
    farmed: bool = True,
    wide: bool = False,
) -> World:
    """A world from a random source.

    Args:
        rng: everything is drawn from it.
        size: pixels a side.
        pixel_m: pixel size in metres.
        relief: a key of ``RELIEF_M``.
        lake_share: share of the ground that lakes cover, where the depressions are deep enough.
        farmed: with fields and settlements; otherwise grass, bare ground and sand (high plateaus).
        wide: terrain with power up to ``WIDE_OUTER_M``, so that lakes get kilometres wide, and one sheet of sand of
            such a size, which levels the ground that it covers.
    """
    whole = -(-size // 16) * 16
    factor = _factor(whole, pixel_m)
    whole = -(-whole // factor) * factor
    exponent = {"plain": 3.8, "hills": 3.9, "mountains": 4.0}[relief]
    height = terrain.fractal(rng, whole, exponent, outer_px=(WIDE_OUTER_M if wide else OUTER_M) / pixel_m)
    height = RELIEF_M[relief] * (height + np.linspace(1.5, 0, whole, dtype=np.float32)[:, None])
    height, water, hand = _drainage(rng, height, factor, pixel_m, lake_share)
    cut = np.s_[:size, :size]
    height, water, hand = height[cut], water[cut], hand[cut]
    cover, field, bare = _cover(rng, size, pixel_m, height, hand, water, farmed)
    if wide:
        height = _sand_sheet(rng, pixel_m, height, hand, water, cover)
    moisture = 0.18 + 0.05 * terrain.fractal(rng, size, 3.0, 2000 / pixel_m) + 0.08 * np.exp(-hand / 3)
    rms = np.clip(1.1 + 0.5 * terrain.fractal(rng, size, 2.5, 800 / pixel_m), 0.4, 3.0)
    rms = np.where(cover == CROPS, 0.8 + 1.2 * field, np.where(cover == SAND, 0.2, rms))
    bodies, number = ndimage.label(water)
    turbidity = rng.random(number + 1, dtype=np.float32)[bodies]
    return World(
        pixel_m, height.astype(np.float32), water, hand.astype(np.float32), cover, field, bare,
        np.where(cover == SAND, 0.03, np.clip(moisture, 0.05, 0.4)).astype(np.float32), rms.astype(np.float32),
        terrain.fractal(rng, size, 1.2, 60 / pixel_m), turbidity,
    )  # fmt: skip


def _factor(size: int, pixel_m: float) -> int:
    return max(1, round(DRAINAGE_CELL_M / pixel_m), -(-size // MAX_DRAINAGE_CELLS))


def _drainage(
    rng: np.random.Generator, height: np.ndarray, factor: int, pixel_m: float, lake_share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height with level lakes, water, and HAND."""
    rows = height.shape[0] // factor
    coarse = height.reshape(rows, factor, rows, factor).mean((1, 3))
    filled, receiver, order = terrain.drain(coarse)
    cell_km2 = (factor * pixel_m / 1000) ** 2
    supply = np.full(coarse.shape, cell_km2)
    middle = slice(rows // 4, rows - rows // 4)
    supply[0, middle.start + int(np.argmin(filled[0, middle]))] += 10 ** rng.uniform(2.7, 4.5)  # a river from outside
    flow = terrain.accumulate(receiver, order, supply)
    least = max(4, round(LEAST_LAKE_M2 / pixel_m**2))
    depth = filled - coarse
    drop = max(float(np.quantile(depth, 1 - lake_share)), 0.3)
    level = np.where(depth > 0, filled - drop, -np.inf)
    level = np.repeat(np.repeat(level, factor, 0), factor, 1)
    lakes = terrain.drop_small(level > height, least)
    channels = terrain.rivers(receiver, flow, coarse.shape, factor, rng, pixel_m, least_km2=RIVER_KM2)
    water = terrain.drop_small(lakes | channels, least)
    height = np.where(water & np.isfinite(level) & (level > height), level, height)
    share = water.reshape(rows, factor, rows, factor).mean((1, 3))
    hand = _hand(coarse, receiver, order, (flow.reshape(coarse.shape) >= CHANNEL_KM2) | (share > 0.5))
    base = np.repeat(np.repeat(hand, factor, 0), factor, 1)
    return height, water, np.where(water, 0, np.maximum(height - base, 0))


def _hand(height: np.ndarray, receiver: np.ndarray, order: np.ndarray, drainage: np.ndarray) -> np.ndarray:
    """Height of the drainage cell that each cell flows to, (H, W); outlets count as drainage."""
    source = np.arange(height.size)
    stop, targets = drainage.ravel().tolist(), receiver.tolist()
    nearest = source.tolist()
    for cell in order.tolist():  # from the outlets upstream: a cell's receiver is done before it
        if not stop[cell] and targets[cell] != cell:
            nearest[cell] = nearest[targets[cell]]
    return height.ravel()[np.array(nearest)].reshape(height.shape)


def _cover(
    rng: np.random.Generator,
    size: int,
    pixel_m: float,
    height: np.ndarray,
    hand: np.ndarray,
    water: np.ndarray,
    farmed: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cover, field number and bare fields: crops low and near rivers, forest high, sand in patches."""
    low = np.exp(-hand / 10)
    scores = [rng.normal(0, 0.5) + terrain.fractal(rng, size, 3.0, 1500 / pixel_m) for _ in range(4)]
    scores[FOREST] = scores[FOREST] + 0.4 * (height - height.mean()) / (height.std() + 1e-6)
    scores[CROPS] = scores[CROPS] + low
    if not farmed:
        scores[FOREST], scores[CROPS] = (np.full((size, size), -9.0, np.float32) for _ in range(2))
    cover = np.argmax(scores, 0).astype(np.uint8)
    field, kind = fields(rng, size, pixel_m)
    bare = (kind < 0.3) & (cover == CROPS)
    sand = terrain.fractal(rng, size, 3.4, 1600 / pixel_m) + 0.6 * low
    cover[sand > np.quantile(sand, 1 - rng.uniform(0.01, 0.06 if farmed else 0.12))] = SAND
    if farmed:
        town = terrain.fractal(rng, size, 3.0, 900 / pixel_m)
        cover[town > np.quantile(town, 1 - rng.uniform(0.002, 0.02))] = BUILT_UP
    cover[water] = WATER
    return cover, field, bare & (cover == CROPS)


def _sand_sheet(
    rng: np.random.Generator, pixel_m: float, height: np.ndarray, hand: np.ndarray, water: np.ndarray, cover: np.ndarray
) -> np.ndarray:
    """Mark low ground as sand, in place, over a share of the scene; the height with that ground levelled."""
    size = height.shape[0]
    score = terrain.fractal(rng, size, 4.0, WIDE_SAND_M / pixel_m) + 0.6 * np.exp(-hand / 10)
    dry = ~water
    sand = dry & (score > np.quantile(score[dry], 1 - rng.uniform(*WIDE_SAND_SHARE)))
    sand = terrain.drop_small(sand, round(LEAST_LAKE_M2 * 10 / pixel_m**2)) & dry
    cover[sand] = SAND
    edge = np.clip(ndimage.distance_transform_edt(sand) * pixel_m / WIDE_SAND_SMOOTH_M, 0, 1)
    level = ndimage.gaussian_filter(height, WIDE_SAND_SMOOTH_M / pixel_m, mode="nearest")
    return (height + edge * (level - height)).astype(np.float32)


def fields(rng: np.random.Generator, size: int, pixel_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Rectangular fields of 2 to 40 ha: two random numbers in 0…1 for each, (size, size) float32."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size].astype(np.float32) * np.float32(pixel_m)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    strip = np.floor(across / rng.uniform(140, 400)).astype(int) % 997
    plot = np.floor((along + rng.uniform(0, 1000, 997)[strip]) / rng.uniform(250, 800)).astype(int) % 991
    return tuple(rng.random((997, 991), dtype=np.float32)[strip, plot] for _ in range(2))
