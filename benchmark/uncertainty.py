"""Confidence intervals and tests over units of inference (scenes, events, blocks), never over chips.

Everything starts from per-unit sums, shape (S, U, K): S seeds, U units, K sums that pool by adding (a flattened
confusion matrix, say), and a function ``value`` that maps pooled sums (..., K) to scores (...).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

LEVEL = 0.95
MIN_UNITS = 6  # below: no interval, every unit's score is shown
BOOTSTRAP_UNITS = 30  # from here on a bootstrap, below the jackknife-t
RESAMPLES = 10_000
RANDOM_SEED = 20_231_127
EXACT_UNITS = 12  # sign flips: all 2^U up to here
MIN_UNITS_RANK = 9  # below: the smallest p of a sign-flip test leaves nothing after Holm, so no rank
CHUNK = 1 << 22  # resampled weights held at a time

Value = Callable[[NDArray], NDArray[np.float64]]


@dataclass(frozen=True)
class Estimate:
    """Score of each seed on the whole split, (S,), and the 95 % interval of their mean (None below 6 units)."""

    seeds: NDArray[np.float64]
    low: float | None = None
    high: float | None = None
    method: str | None = None

    @property
    def mean(self) -> float:
        """Mean over the seeds, NaN when one of them has no score."""
        return float(self.seeds.mean())

    @property
    def sd(self) -> float | None:
        """Sample standard deviation over seeds; None below two."""
        return float(self.seeds.std(ddof=1)) if len(self.seeds) > 1 else None


def estimate(sums: ArrayLike, value: Value, *, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """Score and interval from per-unit sums (S, U, K).

    A unit whose sums are all zero carries no information on the score (a scene without dry pixels says nothing about
    a false-positive rate) and is left out, also of the number of units. Then by that number: from 30 a bootstrap
    that draws the units, and once per replicate the seeds (crossed, not nested); from 6 the delete-one jackknife with
    Student's t; below no interval. The interval is cut at ``bounds``.
    """
    sums = np.asarray(sums, np.float64)
    sums = sums[:, (sums != 0).any((0, 2))]
    n_units = sums.shape[1]
    seeds = np.asarray(value(sums.sum(1)), np.float64)
    if n_units < MIN_UNITS or not np.isfinite(seeds).all():
        return Estimate(seeds)
    method = "jackknife-t" if n_units < BOOTSTRAP_UNITS else "bootstrap"
    low, high = jackknife_t(sums, value) if method == "jackknife-t" else bootstrap(sums, value)
    if not np.isfinite((low, high)).all():  # the score hangs on one unit
        return Estimate(seeds)
    return Estimate(seeds, float(np.clip(low, *bounds)), float(np.clip(high, *bounds)), method)


def bootstrap(
    sums: NDArray, value: Value, resamples: int = RESAMPLES, random_seed: int = RANDOM_SEED, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile interval of the mean over seeds; PCG64 with a fixed seed, so the same sums give the same interval.

    Args:
        sums: (S, U, K) float64.
        value: pooled sums (..., K) to scores (...).

    Returns:
        low, high; replicates without a defined score are left out.
    """
    n_seeds, n_units, _ = sums.shape
    generator = np.random.Generator(np.random.PCG64(random_seed))
    seed_weights = generator.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), resamples) / n_seeds
    scores = np.empty((resamples, n_seeds))
    step = max(1, CHUNK // n_units)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        times = generator.multinomial(n_units, np.full(n_units, 1 / n_units), stop - start).astype(np.float64)
        for seed in range(n_seeds):
            scores[start:stop, seed] = value(times @ sums[seed])
    replicates = (np.where(seed_weights > 0, scores, 0) * seed_weights).sum(1)  # a seed not drawn may be undefined
    tail = (1 - level) / 2
    low, high = np.nanquantile(replicates, (tail, 1 - tail))
    return float(low), float(high)


def jackknife_t(sums: NDArray, value: Value, level: float = LEVEL) -> tuple[float, float]:
    """Delete-one jackknife with Student's t on U - 1 degrees of freedom, of the mean over seeds.

    The jackknife sees the units' spread only; the variance of a mean of S seeds is added to it.
    Shapes as in ``bootstrap``.
    """
    n_seeds, n_units, _ = sums.shape
    total = sums.sum(1)
    whole = value(total)
    left_out = value(total[:, None] - sums).mean(0)  # (U,)
    variance = (n_units - 1) / n_units * np.square(left_out - left_out.mean()).sum()
    if n_seeds > 1:
        variance += whole.var(ddof=1) / n_seeds
    half = stdtrit(n_units - 1, (1 + level) / 2) * np.sqrt(variance)
    return float(whole.mean() - half), float(whole.mean() + half)


def sign_flip_p(differences: ArrayLike, resamples: int = RESAMPLES, random_seed: int = RANDOM_SEED) -> float:
    """Two-sided p of "the paired differences are symmetric around zero", by flipping their signs.

    Args:
        differences: (U,) score of model A minus that of model B, unit by unit; undefined ones (NaN) are left out.

    Returns:
        All 2^U flips up to 12 units, else ``resamples`` random ones (counting the observed one). 1.0 without units.
    """
    differences = np.asarray(differences, np.float64)
    return float(sign_flip_p_values(differences[None, ~np.isnan(differences)], resamples, random_seed)[0])


def sign_flip_p_values(
    differences: NDArray[np.float64], resamples: int = RESAMPLES, random_seed: int = RANDOM_SEED
) -> NDArray[np.float64]:
    """`sign_flip_p` of many pairs of models at once: (P, U) finite differences to (P,) p values, the same flips."""
    n_pairs, n_units = differences.shape
    if n_units <= EXACT_UNITS:
        signs = 1.0 - 2.0 * ((np.arange(2**n_units)[:, None] >> np.arange(n_units)) & 1)
    else:
        generator = np.random.Generator(np.random.PCG64(random_seed))
        signs = 1.0 - 2.0 * generator.integers(0, 2, (resamples, n_units))
        signs[0] = 1.0
    observed = np.abs(differences.sum(1)) * (1 - 1e-12) - 1e-15
    p_values = np.empty(n_pairs)
    step = max(1, CHUNK // len(signs))
    for start in range(0, n_pairs, step):
        some = slice(start, start + step)
        p_values[some] = np.mean(np.abs(signs @ differences[some].T) >= observed[some], axis=0)
    return p_values


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Holm's step-down adjustment of a family of p values, in the order given."""
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1)
    return adjusted
