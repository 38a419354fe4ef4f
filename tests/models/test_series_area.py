"""Areas, their errors and trends against numbers from the literature, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import CRS, Geod, Transformer
from tidemark.datasets.raster import Grid
from tidemark.errors import SceneError
from tidemark.models.ground_area import ground_area_km2
from tidemark.models.series_area import corrected_area, error_rates, sampled_area, stratified_area, trend


def test_the_published_example_of_a_stratified_sample():
    """Olofsson et al. 2014, section 5: deforestation 21 158 ± 6 158 ha of a map with 10 million pixels of 30 m."""
    mapped = np.array([200_000, 150_000, 3_200_000, 6_450_000]) * 0.09
    sample = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    area, error = stratified_area(mapped, sample)
    np.testing.assert_allclose(area, [21_158, 11_686, 285_770, 581_386], atol=0.5)
    np.testing.assert_allclose(1.96 * error, [6_158, 3_756, 15_510, 16_282], atol=0.5)
    with pytest.raises(ValueError, match="less than two sample points"):
        stratified_area([1, 1], [[1, 0], [5, 5]])


def test_a_sample_of_two_classes_by_hand():
    # 100 km2, 20 mapped as water: 80 · 5/50 + 20 · 45/50 = 26; variance 80² · .09/49 + 20² · .09/49
    found = sampled_area(20, 100, [[45, 5], [5, 45]])
    half = 1.959964 * np.sqrt((6400 + 400) * 0.09 / 49)
    assert found.value == pytest.approx(26) and found.high - found.value == pytest.approx(half, rel=1e-6)
    assert found.value - found.low == pytest.approx(half, rel=1e-6)


def scene(hits, missed, false, right):
    """Truth in rows (dry, water), map in columns."""
    return [[right, false], [missed, hits]]


def test_rates_and_corrected_area_by_hand():
    # 90 of 100 true water pixels found, 20 of 1000 dry ones mapped as water, in six equal scenes
    rates = error_rates([scene(90, 10, 20, 980)] * 6, 1)
    assert (rates.recall, rates.false_rate, rates.scenes) == (0.9, 0.02, 6)
    np.testing.assert_allclose(rates.covariance, 0, atol=1e-20)
    # true 50 of 1000 km2: mapped 0.9 · 50 + 0.02 · 950 = 64
    found = corrected_area(64, 1000, rates)
    assert found == pytest.approx((50, 50, 50))
    assert corrected_area(10, 1000, rates) == (0, 0, 0)  # fewer than the false ones alone
    dry = error_rates([scene(90, 10, 20, 980)] * 6, 0)
    assert (dry.recall, dry.false_rate) == (0.98, 0.1)


def test_the_interval_by_hand():
    """Recall 0.8 and 1.0 by turns, no false alarms: r = 0.9, var r = 0.012 · 7/6, A = M / r, dA = A dr / r."""
    rates = error_rates([scene(80, 20, 0, 100), scene(100, 0, 0, 100)] * 3, 1)
    assert rates.covariance[0, 0] == pytest.approx(6 * 0.01 / 5 * 7 / 6)
    found = corrected_area(90, 1000, rates)
    half = 2.570582 * 100 / 0.9 * np.sqrt(0.014)  # Student's t of 5 degrees
    assert found.value == pytest.approx(100)
    assert (found.low, found.high) == pytest.approx((max(0, 100 - half), 100 + half), rel=1e-6)


def test_few_scenes_give_no_interval_and_useless_maps_no_area():
    few = corrected_area(64, 1000, error_rates([scene(90, 10, 20, 980)] * 5, 1))
    assert few.value == pytest.approx(50) and np.isnan([few.low, few.high]).all()
    with pytest.raises(ValueError, match="tell nothing"):
        error_rates([scene(10, 90, 500, 500)], 1)
    with pytest.raises(ValueError, match="none or all"):
        error_rates([scene(0, 0, 1, 9)], 1)


def test_nine_of_ten_intervals_hold_the_true_area_of_a_new_scene():
    """Scenes with rates of their own; the interval is for a further scene, its area unlike theirs."""
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(400):
        confusions = []
        for recall, false in zip(rng.beta(45, 5, 12), rng.beta(2, 98, 12), strict=True):
            water = int(rng.integers(500, 1500))
            hits, wrong = int(recall * water), int(false * (10_000 - water))
            confusions.append(scene(hits, water - hits, wrong, 10_000 - water - wrong))
        truth, seen = 300.0, 1000.0
        mapped = rng.beta(45, 5) * truth + rng.beta(2, 98) * (seen - truth)
        found = corrected_area(mapped, seen, error_rates(confusions, 1))
        inside += found.low <= truth <= found.high
    assert 0.90 <= inside / 400 <= 0.99


def test_trends_by_hand():
    months = 2000 + (np.arange(48) + 0.5) / 12
    rising = trend(months, 10 + 2 * months)
    assert rising.slope == pytest.approx(2) and rising.p < 1e-10 and rising.seasonal_slope == pytest.approx(2)
    # Mann-Kendall of 1, 3, 2, 4 in time: S = 4 of 6 pairs; 4! orders, those with |S| >= 4: 2 (1 + 3) = 8
    short = trend([0.0, 1, 2, 3], [1, 3, 2, 4])
    assert short.p == pytest.approx(8 / 24) and short.slope == pytest.approx(0.75)  # of -1, .5, .5, 1, 2, 2
    assert np.isnan(trend([0, 1, 2], [1, 2, 3]).slope)
    assert trend(months, np.ones(48)).p == 1 and trend(months, np.ones(48)).seasonal_p == 1


def test_a_season_that_is_covered_unevenly_misleads_only_the_plain_trend():
    """Lakes as large every year, but winters (small) were only seen early on."""
    months = np.arange(72)
    area = 50 + 20 * np.sin(2 * np.pi * months / 12) + np.random.default_rng(0).normal(0, 0.5, 72)
    winter = np.sin(2 * np.pi * months / 12) < 0
    kept = ~winter | (months < 30)
    found = trend(2000 + (months[kept] + 0.5) / 12, area[kept])
    assert found.p < 0.05 and found.slope > 1
    assert found.seasonal_p > 0.05 and abs(found.seasonal_slope) < 0.3


def test_the_seasonal_p_by_hand():
    # two calendar months of three rising years: S = 3 + 3, variance 2 · 3 · 2 · 11 / 18, z = 5 / sqrt(22 / 3)
    years = [0.04, 1.04, 2.04, 0.54, 1.54, 2.54]
    found = trend(years, [1, 2, 3, 10, 11, 12])
    assert found.seasonal_slope == pytest.approx(1)
    assert found.seasonal_p == pytest.approx(0.0648, abs=1e-3)  # 2 (1 - Phi(1.8464))


@pytest.mark.parametrize(
    ("epsg", "transform", "tolerance"),
    [
        (4326, (0.001, 0, 85, 0, -0.001, 33), 2e-6),
        (32645, (10, 0, 300000, 0, -10, 3900000), 1e-8),
        (3413, (40, 0, 200000, 0, -40, -1700000), 1e-6),
        (3857, (10, 0, 9e6, 0, -10, 4e6), 1e-8),
        (2227, (100, 0, 6e6, 0, -100, 2e6), 1e-7),  # US survey feet
    ],
)
def test_pixels_have_the_area_of_their_outline_on_the_ellipsoid(epsg, transform, tolerance):
    crs, height, width = CRS(epsg), 300, 210
    grid = Grid(height, width, transform, crs.to_wkt())
    found = sum(ground_area_km2(grid, first, min(first + 128, height)).sum() for first in range(0, height, 128))
    a, _, c, _, e, f = transform
    side = np.linspace(0, 1, 400)
    x = c + a * width * np.concatenate([side, 0 * side + 1, side[::-1], 0 * side])
    y = f + e * height * np.concatenate([0 * side, side, 0 * side + 1, side[::-1]])
    outline = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
    body = Geod(a=crs.ellipsoid.semi_major_metre, b=crs.ellipsoid.semi_minor_metre)
    expected = abs(body.polygon_area_perimeter(*outline)[0]) / 1e6
    # Edges along parallels are no geodesics: that is what the tolerance is for.
    assert found == pytest.approx(expected, rel=tolerance)


def test_all_pixels_of_the_earth_are_the_earth():
    grid = Grid(180, 360, (1, 0, -180, 0, -1, 90), CRS(4326).to_wkt())
    assert ground_area_km2(grid, 0, 180).sum() == pytest.approx(510_065_621.724, rel=1e-9)  # WGS84's surface
    with pytest.raises(SceneError, match="areas are not known"):
        ground_area_km2(Grid(2, 2, (1, 0, 0, 0, -1, 0), None), 0, 2)
