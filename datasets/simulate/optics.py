"""What optical sensors see of a simulated world: surface reflectance, mixed pixels, clouds and shadows, noise.

Sources:
    Spectra of vegetation: PROSAIL (S. Jacquemoud et al., 2009, doi 10.1016/j.rse.2008.01.026), run once with the Python
        package prosail 2.0.5: (N, Cab, Car, Cbrown, Cw, Cm, LAI, mean leaf angle, soil brightness, dry share)
        forest 1.8 50 10 0.15 0.015 0.010 5 60 0.7 0.3, crops 1.5 45 9 0 0.018 0.004 4 50 0.8 0.5,
        grass 1.5 30 8 0.3 0.010 0.005 1.8 60 0.9 0.7, dry grass 2.0 10 5 1.0 0.004 0.006 1.0 60 1.0 1.0; hot spot 0.1,
        sun 40 degrees from the zenith, seen from above; averaged over Sentinel-2A's bands.
    Spectra of soil: the dry and the wet soil that PROSAIL brings.
    Water, roofs and sand: chosen, inside the range of the real chips that the tests compare with.
    Error of surface reflectance: 0.005 + 0.05 rho, the Landsat specification in E. Vermote et al. (2016),
        doi 10.1016/j.rse.2016.04.008, taken as two standard deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from . import terrain
from .world import BUILT_UP, CROPS, FOREST, GRASS, SAND, SOIL, WATER, World

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
SPECTRA = {
    "forest": (0.0171, 0.0356, 0.0141, 0.3972, 0.1674, 0.0587),
    "crops": (0.0211, 0.0450, 0.0173, 0.5182, 0.1919, 0.0698),
    "grass": (0.0374, 0.0660, 0.0448, 0.3522, 0.2580, 0.1411),
    "dry grass": (0.0984, 0.1391, 0.1461, 0.3951, 0.4278, 0.3144),
    "dry soil": (0.2314, 0.2638, 0.3177, 0.4129, 0.5090, 0.4943),
    "wet soil": (0.0252, 0.0286, 0.0384, 0.0724, 0.1571, 0.1129),
    "roofs": (0.1000, 0.1200, 0.1400, 0.2200, 0.2600, 0.2300),
    "clear water": (0.0300, 0.0280, 0.0150, 0.0060, 0.0040, 0.0030),
    "turbid water": (0.0600, 0.1000, 0.1000, 0.0500, 0.0120, 0.0080),
}
CLOUD = np.array((0.75, 0.75, 0.76, 0.78, 0.50, 0.35), np.float32)  # thick water clouds; ice and water absorb in SWIR
SHADOW_LIGHT = np.array((0.45, 0.38, 0.33, 0.25, 0.2, 0.18), np.float32)  # skylight left in a cloud's shadow; chosen
SKYLIGHT = 0.2  # share of the light that does not depend on the slope; chosen
CLOUD_HEIGHT_M = 1500.0  # fair-weather cumulus; chosen


@dataclass(frozen=True)
class Sun:
    """Where the sun stands, in degrees; azimuth from north over east."""

    elevation: float
    azimuth: float


@dataclass(frozen=True)
class Sky:
    """Clouds over a world, each (H, W): ``opacity`` float32 in 0…1, ``shadow`` float32 in 0…1."""

    opacity: np.ndarray
    shadow: np.ndarray


def reflectance(world: World, sun: Sun) -> np.ndarray:
    """Surface reflectance in Sentinel-2A's bands, (6, H, W) float32, lit by the sun on the slopes."""
    dry = np.clip((0.35 - world.moisture) / 0.3, 0, 1) * 0.7
    vigour = np.clip(0.25 + 0.75 * world.field + 0.08 * world.texture, 0, 1)
    green = np.clip(0.65 + 0.15 * world.texture - 1.5 * (dry - 0.4), 0, 1)
    in_field = (world.cover == CROPS) & ~world.bare
    light = _illumination(world, sun)
    out = np.empty((6, world.size, world.size), np.float32)
    for band, values in enumerate(zip(*SPECTRA.values(), strict=True)):
        rho = dict(zip(SPECTRA, values, strict=True))
        soil = rho["wet soil"] + dry * (rho["dry soil"] - rho["wet soil"])
        layer = np.where(in_field, soil + vigour * (rho["crops"] - soil), soil)
        layer = np.where(world.cover == GRASS, rho["dry grass"] + green * (rho["grass"] - rho["dry grass"]), layer)
        for cover, name in ((FOREST, "forest"), (BUILT_UP, "roofs"), (SAND, "dry soil")):
            layer = np.where(world.cover == cover, rho[name] * (1.0 if cover != SAND else 0.85), layer)
        layer = layer * light * (1 + np.where(world.cover == BUILT_UP, 0.25, 0.06) * world.texture)
        lake = rho["clear water"] + world.turbidity**2 * (rho["turbid water"] - rho["clear water"])
        out[band] = np.maximum(np.where(world.cover == WATER, lake, layer), 0.001)
    return out


