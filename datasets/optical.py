"""Landsat-8 and Sentinel-2 surface reflectance: quality bits, offsets, and whether two images show the same ground.

Sources: Landsat 8-9 Collection 2 Level-2 Science Product Guide (LSDS-1619) for QA_PIXEL and the scale of reflectance;
Landsat 8 Data Users Handbook (LSDS-1574) for top-of-atmosphere reflectance; Sentinel-2 Products Specification Document
(S2-PDGS-TAS-DI-PSD) for the scene classification and the offset from processing baseline 04.00 on.
"""

from __future__ import annotations

import math
import re
from functools import cache

import numpy as np
from scipy import ndimage

from ..errors import SceneError

L8_SCALE, L8_OFFSET, L8_FILL = 2.75e-5, -0.2, 0
L8_ZERO = 7273  # the least DN whose reflectance is not negative
QA_UNUSABLE = 0b11111  # fill, dilated cloud, cirrus, cloud, cloud shadow
SCL_UNUSABLE = (0, 3, 8, 9, 10)  # no data, cloud shadow, cloud of medium and high probability, thin cirrus
S2_SCALE, S2_FILL = 1e-4, 0
S2_OFFSET_BASELINE, S2_OFFSET_DN = 400, 1000
S2_NODATA = 65535  # as stored here: 0 is a valid reflectance once the offset is taken off
PAN_SCALE = 2.5e-5
_SSIM_DOUBT, _PSNR_DOUBT = 1e-3, 1e-2
_REACH, _BLOCK = 5, 64  # pixels: half the filter of SSIM, and what is blurred at a time
_BLUR = 1.0  # Sentinel-2 pixels, before the registrations are compared


def l8_usable(qa_pixel: np.ndarray) -> np.ndarray:
    """bool: neither fill, nor (dilated) cloud, cirrus or shadow. Snow and water are usable."""
    return qa_pixel & QA_UNUSABLE == 0


def s2_usable(scene_class: np.ndarray) -> np.ndarray:
    """bool: not one of the unusable classes of SCL."""
    return ~np.isin(scene_class, SCL_UNUSABLE)


def l8_not_negative(dn: np.ndarray) -> np.ndarray:
    """Surface reflectance DN (uint16) whose negative reflectances are 0; fill stays."""
    return np.where(dn == L8_FILL, dn, np.maximum(dn, L8_ZERO))


def s2_offset(baseline: int) -> int:
    """DN to subtract: 1000 from processing baseline 04.00 (``400``, as ``N0400`` in the name) on, else 0."""
    return S2_OFFSET_DN if baseline >= S2_OFFSET_BASELINE else 0


def s2_surface(dn: np.ndarray, baseline: int) -> np.ndarray:
    """From uint16 DN: uint16 reflectance * 10 000 without offset, negative ones 0; fill becomes 65 535."""
    offset = s2_offset(baseline)
    shifted = np.maximum(dn, offset)
    shifted -= offset
    np.minimum(shifted, S2_NODATA - 1, out=shifted)
    shifted[dn == S2_FILL] = S2_NODATA
    return shifted


def pan_gains(metadata: str, where: object) -> tuple[float, float, float]:
    """Gain, offset and sine of the sun's elevation for the panchromatic band, from MTL as JSON or text.

    Raises SceneError when a number is missing or absurd.
    """
    found = {}
    for key in ("REFLECTANCE_MULT_BAND_8", "REFLECTANCE_ADD_BAND_8", "SUN_ELEVATION"):
        match = re.search(rf'"?{key}"?\s*[:=]\s*"?([-+0-9.eE]+)"?', metadata)
        try:
            found[key] = float(match[1])
        except (TypeError, ValueError):
            raise SceneError(f"no {key}", where=where, hint="the MTL file of the L1 product has it") from None
    gain, offset, elevation = found.values()
    if not (0 < gain < 1 and abs(offset) < 10 and 0 < elevation <= 90):
        raise SceneError(f"impossible gain {gain}, offset {offset} or sun elevation {elevation}", where=where)
    return gain, offset, math.sin(math.radians(elevation))


