"""Metrics of harmonized reflectance, as float64 sums that add over chips and the scores that the sums give.

``chip_sums`` turns one chip into sums; everything else is computed from sums that were added up over a location (the
unit of inference), so scores and intervals need no pixels. Reflectance lies in 0…1 and the data range is 1 everywhere.
Scores of sums with leading axes (…, K) have the shape (…), or (…, C) per band, NaN where not defined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

BORDER_PX = 8  # cropped on every side
SHIFT_PX = 3  # one low-resolution pixel: 30 m over 10 m
PSNR_LIMIT_DB = 120.0  # of a band without error; float16 itself carries less
INDEX_MIN_SUM = 0.02  # below, a normalised difference is noise
INDICES = {"ndvi": ("nir", "red"), "ndwi1": ("nir", "swir1"), "ndwi2": ("nir", "swir2")}
SSIM_RADIUS_PX = 5
SSIM_SIGMA_PX = 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
RESOLUTION_RATIO = 10 / 30  # of ERGAS: ground sampling distance of the target over that of the input

Sums = dict[str, NDArray[np.float64]]

_taps = np.exp(-0.5 * (np.arange(-SSIM_RADIUS_PX, SSIM_RADIUS_PX + 1) / SSIM_SIGMA_PX) ** 2)
SSIM_TAPS = _taps / _taps.sum()


def index_bands(names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The normalised differences (a - b) / (a + b) that these bands allow: a's and b's place by index name."""
    places = {name.lower(): i for i, name in enumerate(names)}
    return {key: (places[a], places[b]) for key, (a, b) in INDICES.items() if a in places and b in places}


def answered(truth: NDArray, prediction: NDArray) -> NDArray[np.float64]:
    """The prediction as float64; a value that is not finite becomes the end of 0…1 farther from the truth.

    So abstaining never pays, as with class maps, where it counts as a wrong class.
    """
    return np.where(np.isfinite(prediction), prediction, np.where(truth > 0.5, 0.0, 1.0)).astype(np.float64)


def abstained(prediction: NDArray, valid: NDArray[np.bool_]) -> int:
    """Valid pixels inside the border with a predicted value that is not finite."""
    return int(np.count_nonzero((valid & ~np.isfinite(prediction).all(0))[_inside(0, 0, valid.shape)]))


def chip_sums(
    truth: NDArray, prediction: NDArray, valid: NDArray[np.bool_], indices: Mapping[str, tuple[int, int]]
) -> Sums:
    """Everything that is added up over a location, from one chip.

    Args:
        truth: (C,H,W) reflectance of the target; anything where not ``valid``.
        prediction: (C,H,W), see ``answered`` for values that are not finite.
        valid: (H,W) where target and input are valid.
        indices: see ``index_bands``.

    Returns:
        by name, float64: ``pixels`` (1,); ``squared_error``, ``error`` (prediction - truth), ``target`` and
        ``target_squared`` (C,); ``ssim`` (C,) and ``ssim_windows`` (1,), of the 11 x 11 windows without an invalid
        pixel, by their centre; ``sam`` (1,) in degrees and ``sam_pixels`` (1,); ``shifted_squared_error`` (C,) and
        ``shifted_pixels`` (1,) at the chip's best shift; each index (8,), see ``_index_sums``.

    Raises:
        ValueError: shapes differ, or the border leaves nothing.
    """
    if truth.shape != prediction.shape or truth.shape[1:] != valid.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}, valid {valid.shape}")
    if min(valid.shape) <= 2 * BORDER_PX:
        raise ValueError(f"chips of {valid.shape} px have nothing inside a border of {BORDER_PX} px")
    truth = np.where(valid, truth, 0.0).astype(np.float64, copy=False)
    prediction = np.where(valid, answered(truth, prediction), 0.0)
    inside = _inside(0, 0, valid.shape)
    scored = valid[inside]
    t, p = (image[:, *inside].reshape(len(truth), -1) for image in (truth, prediction))
    if not scored.all():
        t, p = t[:, scored.ravel()], p[:, scored.ravel()]
    error = p - t
    sums = {
        "pixels": np.array([t.shape[1]], np.float64),
        "squared_error": np.square(error).sum(1),
        "error": error.sum(1),
        "target": t.sum(1),
        "target_squared": np.square(t).sum(1),
    }
    sums["ssim"], sums["ssim_windows"] = _ssim_sums(truth, prediction, valid)
    sums["sam"], sums["sam_pixels"] = _angle_sums(t, p)
    sums["shifted_squared_error"], sums["shifted_pixels"] = _shifted_sums(truth, prediction, valid)
    for key, (a, b) in indices.items():
        sums[key] = _index_sums(t[a], t[b], p[a], p[b])
    return sums