def bare_ground(world: World) -> np.ndarray:
    """(H, W) bool: soil, sand, bare fields and settlements."""
    return np.isin(world.cover, (SOIL, SAND, BUILT_UP)) | world.bare


def _illumination(world: World, sun: Sun) -> np.ndarray:
    """Light on each slope relative to flat ground."""
    down, right = np.gradient(world.height_m, world.pixel_m)
    zenith, azimuth = np.deg2rad(90 - sun.elevation), np.deg2rad(sun.azimuth)
    # the normal is (-dz/dx, -dz/dy, 1) with y to the north: rows run south
    facing = np.cos(zenith) + np.sin(zenith) * (-right * np.sin(azimuth) + down * np.cos(azimuth))
    direct = np.maximum(facing, 0) / np.sqrt(1 + right**2 + down**2) / np.cos(zenith)
    return (SKYLIGHT + (1 - SKYLIGHT) * direct).astype(np.float32)


def clouds(rng: np.random.Generator, size: int, pixel_m: float, cover: float, sun: Sun) -> Sky:
    """Cumulus over ``cover`` of the ground, with the shadows they throw."""
    if cover <= 0:
        return Sky(*np.zeros((2, size, size), np.float32))
    reach = round(CLOUD_HEIGHT_M / np.tan(np.deg2rad(sun.elevation)) / pixel_m)
    whole = terrain.fractal(rng, size + 2 * reach, 3.5, 3000 / pixel_m)
    thick = np.clip((whole - np.quantile(whole, 1 - cover)) / 0.5, 0, 1) ** 0.7
    away = np.deg2rad(sun.azimuth)
    # a shadow lies on the side away from the sun: the cloud above a place lies towards the sun
    rows, columns = reach - round(reach * np.cos(away)), reach + round(reach * np.sin(away))
    shadow = thick[rows : rows + size, columns : columns + size]
    return Sky(thick[reach : reach + size, reach : reach + size], shadow * (shadow > 0.05))


def through_sky(surface: np.ndarray, sky: Sky) -> np.ndarray:
    """What is left of (6, H, W) reflectance under clouds and in their shadow."""
    shaded = surface * (1 + sky.shadow * (SHADOW_LIGHT[:, None, None] - 1))
    return shaded + sky.opacity * (CLOUD[:, None, None] - shaded)


def correction_error(rng: np.random.Generator, surface: np.ndarray, pixel_m: float) -> np.ndarray:
    """(C, H, W) float32 with the errors of an atmospheric correction: an offset for each band and a slow variation."""
    size = surface.shape[1]
    slow = terrain.fractal(rng, size, 3.6, 10_000 / pixel_m)
    haze = np.linspace(1, 0.3, len(surface), dtype=np.float32)[:, None, None] * (0.4 * slow)  # aerosols: mostly blue
    offset = rng.standard_normal((len(surface), 1, 1)).astype(np.float32)
    return surface + (0.005 + 0.05 * surface) / 2 * (0.8 * offset + haze)


def resample(
    layer: np.ndarray,
    pixel_m: float,
    origin_m: tuple[float, float],
    target_m: float,
    shape: tuple[int, int],
    sigma_m: float,
) -> np.ndarray:
    """A (H, W) layer as a sensor samples it: blurred by a Gaussian point spread, then read at its pixels' centres.

    Args:
        layer: at ``pixel_m``.
        pixel_m: pixel of the layer.
        origin_m: how far the sensor's grid starts south and east of the layer's, in metres.
        target_m: pixel of the sensor.
        shape: rows and columns of the sensor's grid; beyond the layer its edge is repeated.
        sigma_m: standard deviation of the point spread.
    """
    blurred = ndimage.gaussian_filter(layer.astype(np.float32), sigma_m / pixel_m, mode="nearest")
    for axis, (start, count) in enumerate(zip(origin_m, shape, strict=True)):
        at = (start + (np.arange(count) + 0.5) * target_m) / pixel_m - 0.5
        at = np.clip(at, 0, blurred.shape[axis] - 1.001)
        low = at.astype(int)
        share = (at - low).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        blurred = np.take(blurred, low, axis) * (1 - share) + np.take(blurred, low + 1, axis) * share
    return blurred
