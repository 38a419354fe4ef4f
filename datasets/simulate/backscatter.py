"""C-band backscatter of simulated scenes: bare soil, vegetation, wind-roughened water, noise floor and speckle.

The models and the product's constants are published ones; the levels of vegetation and towns are assumptions, chosen
for their order and spacing. All were fixed before any model was trained on the scenes; none by looking at a score.

Sources:
    Oh et al. (1992): Y. Oh, K. Sarabandi, F. T. Ulaby, "An empirical model and an inversion technique for radar
        scattering from bare soil surfaces", IEEE TGRS 30(2), doi 10.1109/36.134086.
    Topp et al. (1980): G. C. Topp, J. L. Davis, A. P. Annan, "Electromagnetic determination of soil water content",
        Water Resources Research 16(3), doi 10.1029/WR016i003p00574.
    Hersbach (2010): H. Hersbach, "Comparison of C-band scatterometer CMOD5.N equivalent neutral winds with ECMWF",
        J. Atmos. Oceanic Technol. 27(4), doi 10.1175/2009JTECHO698.1; form in Hersbach et al. (2007),
        doi 10.1029/2006JC003743.
    Vachon and Wolfe (2011): P. W. Vachon, J. Wolfe, "C-band cross-polarization wind speed retrieval", IEEE GRSL 8(3),
        doi 10.1109/LGRS.2010.2085417.
    Sentinel-1 product definition: S1-RS-MDA-52-7440, issue 2.7 (2016): centre frequency 5.405 GHz, IW incidence 29.1
        to 46 degrees over 250 km, NESZ at most -22 dB, IW GRDH 20 m x 22 m on a 10 m grid, 4.4 equivalent looks.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, stats

WAVENUMBER_PER_CM = 2 * np.pi * 5.405e9 / 2.99792458e10
NOISE_FLOOR_DB = -22.0  # the worst case that the mission requires; real scenes lie a few dB below it
LOOKS_IW_GRDH = 4.4
SPECKLE_TAP = 0.3  # neighbours of a 3x3 kernel: 20 m resolution sampled every 10 m correlates adjacent pixels

# gamma0 = sigma0 / cos(incidence) in dB (VV, VH), assumed (no table stands behind them): towns above forest above crops
# above grass, VH below VV by 6 to 8 dB. One value for all angles: volume scattering hardly varies in gamma0.
VEGETATION_GAMMA0_DB = {
    "forest": (-7.0, -13.0),
    "crops": (-9.5, -16.0),
    "grass": (-12.0, -19.0),
    "built-up": (-3.5, -11.5),
}

_CMOD5N = (
    -0.6878, -0.7957, 0.3380, -0.1728, 0.0000, 0.0040, 0.1103, 0.0159, 6.7329, 2.7713, -2.2885, 0.4971, -0.7250, 0.0450,
    0.0066, 0.3222, 0.0120, 22.7000, 2.0813, 3.0000, 8.3659, -3.3428, 1.3236, 6.2437, 2.3893, 0.3249, 4.1590, 1.6930,
)  # fmt: skip


def linear(db):
    """Decibels to power."""
    return 10 ** (np.asarray(db) / 10)


def decibel(power):
    """Power to decibels."""
    return 10 * np.log10(power)


def soil_permittivity(moisture):
    """Relative permittivity of soil from its volumetric moisture (0 to 0.5), Topp et al. (1980)."""
    m = np.asarray(moisture)
    return 3.03 + 9.3 * m + 146 * m**2 - 76.7 * m**3


def bare_soil(incidence_deg, rms_height_cm, moisture) -> tuple[np.ndarray, np.ndarray]:
    """sigma0 (VV, VH) of bare soil at C band, linear, Oh et al. (1992).

    Smooth dry sand and dust lie at the level of calm water in both polarisations: the classic look-alike.

    Args:
        incidence_deg: local incidence angle.
        rms_height_cm: root mean square height of the surface; the model was fitted for k·s from 0.1 to 6.
        moisture: volumetric moisture; the model was fitted above 0.09, and drier soils continue it.
    """
    return oh_1992(incidence_deg, rms_height_cm, moisture, WAVENUMBER_PER_CM)[1:]


def oh_1992(
    incidence_deg, rms_height_cm, moisture, wavenumber_per_cm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sigma0 (HH, VV, HV) of bare soil, linear, for a radar of any wavenumber (fitted at L, C and X band)."""
    theta = np.deg2rad(incidence_deg)
    ks = wavenumber_per_cm * np.asarray(rms_height_cm)
    eps = soil_permittivity(moisture)
    cos, root = np.cos(theta), np.sqrt(eps - np.sin(theta) ** 2)
    fresnel_h = ((cos - root) / (cos + root)) ** 2
    fresnel_v = ((eps * cos - root) / (eps * cos + root)) ** 2
    nadir = ((1 - np.sqrt(eps)) / (1 + np.sqrt(eps))) ** 2
    co_ratio = (1 - (2 * theta / np.pi) ** (1 / (3 * nadir)) * np.exp(-ks)) ** 2  # HH / VV
    cross_ratio = 0.23 * np.sqrt(nadir) * (1 - np.exp(-ks))  # HV / VV
    vv = 0.7 * (1 - np.exp(-0.65 * ks**1.8)) * cos**3 / np.sqrt(co_ratio) * (fresnel_v + fresnel_h)
    return vv * co_ratio, vv, vv * cross_ratio


