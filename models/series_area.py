"""From mapped area to true area: what a map's errors make of it, how sure that is, and the trend of many months.

Two estimators, for two kinds of knowledge about the errors. A is the true area of the class in the ground that was
seen (R), M the area that is mapped as the class.

*Rates* (`corrected_area`). Of the true class a share r is mapped as such (recall, producer's accuracy), of the other
ground a share f (false-positive rate): E[M] = r A + f (R - A), hence A = (M - f R) / (r - f). This inverts the matrix
of p(map | truth) (Rogan & Gladen 1978, Am. J. Epidemiol. 107, 71-76; Tenenbein 1970, JASA 65, 1350-1361; for maps Card
1982, Photogramm. Eng. Remote Sens. 48, 431-439). It holds wherever both rates hold, however much water there is, and
so suits rates that were measured on other scenes. Linearised, dA = -(A dr + (R - A) df) / (r - f). The rates of a map
differ from scene to scene; their covariance is that between the scenes of the record, as it is for one further scene.

*Sample* (`stratified_area`). Of n_i points drawn at random in the ground mapped as i, n_ij are j in truth: A_j = R
sum_i W_i n_ij / n_i with W_i the share of i in the map, and the variance R² sum_i W_i² p_ij (1 - p_ij) / (n_i - 1)
(Olofsson et al. 2013, Remote Sens. Environ. 129, 122-131; 2014, 148, 42-57, eqs. 9-11). It needs a probability sample
of the very maps: the shares p(truth | map), user's accuracies, change with the amount of water.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
MIN_SCENES = 6  # below: no interval, as in the tables of scores
MIN_MONTHS = 4  # below: no trend; four values in order already have p = 0.08


@dataclass(frozen=True)
class ErrorRates:
    """How maps of other scenes were wrong.

    Attributes:
        recall: share of the true class that is mapped as such.
        false_rate: share of the other ground that is mapped as the class.
        covariance: float64 (2, 2) of both for one further scene; NaN below six scenes.
        scenes: number of scenes behind them.
    """

    recall: float
    false_rate: float
    covariance: NDArray[np.float64]
    scenes: int


class Area(NamedTuple):
    """Estimate and 95 % interval in the unit of the areas given; NaN without an interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Trend:
    """Slope a year with 95 % interval (Theil-Sen), two-sided p (Mann-Kendall), and both by calendar month."""

    months: int
    slope: float
    low: float
    high: float
    p: float
    seasonal_slope: float
    seasonal_p: float


def error_rates(confusions: ArrayLike, number: int) -> ErrorRates:
    """Rates of one class from the confusion matrices of scenes.

    Both rates are ratios of sums over scenes, r = sum TP / sum P. Scene u lies (TP_u - r P_u) / mean P beside r, which
    is the ratio estimator's residual: its covariance over scenes, times 1 + 1 / U, is that of a further scene.

    Args:
        confusions: integers (U, n, n), truth in rows, map in columns.
        number: of the class.

    Raises:
        ValueError: the class, or everything else, is absent, or the map tells nothing about the class.
    """
    counts = np.asarray(confusions, np.float64)
    units = len(counts)
    hits, positives = counts[:, number, number], counts[:, number].sum(1)
    false, negatives = counts[:, :, number].sum(1) - hits, counts.sum((1, 2)) - positives
    if not positives.sum() or not negatives.sum():
        raise ValueError("the class fills none or all of the scenes")
    recall, false_rate = hits.sum() / positives.sum(), false.sum() / negatives.sum()
    if recall <= false_rate:
        raise ValueError(f"the maps tell nothing about the class: recall {recall:.3g}, false rate {false_rate:.3g}")
    residuals = [(hits - recall * positives) / positives.mean(), (false - false_rate * negatives) / negatives.mean()]
    covariance = np.cov(residuals) * (1 + 1 / units) if units >= MIN_SCENES else np.full((2, 2), np.nan)
    return ErrorRates(float(recall), float(false_rate), covariance, units)