def pan_reflectance(dn: np.ndarray, gains: tuple[float, float, float]) -> np.ndarray:
    """uint16 top-of-atmosphere reflectance / 2.5e-5, at least 1; 0 where there is fill."""
    gain, offset, sine = gains
    stored = np.rint((dn * gain + offset) / sine / PAN_SCALE)
    return np.where(dn == 0, 0, np.clip(stored, 1, 65535)).astype(np.uint16)


def double(coarse: np.ndarray, nodata: int) -> np.ndarray:
    """Bilinear from (C, h + 2, w + 2) to (C, 2h, 2w), pixel areas aligned, the border one only seen; same dtype.

    A pixel without data stays without; beside one, the others keep their own value.
    """
    values = coarse.astype(np.float32)
    for axis in (1, 2):
        n = values.shape[axis]
        own = np.take(values, range(1, n - 1), axis)
        before, after = np.take(values, range(n - 2), axis), np.take(values, range(2, n), axis)
        halves = [np.where((o == nodata) | (own == nodata), own, 0.75 * own + 0.25 * o) for o in (before, after)]
        values = np.stack(halves, axis + 1).reshape(*own.shape[:axis], 2 * (n - 2), *own.shape[axis + 1 :])
    return np.rint(values).astype(coarse.dtype)


def resample(values: np.ndarray, source: tuple[float, ...], target: tuple[float, ...], size: int) -> np.ndarray:
    """Bilinear onto a north-up grid of ``size`` squared in the same CRS, by the two affines; edges are held.

    Args:
        values: (C, h, w), without gaps.
        source, target: affine a, b, c, d, e, f of the two grids.
        size: pixels of the result a side.

    Returns:
        float32 (C, size, size).
    """
    centres = np.arange(size) + 0.5
    columns = (target[2] + centres * target[0] - source[2]) / source[0] - 0.5
    rows = (target[5] + centres * target[4] - source[5]) / source[4] - 0.5
    (top, low), (left, right) = _neighbours(rows, values.shape[1]), _neighbours(columns, values.shape[2])
    down = np.clip(rows - top, 0, 1)[:, None].astype(np.float32)
    across = np.clip(columns - left, 0, 1).astype(np.float32)
    lines = values[:, top] * (1 - down) + values[:, low] * down
    return (lines[..., left] * (1 - across) + lines[..., right] * across).astype(np.float32)