def vegetation(cover: str, incidence_deg) -> tuple[np.ndarray, np.ndarray]:
    """sigma0 (VV, VH) of a vegetated or built-up cover, linear."""
    cos = np.cos(np.deg2rad(incidence_deg))
    vv, vh = VEGETATION_GAMMA0_DB[cover]
    return linear(vv) * cos, linear(vh) * cos


def open_water(incidence_deg, wind_m_s, wind_direction_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """sigma0 (VV, VH) of open water, linear: CMOD5.N in VV, Vachon and Wolfe (2011) in VH.

    Args:
        incidence_deg: incidence angle.
        wind_m_s: wind speed at 10 m; below 1 m/s (capillary waves die out) it is taken as 1.
        wind_direction_deg: angle between the wind and the look direction (0 = blowing towards the radar).
    """
    wind = np.maximum(wind_m_s, 1.0)
    return cmod5n(incidence_deg, wind, wind_direction_deg), linear(0.592 * wind - 35.6)


def cmod5n(incidence_deg, wind_m_s, wind_direction_deg) -> np.ndarray:
    """sigma0 in VV, linear, of a wind-driven water surface (Hersbach 2010; 1 to 50 m/s, 18 to 58 degrees)."""
    c = (np.nan, *_CMOD5N)  # numbered from 1, as published
    v, phi = np.asarray(wind_m_s, float), np.deg2rad(wind_direction_deg)
    x = (np.asarray(incidence_deg, float) - 40) / 25
    a0 = c[1] + c[2] * x + c[3] * x**2 + c[4] * x**3
    a1, a2 = c[5] + c[6] * x, c[7] + c[8] * x
    gamma = c[9] + c[10] * x + c[11] * x**2
    s, s0 = a2 * v, c[12] + c[13] * x
    g0 = 1 / (1 + np.exp(-s0))
    low = np.maximum(s / s0, 0) ** (s0 * (1 - g0)) * g0
    b0 = 10 ** (a0 + a1 * v) * np.where(s < s0, low, 1 / (1 + np.exp(-s))) ** gamma
    b1 = c[14] * (1 + x) - c[15] * v * (0.5 + x - np.tanh(4 * (x + c[16] + c[17] * v)))
    b1 = b1 / (1 + np.exp(0.34 * (v - c[18])))
    y0, n = c[19], c[20]
    y = 1 + v / (c[21] + c[22] * x + c[23] * x**2)
    bent = y0 - (y0 - 1) / n + np.abs(y - 1) ** n / (n * (y0 - 1) ** (n - 1))
    v2 = np.where(y < y0, bent, y)
    d1, d2 = c[24] + c[25] * x + c[26] * x**2, c[27] + c[28] * x
    b2 = (d2 * v2 - d1) * np.exp(-v2)
    return b0 * (1 + b1 * np.cos(phi) + b2 * np.cos(2 * phi)) ** 1.6


def local_incidence(height_m: np.ndarray, incidence_deg: np.ndarray, pixel_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Local incidence angle in the range plane and radar shadow of a terrain seen from the left (column 0 is near).

    Returns:
        (H, W) local incidence in degrees, from 5 to 89, and (H, W) bool shadow.
    """
    slope_deg = np.rad2deg(np.arctan(np.gradient(height_m, pixel_m, axis=1)))
    ground_m = np.arange(height_m.shape[1]) * pixel_m
    # Along a ray the sum below is constant; a point under an earlier, higher ray is hidden from the radar.
    ray = height_m + ground_m / np.tan(np.deg2rad(incidence_deg))
    shadow = ray < np.maximum.accumulate(ray, axis=1) - 1e-3
    return np.clip(incidence_deg - slope_deg, 5, 89), shadow


def speckle(rng: np.random.Generator, shape: tuple[int, int], looks: float) -> np.ndarray:
    """Multiplicative gamma speckle of mean 1 and variance 1/looks, adjacent pixels correlated as in GRDH products.

    A correlated Gaussian field is mapped to the gamma distribution quantile by quantile, so that any real number of
    looks has its exact distribution.

    Returns:
        (H, W) float32, positive.
    """
    tap = SPECKLE_TAP
    normal = rng.standard_normal(shape, dtype=np.float32)
    for axis in (0, 1):
        normal = ndimage.correlate1d(normal, np.array([tap, 1, tap]) / np.sqrt(1 + 2 * tap**2), axis, mode="wrap")
    quantiles = np.linspace(-6, 6, 4001)
    table = stats.gamma.ppf(stats.norm.cdf(quantiles), looks, scale=1 / looks)
    return np.interp(normal, quantiles, table).astype(np.float32)


def observe(
    sigma0: np.ndarray, rng: np.random.Generator, looks: float, noise_floor_db: float = NOISE_FLOOR_DB
) -> np.ndarray:
    """What the product shows in dB: resolution, thermal noise (not subtracted) and speckle on the true sigma0.

    Args:
        sigma0: (H, W) linear.
        rng: source of the speckle.
        looks: equivalent number of looks.
        noise_floor_db: noise equivalent sigma0.

    Returns:
        (H, W) float32 in dB.
    """
    # 20 m resolution on a 10 m grid: a Gaussian of that full width at half maximum mixes shores with their land.
    resolved = ndimage.gaussian_filter(sigma0.astype(np.float32), 2 / 2.355, mode="nearest")
    return decibel((resolved + np.float32(linear(noise_floor_db))) * speckle(rng, sigma0.shape, looks))
