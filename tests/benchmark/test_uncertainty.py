"""Intervals and tests against closed forms, brute force and their promised coverage."""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import scipy.stats
from tidemark.benchmark import metrics, uncertainty
from tidemark.benchmark.ranks import rank
from tidemark.benchmark.records import read_result
from tidemark.leaderboard import site


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def as_sums(values):
    """Per-unit values (S, U) as sums whose pooled score is their mean."""
    values = np.asarray(values, float)
    return np.stack([values, np.ones_like(values)], -1)


def iou(sums):
    return metrics.water_iou(sums.reshape(*sums.shape[:-1], 2, 2))


def test_jackknife_of_a_mean_is_students_t():
    values = np.random.default_rng(0).normal(0.5, 0.1, 12)
    low, high = uncertainty.jackknife_t(as_sums([values]), mean)
    expected = scipy.stats.t.interval(0.95, 11, values.mean(), scipy.stats.sem(values))
    assert (low, high) == pytest.approx(expected)


def test_jackknife_adds_the_variance_of_the_seeds():
    values = np.random.default_rng(0).normal(0.5, 0.1, 12)
    shifts = np.array([-0.1, 0.0, 0.1])
    low, high = uncertainty.jackknife_t(as_sums(values + shifts[:, None]), mean)
    half = scipy.stats.t.ppf(0.975, 11) * np.sqrt(scipy.stats.sem(values) ** 2 + 0.1**2 / 3)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_bootstrap_of_a_mean_is_near_the_normal_interval():
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    low, high = uncertainty.bootstrap(as_sums([values]), mean)
    sem = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * sem, abs=0.1 * sem)
    assert high == pytest.approx(values.mean() + 1.96 * sem, abs=0.1 * sem)


def test_bootstrap_crosses_seeds_with_units():
    """Three seeds that differ by a constant on every unit: the interval is at least as wide as their mean varies."""
    values = np.full((3, 40), 0.5) + np.array([-0.1, 0.0, 0.1])[:, None]
    low, high = uncertainty.bootstrap(as_sums(values), mean)
    assert (low, high) == pytest.approx((0.4, 0.6))  # 1 of 27 draws takes the lowest seed three times


def test_the_same_sums_give_the_same_interval_whatever_the_chunks(monkeypatch):
    sums = np.random.default_rng(2).integers(1, 50, (2, 35, 4)).astype(float)
    first = uncertainty.bootstrap(sums, iou, resamples=500)
    monkeypatch.setattr(uncertainty, "CHUNK", 35 * 7)
    assert uncertainty.bootstrap(sums, iou, resamples=500) == pytest.approx(first)


@pytest.mark.parametrize(
    ("units", "method"), [(1, None), (5, None), (6, "jackknife-t"), (29, "jackknife-t"), (30, "bootstrap")]
)
def test_the_method_goes_by_the_number_of_units(units, method):
    sums = np.random.default_rng(3).integers(1, 50, (1, units, 4))
    estimate = uncertainty.estimate(sums, iou)
    assert estimate.method == method
    if method is None:
        assert estimate.low is estimate.high is None
    else:
        assert 0 <= estimate.low <= estimate.mean <= estimate.high <= 1


def test_units_that_say_nothing_do_not_count_as_units():
    sums = np.random.default_rng(4).integers(1, 50, (1, 5, 4))
    padded = np.concatenate([sums, np.zeros((1, 40, 4), int)], 1)
    assert uncertainty.estimate(padded, iou).method is None
    assert uncertainty.estimate(padded, iou).mean == uncertainty.estimate(sums, iou).mean


def test_no_interval_where_the_score_hangs_on_one_unit():
    sums = np.zeros((1, 8, 4))
    sums[..., 0] = 10
    sums[0, 0] = [5, 1, 1, 3]  # the only unit with water
    estimate = uncertainty.estimate(sums, iou)
    assert estimate.mean == 3 / 5 and estimate.method is None


