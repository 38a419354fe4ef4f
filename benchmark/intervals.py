"""How far a stated standard deviation can be trusted: coverage, sharpness, reliability, and factors that calibrate it.

Everything comes from the ratio |error| / sigma of every pixel, counted in fixed bins per band, so that sums add over
chips and memory does not grow with them. An interval is mean ± factor · sigma. Before calibration its factor is the
Gaussian one; after it the quantile of the ratio on the validation split, per band and level: errors have heavier tails
than a Gaussian, so that no single scale gives 68 and 95 % at once (split conformal prediction, Lei et al. 2018,
doi 10.1080/01621459.2017.1307116, with normalised residuals).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68, 0.7, 0.8, 0.9, 0.95, 0.99)
MIN_SIGMA = 1e-6  # reflectance; a sigma of 0 would make the ratio of an exact answer undefined
# Bins of the ratio, 64 to an octave: 1.1 % wide. What lies beyond them counts as the first or the last.
EDGES = 2.0 ** np.linspace(-14, 14, 28 * 64 + 1)
SIGMA_EDGES = 10.0 ** np.linspace(-5, 0, 101)  # reflectance, twenty to a decade

Sums = dict[str, NDArray]


def interval_sums(truth: NDArray, mean: NDArray, sigma: NDArray, valid: NDArray[np.bool_]) -> Sums:
    """Everything that is added up over a location, from one chip.

    Args:
        truth, mean, sigma: (C,H,W) reflectance; anything where not ``valid``.
        valid: (H,W).

    Returns:
        by name: ``ratios`` int64 (C, len(EDGES) + 1), counts of |error| / sigma below, between and above the edges;
        ``by_sigma`` float64 (C, len(SIGMA_EDGES) + 1, 3) pixels, sum of sigma² and of squared error by bin of sigma;
        ``moments`` float64 (C, 6) pixels and the sums of sigma, sigma², |error|, error² and sigma · |error|.

    Raises:
        ValueError: shapes differ, or a sigma on a valid pixel is negative or not finite.
    """
    if not truth.shape == mean.shape == sigma.shape or truth.shape[1:] != valid.shape:
        raise ValueError(f"shapes {truth.shape}, {mean.shape}, {sigma.shape} and {valid.shape} do not fit")
    error = np.abs(mean[:, valid].astype(np.float64) - truth[:, valid])
    spread = sigma[:, valid].astype(np.float64)
    if not (np.isfinite(spread).all() and (spread >= 0).all()):
        raise ValueError("sigma must be finite and not negative")
    error = np.where(np.isfinite(error), error, 1.0)  # abstaining counts as the largest error
    spread = np.maximum(spread, MIN_SIGMA)
    bins, by_sigma = len(EDGES) + 1, len(SIGMA_EDGES) + 1
    ratios = [np.bincount(np.searchsorted(EDGES, e / s), minlength=bins) for e, s in zip(error, spread, strict=True)]
    binned = []
    for e, s in zip(error, spread, strict=True):
        place = np.searchsorted(SIGMA_EDGES, s)
        binned.append([np.bincount(place, weights, by_sigma) for weights in (np.ones_like(s), s * s, e * e)])
    powers = (np.ones_like(error), spread, spread**2, error, error**2, spread * error)
    return {
        "ratios": np.array(ratios, np.int64),
        "by_sigma": np.array(binned).transpose(0, 2, 1),
        "moments": np.stack([power.sum(1) for power in powers], 1),
    }


def coverage(ratios: NDArray, factors: ArrayLike) -> NDArray[np.float64]:
    """Share of the pixels whose truth lies within mean ± factor · sigma.

    Args:
        ratios: (…, bins) counts of ``interval_sums``.
        factors: broadcast to (…).

    Returns:
        (…), NaN where nothing was counted. Within a bin the counts are spread evenly over the logarithm.
    """
    ratios = np.asarray(ratios, np.float64)
    place = np.log2(np.maximum(factors, EDGES[0])) - np.log2(EDGES[0])
    position = np.minimum(place / (np.log2(EDGES[1]) - np.log2(EDGES[0])), len(EDGES) - 1)
    position = np.broadcast_to(position, ratios.shape[:-1])
    whole = np.floor(position).astype(int)
    below = np.concatenate([np.zeros((*ratios.shape[:-1], 1)), np.cumsum(ratios, -1)], -1)
    low, high = (np.take_along_axis(below, (whole + i)[..., None], -1)[..., 0] for i in (1, 2))
    total = below[..., -1]
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, (low + (position - whole) * (high - low)) / total, np.nan)


def factors_for(ratios: NDArray, levels: Sequence[float]) -> NDArray[np.float64]:
    """The factors with which these intervals cover the given shares of these pixels.

    Args:
        ratios: (C, bins) counts of the split that calibrates.
        levels: L shares in 0…1.

    Returns:
        (C, L); the largest edge where only what lies beyond it would do.

    Raises:
        ValueError: a band without pixels, or a level outside 0…1.
    """
    ratios = np.asarray(ratios, np.float64)
    if not (ratios.sum(-1) > 0).all():
        raise ValueError("a band has no valid pixel to calibrate with")
    if not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels must lie between 0 and 1, found {levels}")
    found = []
    for counts in ratios:
        below = np.cumsum(counts)[:-1] / counts.sum()  # share at or below each edge
        ever = np.flatnonzero(np.diff(below, prepend=-1.0) > 0)  # np.interp needs it to rise
        found.append(2.0 ** np.interp(levels, below[ever], np.log2(EDGES[ever])))
    return np.array(found)


def gaussian_factors(levels: Sequence[float]) -> NDArray[np.float64]:
    """Half widths of the Gaussian's central intervals in standard deviations: 1 for 68.27 %, 1.96 for 95 %."""
    return ndtri((1 + np.asarray(levels, np.float64)) / 2)


def sharpness(moments: NDArray) -> NDArray[np.float64]:
    """Mean sigma per band (C,), from ``moments`` (C, 6)."""
    return moments[..., 1] / np.maximum(moments[..., 0], 1)


def correlation(moments: NDArray) -> NDArray[np.float64]:
    """Pearson's r between sigma and |error| per band (C,), NaN where one of them does not vary."""
    pixels, s, ss, e, ee, se = np.moveaxis(np.asarray(moments, np.float64), -1, 0)
    covariance = pixels * se - s * e
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / np.sqrt((pixels * ss - s * s) * (pixels * ee - e * e))


def error_by_sigma(by_sigma: NDArray, min_share: float = 1e-3) -> NDArray[np.float64]:
    """Root mean square of sigma and of the error in each bin of sigma that holds at least ``min_share`` of the pixels.

    Args:
        by_sigma: (bins, 3) of one band, or summed over bands.

    Returns:
        (K, 2) rms sigma and rms error, by rising sigma.
    """
    pixels, squares, errors = np.asarray(by_sigma, np.float64).T
    enough = pixels >= max(1.0, min_share * pixels.sum())
    return np.sqrt(np.stack([squares[enough] / pixels[enough], errors[enough] / pixels[enough]], 1))
