"""How a side-looking radar maps simulated ground: slant range, layover, shadow, speckle, and back onto the map.

Each row is one range line. The ground's facets are added up in slant range, so that slopes that face the radar pile up
(foreshortening, layover) and hidden ones add nothing (shadow); noise and speckle come on top there; then every map
pixel reads the slant bin that its height puts it in, as terrain correction does. Along-track geometry is left out
(the flight path runs along the columns).

Sources:
    Layover, shadow and terrain flattening: D. Small, "Flattening Gamma: Radiometric Terrain Correction for SAR
        Imagery", IEEE TGRS 49(8), 2011, doi 10.1109/TGRS.2011.2120616.
    Oh et al. (1992), CMOD5.N and Vachon and Wolfe (2011): see ``backscatter.py``.
    HH from VV over water: D. R. Thompson et al., "Polarization ratio for microwave backscatter from the ocean surface
        at low to moderate incidence angles", IGARSS 1998, doi 10.1109/IGARSS.1998.703695, with alpha = 0.6.
    Bragg scattering at L band: G. R. Valenzuela, "Theories for the interaction of electromagnetic and oceanic waves",
        Boundary-Layer Meteorology 13, 1978, doi 10.1007/BF00913863, with the saturation spectrum of O. M. Phillips
        (alpha = 8.1e-3 of W. J. Pierson and L. Moskowitz, 1964, doi 10.1029/JZ069i024p05181).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from . import backscatter, terrain
from .world import BUILT_UP, CROPS, FOREST, GRASS, SAND, World

OVERSAMPLE = 3  # facets per map pixel in range
PALSAR_WAVENUMBER_PER_CM = 2 * np.pi * 1.270e9 / 2.99792458e10  # 1270 MHz
WATER_PERMITTIVITY_L = 78.0  # fresh water at 1.27 GHz and 20 degrees C
# Phillips' constant holds once waves of 20 cm are saturated; below 7 m/s the spectrum is taken to fall with the wind.
PHILLIPS_CURVATURE, SATURATION_WIND_M_S = 0.5 * 8.1e-3, 7.0
L_BAND_CROSS_RATIO_DB = -14.0  # HV over HH of water: chosen; it lies near the noise floor in any case

# gamma0 in dB (HH, HV) at L band: assumptions in 0.5 dB steps, no table of measurements. Forest lies at the levels of
# natural forest in PALSAR mosaics (M. Shimada et al., 2014, doi 10.1016/j.rse.2014.04.014), lower covers below it, more
# so in HV, where less volume scatters.
VEGETATION_GAMMA0_L_DB = {FOREST: (-7.0, -12.0), CROPS: (-11.5, -19.5), GRASS: (-14.5, -23.0), BUILT_UP: (-3.0, -13.0)}
VEGETATION_C = {FOREST: "forest", CROPS: "crops", GRASS: "grass", BUILT_UP: "built-up"}


@dataclass(frozen=True)
class View:
    """A radar's geometry over a scene.

    Attributes:
        near_deg: incidence at the near edge.
        far_deg: incidence at the far edge.
        looks_east: True for ascending right-looking passes (column 0 is near), False for descending ones.
    """

    near_deg: float
    far_deg: float
    looks_east: bool

    def incidence_deg(self, size: int) -> np.ndarray:
        """(size,) incidence on flat ground for each column."""
        ramp = np.linspace(self.near_deg, self.far_deg, size, dtype=np.float32)
        return ramp if self.looks_east else ramp[::-1]


def local_geometry(height_m: np.ndarray, view: View, pixel_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Local incidence in degrees (5 to 89) and shadow, (H, W) each, on the map grid of the scene."""
    flip = slice(None) if view.looks_east else slice(None, None, -1)
    incidence = np.broadcast_to(view.incidence_deg(height_m.shape[1]), height_m.shape)
    local, shadow = backscatter.local_incidence(height_m[:, flip], incidence[:, flip], pixel_m)
    return local[:, flip], shadow[:, flip]