def test_an_undefined_score_has_no_interval_and_sd_needs_two_seeds():
    estimate = uncertainty.estimate(np.tile([4.0, 0, 0, 0], (1, 40, 1)), iou)
    assert np.isnan(estimate.mean) and estimate.method is None and estimate.sd is None
    assert uncertainty.estimate(as_sums([[0.4], [0.6]]), mean).sd == pytest.approx(0.2 / np.sqrt(2))


# Mean and standard deviation between units: logarithm of the size over 28 chips of 256 x 256, and logits of the share
# of water, of recall and of the share of false alarms.
SIZE, WATER, RECALL, FALSE = (-0.02, 0.59), (-1.38, 0.61), (1.14, 1.27), (-1.47, 0.63)
SEEDS, CROSSED = 0.1, 0.2  # logits: between seeds, and between seeds within a unit


def simulate(random, n_seeds, n_units, better=0.0):
    """Scenes as integers (S, U, 4), as different as real ones are; ``better`` is added to the logit of recall."""

    def rate(mean, spread, seeds=SEEDS, crossed=CROSSED):
        noise = random.normal(0, spread, n_units) + random.normal(0, seeds, (n_seeds, 1))
        return 1 / (1 + np.exp(-mean - noise - random.normal(0, crossed, (n_seeds, n_units))))

    pixels = 65536 * 28 * np.exp(random.normal(*SIZE, n_units))
    water = pixels * rate(*WATER, 0, 0)[0]
    found, false = water * rate(RECALL[0] + better, RECALL[1]), (pixels - water) * rate(*FALSE)
    return np.stack([pixels - water - false, false, water - found, found], -1).round()


