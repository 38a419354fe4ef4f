"""Coverage and its calibration: golden values by hand, and what must hold for any errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemark.benchmark.intervals import (
    EDGES,
    correlation,
    coverage,
    error_by_sigma,
    factors_for,
    gaussian_factors,
    interval_sums,
    sharpness,
)


def sums_of(error, sigma):
    """Sums of one band whose truth is 0."""
    error, sigma = (np.asarray(x, np.float64).reshape(1, 1, -1) for x in (error, sigma))
    return interval_sums(np.zeros_like(error), error, sigma, np.ones(error.shape[1:], bool))


def test_coverage_of_four_pixels_is_counted_by_hand():
    ratios = sums_of([0.05, -0.09, 0.3, 0.0], [0.1, 0.1, 0.1, 0.1])["ratios"]  # 0.5, 0.9, 3 and 0 sigmas
    assert coverage(ratios, 1.0).tolist() == [0.75]
    assert coverage(ratios, 0.6).tolist() == [0.5]
    assert coverage(ratios, 0.1).tolist() == [0.25]
    assert coverage(ratios, 4.0).tolist() == [1.0]


def test_the_gaussian_factors_are_the_known_ones():
    np.testing.assert_allclose(gaussian_factors([0.6827, 0.9545, 0.95]), [1.0, 2.0, 1.95996], atol=1e-4)


def test_gaussian_errors_are_covered_as_stated_and_their_factors_are_the_gaussian_ones():
    generator = np.random.default_rng(0)
    sigma = generator.uniform(0.005, 0.05, 400_000)
    ratios = sums_of(generator.normal(0, sigma), sigma)["ratios"]
    levels = [0.3, 0.68, 0.95]
    for level, factor in zip(levels, gaussian_factors(levels), strict=True):
        assert coverage(ratios, factor)[0] == pytest.approx(level, abs=0.003)
    np.testing.assert_allclose(factors_for(ratios, levels)[0], gaussian_factors(levels), rtol=0.01)


def test_heavy_tails_need_a_factor_for_each_level():
    generator = np.random.default_rng(1)
    error, fresh = 0.01 * generator.standard_t(2, (2, 400_000))
    sigma = np.full_like(error, 0.004)
    low, high = factors_for(sums_of(error, sigma)["ratios"], [0.68, 0.95])[0]
    assert high / low > 2.5  # a Gaussian's are 1.97 apart
    ratios = sums_of(fresh, sigma)["ratios"]
    assert coverage(ratios, low)[0] == pytest.approx(0.68, abs=0.005)
    assert coverage(ratios, high)[0] == pytest.approx(0.95, abs=0.005)


@given(
    errors=st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=50),
    level=st.floats(0.05, 0.95),
    scale=st.floats(0.1, 10.0),
)
def test_calibrated_intervals_cover_their_own_split_whatever_the_errors(errors, level, scale):
    sums = sums_of(errors, np.full(len(errors), 0.01 * scale))
    factor = factors_for(sums["ratios"], [level])[:, 0]
    bins = np.diff(np.cumsum(sums["ratios"][0]) / len(errors), prepend=0).max()  # the largest share of one bin
    assert abs(coverage(sums["ratios"], factor)[0] - level) <= bins + 1e-9


def test_factors_scale_with_the_errors():
    error = np.random.default_rng(2).exponential(0.02, 1000)
    one, double = (factors_for(sums_of(k * error, np.full(1000, 0.01))["ratios"], [0.68, 0.95]) for k in (1, 2))
    np.testing.assert_allclose(double, 2 * one, rtol=1e-9)


def test_sharpness_correlation_and_error_by_sigma_are_computed_by_hand():
    sums = sums_of([0.01, 0.01, 0.06, 0.02], [0.02, 0.02, 0.2, 0.2])
    assert sharpness(sums["moments"])[0] == pytest.approx(0.11)
    assert correlation(sums["moments"])[0] == pytest.approx(np.corrcoef([1, 1, 6, 2], [2, 2, 20, 20])[0, 1])
    np.testing.assert_allclose(error_by_sigma(sums["by_sigma"][0]), [[0.02, 0.01], [0.2, np.sqrt(0.002)]])


def test_sums_add_over_chips_and_only_valid_pixels_count():
    generator = np.random.default_rng(3)
    truth, mean = generator.random((2, 2, 6, 8))
    sigma = generator.uniform(0.01, 0.1, truth.shape)
    valid = generator.random((6, 8)) > 0.3
    spoiled = [np.where(valid, x, np.nan) for x in (truth, mean, sigma)]
    whole = interval_sums(*spoiled, valid)
    left, right = (
        interval_sums(*(x[..., part] for x in (truth, mean, sigma, valid))) for part in (np.s_[:4], np.s_[4:])
    )
    for name, value in whole.items():
        np.testing.assert_allclose(value, left[name] + right[name])
    assert whole["ratios"].sum() == 2 * valid.sum()


def test_an_answer_that_is_not_finite_is_never_covered():
    ratios = sums_of([np.nan, 0.0], [0.01, 0.01])["ratios"]
    assert coverage(ratios, 50.0)[0] == 0.5


def test_a_sigma_of_zero_covers_what_is_exact_alone():
    ratios = sums_of([0.0, 0.1], [0.0, 0.0])["ratios"]
    assert coverage(ratios, 2.0)[0] == 0.5


def test_nothing_counted_is_nan_and_cannot_calibrate():
    empty = np.zeros((1, len(EDGES) + 1), np.int64)
    assert np.isnan(coverage(empty, 1.0)[0])
    with pytest.raises(ValueError, match="no valid pixel"):
        factors_for(empty, [0.68])
    with pytest.raises(ValueError, match="between 0 and 1"):
        factors_for(empty + 1, [1.5])


@pytest.mark.parametrize("sigma", [-0.1, np.nan, np.inf])
def test_a_sigma_that_is_none_is_an_error(sigma):
    with pytest.raises(ValueError, match="sigma must be"):
        sums_of([0.1], [sigma])