def image(
    sigma0: np.ndarray,
    height_m: np.ndarray,
    view: View,
    pixel_m: float,
    rng: np.random.Generator,
    looks: float,
    noise_db: float | tuple[float, ...],
    resolution_m: float,
    flatten: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The terrain-corrected image of a scene.

    Args:
        sigma0: (C, H, W) linear sigma0 of the facets at their local incidence.
        height_m: (H, W).
        view: the radar's geometry.
        pixel_m: map pixel.
        rng: source of the speckle, the same pattern of scatterers for no two channels.
        looks: equivalent number of looks.
        noise_db: noise equivalent sigma0, one for all channels or one each.
        resolution_m: full width at half maximum on the ground.
        flatten: False: sigma0 on the ellipsoid, bright in layover (Earth Engine's Sentinel-1 GRD); True: gamma0 by the
            illuminated area (Small 2011, as ASF's RTC products), where only noise is left in shadow.

    Returns:
        power: (C, H, W) float32 linear.
        layover: (H, W) bool, map pixels whose slant bin collects more than one piece of ground.
        shadow: (H, W) bool.
    """
    flip = slice(None) if view.looks_east else slice(None, None, -1)
    height = height_m[:, flip].astype(np.float64)
    theta = np.deg2rad(view.incidence_deg(height.shape[1])[flip].astype(np.float64))
    local, shadow = local_geometry(height_m, view, pixel_m)
    local, shadow = local[:, flip], shadow[:, flip]
    slant = np.cumsum(np.sin(theta)) * pixel_m - height * np.cos(theta)
    step = pixel_m * np.sin(theta.mean())
    slant = (slant - slant.min()) / step
    bins = int(slant.max()) + 3
    surface = pixel_m / np.cos(np.arctan(np.gradient(height, pixel_m, axis=1)))
    surface = np.where(shadow, 0, surface)

    def collect(weight: np.ndarray) -> np.ndarray:
        return _collect(slant, weight, bins)

    flat = step / np.sin(np.interp(np.arange(bins), slant.mean(0), theta))
    area = collect(surface * np.cos(np.deg2rad(local))) if flatten else np.broadcast_to(flat, (len(height), bins))
    area = np.maximum(area, 0.2 * flat)
    noise = np.broadcast_to(backscatter.linear(noise_db), len(sigma0))
    out = np.empty(sigma0.shape, np.float32)
    blur = resolution_m / pixel_m / 2.355
    for channel, facets in enumerate(sigma0):
        power = collect(facets[:, flip] * surface) / area
        power = ndimage.gaussian_filter(power.astype(np.float32), blur, mode="nearest")
        power = (power + np.float32(noise[channel])) * backscatter.speckle(rng, power.shape, looks)
        out[channel] = _read(power, slant)[:, flip]
    ground = _read(collect(np.full(height.shape, pixel_m)) / flat, slant)
    turned = np.diff(slant, axis=1, prepend=slant[:, :1] - 1) <= 0
    layover = (ndimage.maximum_filter1d(turned, 3, axis=1) | (ground > 3)) & ~shadow
    return out, layover[:, flip], shadow[:, flip]


def _collect(slant: np.ndarray, weight: np.ndarray, bins: int) -> np.ndarray:
    """(H, bins) sums of weights over slant bins; facets lie between pixels, too, and each is split over two bins."""
    rows = np.arange(len(slant))[:, None] * bins
    total = np.zeros(len(slant) * bins)
    ahead = np.concatenate([slant[:, 1:], 2 * slant[:, -1:] - slant[:, -2:-1]], 1)
    for part in range(OVERSAMPLE):
        at = slant + (ahead - slant) * (part / OVERSAMPLE)
        at = np.clip(at, 0, bins - 2)
        low = at.astype(np.int64)
        share = at - low
        flat = (low + rows).ravel()
        total += np.bincount(flat, ((1 - share) * weight / OVERSAMPLE).ravel(), total.size)
        total += np.bincount(flat + 1, (share * weight / OVERSAMPLE).ravel(), total.size)
    return total.reshape(len(slant), bins)


def _read(power: np.ndarray, slant: np.ndarray) -> np.ndarray:
    """The slant image at the slant coordinate of each map pixel, linear between bins."""
    low = np.clip(slant.astype(np.int64), 0, power.shape[1] - 2)
    share = (slant - low).astype(np.float32)
    rows = np.arange(len(slant))[:, None]
    return power[rows, low] * (1 - share) + power[rows, low + 1] * share


def wind_field(rng: np.random.Generator, wind_m_s: float, water: np.ndarray, pixel_m: float) -> np.ndarray:
    """Wind over water: gusts of kilometres, and shelter within some 300 m of the shore (chosen)."""
    gusts = np.exp(0.2 * terrain.fractal(rng, water.shape[0], 3.0, outer_px=3000 / pixel_m))
    fetch_m = pixel_m * ndimage.distance_transform_edt(water)
    return wind_m_s * gusts * (0.45 + 0.55 * (1 - np.exp(-fetch_m / 300)))


def ground_c(world: World, local_deg: np.ndarray, vigour_db: float) -> np.ndarray:
    """sigma0 (VV, VH) of dry ground at C band, (2, H, W) linear."""
    bands = list(backscatter.bare_soil(local_deg, world.rms_cm, world.moisture))
    for cover, name in VEGETATION_C.items():
        where = (world.cover == cover) & ~world.bare
        for band, value in zip(bands, backscatter.vegetation(name, local_deg), strict=True):
            band[where] = value[where]
    return _varied(np.stack(bands), world, vigour_db)


def ground_l(world: World, local_deg: np.ndarray, vigour_db: float) -> np.ndarray:
    """sigma0 (HH, HV) of dry ground at L band, (2, H, W) linear."""
    hh, _, hv = backscatter.oh_1992(local_deg, world.rms_cm, world.moisture, PALSAR_WAVENUMBER_PER_CM)
    bands, cos = np.stack([hh, hv]), np.cos(np.deg2rad(local_deg))
    for cover, gamma0 in VEGETATION_GAMMA0_L_DB.items():
        where = (world.cover == cover) & ~world.bare
        for band, value in zip(bands, gamma0, strict=True):
            band[where] = backscatter.linear(value) * cos[where]
    return _varied(bands, world, vigour_db)


def _varied(bands: np.ndarray, world: World, vigour_db: float) -> np.ndarray:
    """Fields differ by 4 dB, houses by more, everything by 1 dB of texture."""
    change = vigour_db + 1.0 * world.texture
    change = change + np.where(world.cover == CROPS, 4 * (world.field - 0.5), 0)
    change = change + np.where(world.cover == BUILT_UP, 3 * world.texture, 0)
    change = change - np.where(world.cover == SAND, 1.0, 0)
    return bands * backscatter.linear(change).astype(np.float32)


def water_l(incidence_deg, wind_m_s) -> tuple[np.ndarray, np.ndarray]:
    """sigma0 (HH, HV) of water at L band, linear: first-order Bragg scattering, the same in all wind directions.

    Without the tilt by longer waves it lies a few dB below the open sea's, as sheltered lakes do.
    """
    theta = np.deg2rad(incidence_deg)
    eps, cos, sin = WATER_PERMITTIVITY_L, np.cos(theta), np.sin(theta)
    fresnel = (eps - 1) / (cos + np.sqrt(eps - sin**2)) ** 2
    curvature = PHILLIPS_CURVATURE * np.minimum(np.asarray(wind_m_s) / SATURATION_WIND_M_S, 2.0)
    # 16 pi k^4 cos^4 |g|^2 W(2 k sin) with W(K) = B / (2 pi K^4): the wavenumber cancels.
    hh = 0.5 * curvature * fresnel**2 * (cos / sin) ** 4
    return hh, hh * backscatter.linear(L_BAND_CROSS_RATIO_DB)


def water_hh(vv: np.ndarray, incidence_deg) -> np.ndarray:
    """sigma0 in HH of water from that in VV at C band (Thompson et al. 1998)."""
    tan2 = np.tan(np.deg2rad(incidence_deg)) ** 2
    return vv * (1 + 0.6 * tan2) ** 2 / (1 + 2 * tan2) ** 2