def _inside(down: int, right: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """What the border leaves, moved by some pixels."""
    return (
        slice(BORDER_PX + down, shape[0] - BORDER_PX + down),
        slice(BORDER_PX + right, shape[1] - BORDER_PX + right),
    )


def _ssim_sums(truth: NDArray, prediction: NDArray, valid: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    """Sum over windows of the structural similarity of each band (C,), and the number of windows (1,).

    Wang et al. 2004 (doi 10.1109/TIP.2003.819861): Gaussian window 11 x 11, sigma 1.5, K = (0.01, 0.03), variances
    not corrected for the sample's size.
    """
    margin = BORDER_PX - SSIM_RADIUS_PX
    area = (slice(margin, valid.shape[0] - margin), slice(margin, valid.shape[1] - margin))
    whole = _whole_windows(valid[area])
    total = np.empty(len(truth))
    for band, (t, p) in enumerate(zip(truth[:, *area], prediction[:, *area], strict=True)):
        mean_t, mean_p = _gaussian(t), _gaussian(p)
        cross, square = mean_t * mean_p, mean_t * mean_t + mean_p * mean_p
        covariance, variances = _gaussian(t * p) - cross, _gaussian(t * t + p * p) - square
        ssim = (2 * cross + SSIM_C1) * (2 * covariance + SSIM_C2)
        ssim /= (square + SSIM_C1) * (variances + SSIM_C2)
        total[band] = ssim.sum(where=whole)
    return total, np.array([np.count_nonzero(whole)], np.float64)


def _gaussian(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted means of all whole windows, (H - 10, W - 10), by two passes of a symmetric filter."""
    for axis in (0, 1):
        n = image.shape[axis] - 2 * SSIM_RADIUS_PX
        part = [slice(k, k + n) if axis == 0 else np.s_[:, k : k + n] for k in range(2 * SSIM_RADIUS_PX + 1)]
        out = image[part[SSIM_RADIUS_PX]] * SSIM_TAPS[SSIM_RADIUS_PX]
        for k in range(SSIM_RADIUS_PX):
            out += (image[part[k]] + image[part[-1 - k]]) * SSIM_TAPS[k]
        image = out
    return image


def _whole_windows(valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    for axis in (0, 1):
        n = valid.shape[axis] - 2 * SSIM_RADIUS_PX
        parts = [np.take(valid, range(k, k + n), axis) for k in range(2 * SSIM_RADIUS_PX + 1)]
        valid = np.logical_and.reduce(parts)
    return valid


def _angle_sums(truth: NDArray, prediction: NDArray) -> tuple[NDArray, NDArray]:
    """Sum of the angles in degrees between spectra (C,n), and their number.

    A black target has no direction and is left out; a black prediction of another target is at a right angle to it.
    """
    lengths = [np.sqrt(np.square(image).sum(0)) for image in (truth, prediction)]
    defined = lengths[0] > 0
    t, p = (
        np.divide(image, length, out=np.zeros_like(image), where=length > 0)
        for image, length in zip((truth, prediction), lengths, strict=True)
    )
    # Kahan's form: exact for small angles, where the arc cosine is not.
    apart, along = np.sqrt(np.square(t - p).sum(0)), np.sqrt(np.square(t + p).sum(0))
    angle = np.degrees(2 * np.arctan2(apart, along)).sum(where=defined)
    return np.array([angle]), np.array([np.count_nonzero(defined)], np.float64)


def _shifted_sums(truth: NDArray, prediction: NDArray, valid: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    """Squared error per band (C,) and pixels (1,) at the shift of the prediction with the best mean PSNR.

    All shifts up to one low-resolution pixel in both directions, as in PROBA-V's super-resolution challenge (Märtens
    et al. 2019, arXiv:1907.01821) without its brightness correction; no shift wins a tie.
    """
    steps = range(-SHIFT_PX, SHIFT_PX + 1)
    shifts = sorted(((down, right) for down in steps for right in steps), key=lambda s: (abs(s[0]) + abs(s[1]), s))
    here = _inside(0, 0, valid.shape)
    fixed, all_valid = truth[:, *here], bool(valid.all())
    best = None
    for down, right in shifts:
        there = _inside(down, right, valid.shape)
        both = valid[here] & valid[there]
        n = np.count_nonzero(both)
        if n == 0:
            continue
        squared = np.empty(len(truth))
        for band, (t, p) in enumerate(zip(fixed, prediction[:, *there], strict=True)):
            error = p - t
            if not all_valid:
                error *= both
            squared[band] = np.square(error, out=error).sum()  # a BLAS product of this size only wakes threads
        score = _decibel(squared / n).mean()
        if best is None or score > best[0]:
            best = score, squared, n
    if best is None:
        return np.zeros(len(truth)), np.zeros(1)
    return best[1], np.array([best[2]], np.float64)


def _index_sums(a: NDArray, b: NDArray, predicted_a: NDArray, predicted_b: NDArray) -> NDArray[np.float64]:
    """(8,): number of pixels; sums of t, p, t², p², t p, abs(p - t), (p - t)², with t and p the indices.

    The target alone decides which pixels count, so that a prediction can't choose them: where its own sum is too
    small its index is 0. Indices are cut at -1 and 1, which negative reflectance could leave.
    """
    used = np.abs(a + b) > INDEX_MIN_SUM
    t, p = _normalised_difference(a[used], b[used]), _normalised_difference(predicted_a[used], predicted_b[used])
    error = p - t
    terms = (t, p, t * t, p * p, t * p, np.abs(error), error * error)
    return np.array([len(t), *(term.sum() for term in terms)], np.float64)


def _normalised_difference(a: NDArray, b: NDArray) -> NDArray:
    whole = a + b
    return np.divide(a - b, whole, out=np.zeros_like(whole), where=np.abs(whole) > INDEX_MIN_SUM).clip(-1, 1)


def _ratio(above: NDArray, below: NDArray) -> NDArray[np.float64]:
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)


def _decibel(mean_squared_error: NDArray) -> NDArray[np.float64]:
    return -10 * np.log10(np.maximum(mean_squared_error, 10 ** (-PSNR_LIMIT_DB / 10)))


def band_psnr(sums: Sums) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio per band in dB, (…, C), of data range 1; at most 120 dB."""
    return _decibel(_ratio(sums["squared_error"], sums["pixels"]))


def band_ssim(sums: Sums) -> NDArray[np.float64]:
    """Mean structural similarity per band, (…, C)."""
    return _ratio(sums["ssim"], sums["ssim_windows"])


def band_rmse(sums: Sums) -> NDArray[np.float64]:
    """Root mean squared error per band, (…, C)."""
    return np.sqrt(_ratio(sums["squared_error"], sums["pixels"]))


def band_nrmse(sums: Sums) -> NDArray[np.float64]:
    """RMSE over the root mean square of the target per band, (…, C) (scikit-image's "euclidean" normalisation)."""
    return np.sqrt(_ratio(sums["squared_error"], sums["target_squared"]))


def band_bias(sums: Sums) -> NDArray[np.float64]:
    """Mean of prediction - truth per band, (…, C)."""
    return _ratio(sums["error"], sums["pixels"])


def psnr(sums: Sums) -> NDArray[np.float64]:
    """Mean over bands of ``band_psnr``, (…)."""
    return band_psnr(sums).mean(-1)


def shifted_psnr(sums: Sums) -> NDArray[np.float64]:
    """``psnr`` after each chip was moved by up to one low-resolution pixel to where it fits best, (…)."""
    return _decibel(_ratio(sums["shifted_squared_error"], sums["shifted_pixels"])).mean(-1)


def spectral_angle(sums: Sums) -> NDArray[np.float64]:
    """Mean angle between spectra in degrees, (…) (SAM, Kruse et al. 1993)."""
    return _ratio(sums["sam"], sums["sam_pixels"])[..., 0]


def ergas(sums: Sums) -> NDArray[np.float64]:
    """Relative dimensionless global error, 100 (10/30) sqrt(mean over bands of (RMSE / mean of the target)²), (…)."""
    relative = _ratio(band_rmse(sums), _ratio(sums["target"], sums["pixels"]))
    return 100 * RESOLUTION_RATIO * np.sqrt(np.square(relative).mean(-1))


def index_correlation(sums: NDArray) -> NDArray[np.float64]:
    """Pearson's r of an index from its sums (…, 8), (…); NaN where target or prediction is constant."""
    n, t, p, tt, pp, tp = np.moveaxis(sums[..., :6], -1, 0)
    variances = [n * squared - total * total for squared, total in ((tt, t), (pp, p))]
    # What rounding leaves of a constant is no variance.
    varies = [v > 1e-12 * n * squared for v, squared in zip(variances, (tt, pp), strict=True)]
    scale = np.sqrt(np.where(varies[0] & varies[1], variances[0] * variances[1], 0))
    return np.clip(_ratio(n * tp - t * p, scale), -1, 1)


def index_rmse(sums: NDArray) -> NDArray[np.float64]:
    """Root mean squared error of an index from its sums (…, 8), (…)."""
    return np.sqrt(_ratio(sums[..., 7], sums[..., 0]))


def index_mae(sums: NDArray) -> NDArray[np.float64]:
    """Mean absolute error of an index from its sums (…, 8), (…)."""
    return _ratio(sums[..., 6], sums[..., 0])


def index_bias(sums: NDArray) -> NDArray[np.float64]:
    """Mean of prediction - truth of an index from its sums (…, 8), (…)."""
    return _ratio(sums[..., 2] - sums[..., 1], sums[..., 0])