def corrected_area(mapped: float, seen: float, rates: ErrorRates) -> Area:
    """True area of the class by rates, cut at 0 and ``seen``; the interval has Student's t of ``scenes - 1``."""
    gap = rates.recall - rates.false_rate
    value = (mapped - rates.false_rate * seen) / gap
    pull = np.array([value, seen - value]) / gap
    half = stats.t.ppf(0.5 + LEVEL / 2, rates.scenes - 1) * np.sqrt(pull @ rates.covariance @ pull)
    return Area(*(float(v) for v in np.clip([value, value - half, value + half], 0, seen)))


def stratified_area(mapped: ArrayLike, sample: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True areas of all classes, and their standard errors, by a stratified random sample.

    Args:
        mapped: (n,) area that is mapped as each class.
        sample: integers (n, n), number of points by class in the map (rows) and in truth (columns).

    Raises:
        ValueError: a class that is mapped has less than two points.
    """
    mapped, sample = np.asarray(mapped, np.float64), np.asarray(sample, np.float64)
    points = sample.sum(1)
    if (points[mapped > 0] < 2).any():
        raise ValueError("a class of the map has less than two sample points")
    shares = np.divide(sample, points[:, None], out=np.zeros_like(sample), where=points[:, None] > 0)
    variance = shares * (1 - shares) / np.maximum(points - 1, 1)[:, None]
    return mapped @ shares, np.sqrt(mapped**2 @ variance)


def sampled_area(mapped: float, seen: float, sample: ArrayLike) -> Area:
    """Area of the second of two classes (other, class) by a sample, with the normal 95 % interval, cut like above."""
    values, errors = stratified_area([seen - mapped, mapped], sample)
    half = stats.norm.ppf(0.5 + LEVEL / 2) * errors[1]
    return Area(*(float(v) for v in np.clip([values[1], values[1] - half, values[1] + half], 0, seen)))


def trend(years: ArrayLike, values: ArrayLike) -> Trend:
    """Trend of monthly values.

    Slope and interval are Theil-Sen's over all pairs of months, p is Mann-Kendall's (Kendall's tau of value and time;
    exact without ties for few months). Both take months as independent. Where seasons are unevenly covered they
    mislead: the seasonal slope is the median over pairs of the same calendar month, the seasonal p that of Hirsch et
    al. 1982 (Water Resour. Res. 18, 107-121): S and its variance summed over calendar months, normal, with continuity.

    Args:
        years: (T,) decimal years of the months' middle.
        values: (T,) of any unit.
    """
    x, y = np.asarray(years, np.float64), np.asarray(values, np.float64)
    if len(y) < MIN_MONTHS:
        return Trend(len(y), *[float("nan")] * 6)
    sen = stats.theilslopes(y, x, LEVEL)
    p = float(stats.kendalltau(x, y).pvalue) if np.ptp(y) else 1.0
    slope, seasonal_p = _seasonal(x, y)
    return Trend(len(y), float(sen.slope), float(sen.low_slope), float(sen.high_slope), p, slope, seasonal_p)


def _seasonal(x: NDArray, y: NDArray) -> tuple[float, float]:
    """Slope and p by calendar month; NaN where no calendar month has three values, so that p could never be small."""
    season = np.floor((x % 1) * 12).astype(int)
    slopes, score, variance, most = [], 0.0, 0.0, 0
    for month in np.unique(season):
        own = season == month
        t, v, n = x[own], y[own], int(own.sum())
        first, second = np.triu_indices(n, 1)
        steps = v[second] - v[first]
        slopes.append(steps / (t[second] - t[first]))
        score += np.sign(steps).sum()
        ties = np.unique(v, return_counts=True)[1]
        variance += (n * (n - 1) * (2 * n + 5) - (ties * (ties - 1) * (2 * ties + 5)).sum()) / 18
        most = max(most, n)
    if most < 3:
        return float("nan"), float("nan")
    z = (score - np.sign(score)) / np.sqrt(variance) if variance else 0.0
    return float(np.median(np.concatenate(slopes))), float(2 * stats.norm.sf(abs(z)))