def _neighbours(at: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.clip(np.floor(at).astype(int), 0, n - 1)
    return first, np.minimum(first + 1, n - 1)


def psnr(one: np.ndarray, two: np.ndarray, valid: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of reflectances (C, H, W), data range 1, where valid."""
    difference = one - two
    seen = difference if valid.all() else difference[:, valid]
    return _decibels(float(np.mean(seen * seen, dtype=np.float64)))


def _decibels(error: float) -> float:
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(one: np.ndarray, two: np.ndarray, valid: np.ndarray) -> float:
    """Mean structural similarity (Wang et al. 2004: Gaussian of 1.5 pixels, data range 1) of all bands where valid."""
    total, whole = 0.0, valid.all()
    for x, y in zip(one, two, strict=True):
        blurred = [ndimage.gaussian_filter(m, 1.5, truncate=3.5) for m in _moments(x, y)]
        similar = _similarity(*blurred)
        total += float((similar if whole else similar[valid]).mean(dtype=np.float64))
    return total / len(one)


def alike(one: np.ndarray, two: np.ndarray, valid: np.ndarray, above_psnr: float, least_ssim: float) -> bool:
    """Whether PSNR lies above the one limit and SSIM not below the other.

    Both are found the fast way first. That rounds as the processor's BLAS does: close to a limit, where the answer must
    not depend on it, they are found again.
    """
    ratio = _near_psnr(one, two, valid)
    if (ratio if abs(ratio - above_psnr) > _PSNR_DOUBT else psnr(one, two, valid)) <= above_psnr:
        return False
    near = _near_ssim(one, two, valid)
    return (near if abs(near - least_ssim) > _SSIM_DOUBT else ssim(one, two, valid)) >= least_ssim


def _near_psnr(one: np.ndarray, two: np.ndarray, valid: np.ndarray) -> float:
    difference = one - two
    difference *= valid
    return _decibels(float(np.vdot(difference, difference)) / (len(one) * np.count_nonzero(valid)))


def _near_ssim(one: np.ndarray, two: np.ndarray, valid: np.ndarray) -> float:
    """``ssim`` of float32, blurred by matrix products, strip by strip so that all stays in the processor's cache."""
    (height, width), total = valid.shape, 0.0
    down, across = _band_matrix(height), _band_matrix(width)
    for start in range(0, height, _BLOCK):
        out, seen = _strip(start, height)
        inside = valid[out]
        whole = inside.all()
        for x, y in zip(one, two, strict=True):
            rows = np.matmul(down[out, seen], _moments(x[seen], y[seen]))
            blurred = np.empty_like(rows)
            for left in range(0, width, _BLOCK):
                columns, around = _strip(left, width)
                np.matmul(rows[:, :, around], across[columns, around].T, out=blurred[:, :, columns])
            similar = _similarity(*blurred)
            total += float((similar if whole else similar[inside]).sum(dtype=np.float64))
    return total / (len(one) * np.count_nonzero(valid))


def _strip(start: int, n: int) -> tuple[slice, slice]:
    """Places that are blurred, and those that they see."""
    return slice(start, start + _BLOCK), slice(max(start - _REACH, 0), min(start + _BLOCK + _REACH, n))


def _moments(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x, y, x² + y² and xy, (4, H, W)."""
    maps = np.empty((4, *x.shape), x.dtype)
    maps[0], maps[1] = x, y
    np.multiply(x, x, out=maps[2])
    maps[2] += np.multiply(y, y, out=maps[3])
    np.multiply(x, y, out=maps[3])
    return maps


def _similarity(mx: np.ndarray, my: np.ndarray, squares: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """The map of structural similarity from blurred moments, which it overwrites: fresh pages cost more than sums."""
    c1, c2 = 0.01**2, 0.03**2
    product = mx * my
    product *= 2
    mx *= mx
    my *= my
    means = np.add(mx, my, out=mx)
    xy *= 2
    xy -= product
    xy += c2
    product += c1
    xy *= product
    squares -= means
    squares += c2
    means += c1
    squares *= means
    xy /= squares
    return xy


@cache
def _band_matrix(size: int) -> np.ndarray:
    """float32 (size, size): row i holds what each pixel gives to the blurred pixel i."""
    return ndimage.gaussian_filter1d(np.eye(size, dtype=np.float32), 1.5, axis=0, truncate=3.5)


def registration_shift(reference: np.ndarray, moving: np.ndarray) -> tuple[float, float]:
    """Rows and columns by which ``moving`` lies further down and right than ``reference``, to a fiftieth of a pixel.

    Both are float (H, W) on one grid. Phase correlation (Guizar-Sicairos et al. 2008) of what is left after a
    high-pass, under a Hann window, so that neither brightness nor the borders count.
    """
    from skimage.registration import phase_cross_correlation

    window = np.hanning(reference.shape[0])[:, None] * np.hanning(reference.shape[1])
    sharp = [ndimage.gaussian_filter(v, _BLUR) - ndimage.gaussian_filter(v, 8.0) for v in (reference, moving)]
    shift, _, _ = phase_cross_correlation(*(v * window for v in sharp), upsample_factor=50, normalization=None)
    return float(-shift[0]), float(-shift[1])