def test_simulated_scenes_differ_as_real_ones_do():
    """Otsu's threshold on OMBRIA's three events and three validation blocks, from the committed records."""
    records = sorted((Path(site.__file__).parent / "submissions" / "ombria" / "v1" / "otsu").rglob("*.json"))
    units = np.array([unit.confusion for path in records for unit in read_result(path).units], float)
    assert len(units) == 6
    pixels, truth = units.sum((1, 2)), units.sum(2)
    recall, false = units[:, 1, 1] / truth[:, 1], units[:, 0, 1] / truth[:, 0]
    logits = [scipy.special.logit(share) for share in (truth[:, 1] / pixels, recall, false)]
    for values, expected in zip((np.log(pixels / 65536 / 28), *logits), (SIZE, WATER, RECALL, FALSE), strict=True):
        assert (values.mean(), values.std(ddof=1)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("units", [6, 12, 29, 30, 60])
def test_intervals_of_three_seeds_cover_at_least_ninety_percent(units, monkeypatch):
    monkeypatch.setattr(uncertainty, "bootstrap", partial(uncertainty.bootstrap, resamples=500))
    random = np.random.default_rng(20_240_501)
    truth = iou(simulate(random, 400, 10_000).sum(1)).mean()
    found = [uncertainty.estimate(simulate(random, 3, units), iou) for _ in range(400)]
    assert {e.method for e in found} == {"jackknife-t" if units < uncertainty.BOOTSTRAP_UNITS else "bootstrap"}
    assert 0.90 <= np.mean([e.low <= truth <= e.high for e in found]) <= 0.99


@pytest.mark.parametrize("units", [6, 29, 40])
def test_intervals_of_a_mean_over_locations_cover_at_least_ninety_percent(units, monkeypatch):
    """Harmonization: decibels of the locations, and 0.2 dB between seeds, are averaged without weights."""
    monkeypatch.setattr(uncertainty, "bootstrap", partial(uncertainty.bootstrap, resamples=500))
    random = np.random.default_rng(7)
    hits = []
    for _ in range(400):
        decibel = 30 + random.normal(0, 3, units) + random.normal(0, 0.2, (3, 1)) + random.normal(0, 0.3, (3, units))
        found = uncertainty.estimate(as_sums(decibel), mean, bounds=(-np.inf, np.inf))
        hits.append(found.low <= 30 <= found.high)
    assert 0.90 <= np.mean(hits) <= 0.99


def scene_scores(sums):
    """IoU of each scene, the mean over seeds, (U,)."""
    return iou(sums).mean(0)


def two_models(seed, better):
    """Three seeds of two models on the same 40 scenes; the second finds more of the water."""
    scenes = [simulate(np.random.default_rng(seed), 3, 40, shift) for shift in (0.0, better)]
    noise = np.random.default_rng(seed + 10_000).normal(0, CROSSED, (2, 3, 40))
    for sums, shift in zip(scenes, noise, strict=True):  # their errors differ also where their skill does not
        water = sums[..., 2] + sums[..., 3]
        found = water * scipy.special.expit(scipy.special.logit(sums[..., 3] / water) + shift)
        sums[..., 2], sums[..., 3] = water - found, found
    return scenes


def test_a_planted_difference_of_two_points_over_forty_scenes_separates():
    better, separated, differences = 0.235, [], []
    for seed in range(60):
        worse, best = two_models(seed, better)
        differences.append(iou(best.sum(1)).mean() - iou(worse.sum(1)).mean())
        separated.append(rank({"worse": scene_scores(worse), "better": scene_scores(best)}).ranks)
    assert np.mean(differences) == pytest.approx(0.02, abs=0.002)
    assert np.mean([ranks == {"worse": 2, "better": 1} for ranks in separated]) >= 0.95


def test_models_of_the_same_skill_share_a_rank_but_for_one_time_in_twenty():
    shared = []
    for seed in range(200):
        one, other = two_models(seed, 0.0)
        shared.append(set(rank({"one": scene_scores(one), "other": scene_scores(other)}).ranks.values()) == {1})
    assert np.mean(shared) >= 0.92  # 95 % expected; 200 draws scatter by 1.5 points


def test_two_identical_models_share_a_rank_and_their_difference_is_nothing():
    one, _ = two_models(0, 0.0)
    found = rank({"one": scene_scores(one), "copy": scene_scores(one.copy())})
    assert found.ranks == {"one": 1, "copy": 1} and set(found.p_values.values()) == {1}


def test_a_bootstrap_of_chips_would_not_cover():
    """Why the unit is the scene: chips of one scene share its difficulty."""
    random = np.random.default_rng(5)
    hits = 0
    for _ in range(100):
        scene = random.normal(0.5, 0.1, 10)
        chips = np.repeat(scene, 50) + random.normal(0, 0.02, 500)
        low, high = uncertainty.bootstrap(as_sums([chips]), mean, resamples=300)
        hits += low <= 0.5 <= high
    assert hits / 100 < 0.4


def test_sign_flips_are_exact_up_to_twelve_units():
    differences = np.array([0.1, 0.2, -0.05, 0.3, 0.02, 0.11, 0.07])
    flips = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=7)
    ]
    expected = np.mean([f >= abs(differences.sum()) - 1e-12 for f in flips])
    assert uncertainty.sign_flip_p(differences) == pytest.approx(expected)
    assert uncertainty.sign_flip_p(np.full(12, 0.01)) == 2 / 4096


def test_sign_flips_of_many_units_find_a_shift_and_no_shift():
    random = np.random.default_rng(6)
    assert uncertainty.sign_flip_p(random.normal(0.02, 0.02, 40)) < 0.001
    assert uncertainty.sign_flip_p(np.zeros(40)) == 1
    p_values = [uncertainty.sign_flip_p(random.normal(0, 0.1, 15), resamples=400) for _ in range(200)]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.04)


def test_sign_flips_leave_out_undefined_units():
    assert uncertainty.sign_flip_p([0.1, np.nan, 0.2, 0.1]) == uncertainty.sign_flip_p([0.1, 0.2, 0.1])
    assert uncertainty.sign_flip_p([np.nan]) == 1


def test_holm_by_hand():
    assert uncertainty.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert uncertainty.holm([0.9, 0.8]).tolist() == [1, 1]
