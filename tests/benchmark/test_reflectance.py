"""Every metric of harmonized reflectance against numbers computed by hand and the libraries that define the same."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import skimage.metrics
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemark.benchmark import reflectance

BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
INDICES = reflectance.index_bands(BANDS)


def constant(*values, size=20):
    """(C, size, size), one value a band: 4 x 4 pixels lie inside the border."""
    return np.tile(np.array(values, float)[:, None, None], (1, size, size))


def sums_of(truth, prediction, valid=None, indices=INDICES):
    valid = np.ones(truth.shape[1:], bool) if valid is None else valid
    return reflectance.chip_sums(truth, prediction, valid, indices)


def pair(seed=0, bands=6, size=40, noise=0.05):
    """A smooth image between 0.05 and 0.6 and a noisy copy."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    phase = random.random((bands, 2, 1, 1)) * 6
    truth = 0.3 + 0.2 * np.sin(7 * rows + phase[:, 0]) * np.cos(5 * columns + phase[:, 1])
    return truth, truth + random.normal(0, noise, truth.shape)


def inside(image):
    return image[..., 8:-8, 8:-8]


def test_scores_of_constant_bands_by_hand():
    truth, prediction = constant(0.2, 0.4), constant(0.3, 0.4)
    sums = sums_of(truth, prediction, indices={})
    assert sums["pixels"] == 16 and sums["squared_error"] == pytest.approx([0.16, 0])
    assert reflectance.band_psnr(sums) == pytest.approx([20, 120])  # 10 log10(1 / 0.01); no error at all: 120
    assert reflectance.psnr(sums) == pytest.approx(70)
    assert reflectance.band_rmse(sums) == pytest.approx([0.1, 0])
    assert reflectance.band_nrmse(sums) == pytest.approx([0.1 / 0.2, 0])
    assert reflectance.band_bias(sums) == pytest.approx([0.1, 0])
    # Means 0.2 and 0.3, no variance: (2 * 0.06 + 1e-4) / (0.13 + 1e-4)
    assert reflectance.band_ssim(sums) == pytest.approx([0.1201 / 0.1301, 1])
    # 100 / 3 * sqrt(mean((0.1 / 0.2)², 0))
    assert reflectance.ergas(sums) == pytest.approx(100 / 3 * np.sqrt(0.125))
    # Between (1, 2) and (3, 4): cos = 11 / sqrt(5 * 25)
    assert reflectance.spectral_angle(sums) == pytest.approx(np.degrees(np.arccos(11 / np.sqrt(125))))


def test_indices_by_hand():
    # NDVI 0.5 and 0.6; NDWI1 (0.6 - 0.2) / 0.8 = 0.5 and (0.8 - 0.2) / 1 = 0.6; NDWI2 0.2 and 1/3.
    truth, prediction = constant(0, 0, 0.2, 0.6, 0.2, 0.4), constant(0, 0, 0.2, 0.8, 0.2, 0.4)
    sums = sums_of(truth, prediction)
    for key, expected in (("ndvi", 0.1), ("ndwi1", 0.1), ("ndwi2", 1 / 3 - 0.2)):
        assert sums[key][0] == 16
        assert reflectance.index_rmse(sums[key]) == pytest.approx(expected)
        assert reflectance.index_mae(sums[key]) == pytest.approx(expected)
        assert reflectance.index_bias(sums[key]) == pytest.approx(expected)
        assert np.isnan(reflectance.index_correlation(sums[key]))  # constants do not correlate


def test_the_target_alone_decides_where_an_index_counts():
    truth, prediction = constant(0, 0, 0.01, 0.01, 0.3, 0.3), constant(0, 0, 0.3, 0.3, 0.0, 0.0)
    prediction[3:5, 8] = np.array([0.3, -0.1])[:, None]  # a row with an index of 0.4 / 0.2, which is cut at 1
    sums = sums_of(truth, prediction)
    assert sums["ndvi"].tolist() == [0] * 8  # NIR + red is 0.02
    # t = (0.01 - 0.3) / 0.31; prediction (0.3 - 0) / 0.3 = 1
    assert reflectance.index_bias(sums["ndwi1"]) == pytest.approx(1 + 0.29 / 0.31)
    black = sums_of(truth, np.zeros_like(truth))
    assert reflectance.index_bias(black["ndwi1"]) == pytest.approx(0.29 / 0.31)  # index 0, but still counted


def test_index_names_need_their_bands():
    assert INDICES == {"ndvi": (3, 2), "ndwi1": (3, 4), "ndwi2": (3, 5)}
    assert reflectance.index_bands(("Red", "NIR")) == {"ndvi": (1, 0)}
    assert reflectance.index_bands(("b1", "b2")) == {}


def test_nothing_valid_is_undefined_not_zero():
    truth = constant(0.2, 0.4, 0.1, 0.3, 0.2, 0.2)
    sums = sums_of(truth, truth, np.zeros((20, 20), bool))
    for score in (reflectance.psnr, reflectance.shifted_psnr, reflectance.spectral_angle, reflectance.ergas):
        assert np.isnan(score(sums))
    for score in (reflectance.band_ssim, reflectance.band_rmse, reflectance.band_nrmse, reflectance.band_bias):
        assert np.isnan(score(sums)).all()
    for score in (reflectance.index_correlation, reflectance.index_rmse, reflectance.index_mae, reflectance.index_bias):
        assert np.isnan(score(sums["ndvi"]))


def test_a_band_of_zero_mean_has_no_relative_error():
    assert np.isnan(reflectance.ergas(sums_of(constant(0, 0.4), constant(0.1, 0.4), indices={})))


def test_an_answer_that_is_not_finite_is_the_farther_end_of_the_range():
    truth, prediction = constant(0.2, 0.9), constant(0.2, 0.9)
    prediction[:, 10, 10] = np.nan, np.inf
    prediction[:, 2, 2] = np.nan  # on the border
    sums = sums_of(truth, prediction, indices={})
    assert sums["squared_error"] == pytest.approx([0.8**2, 0.9**2])
    valid = np.ones((20, 20), bool)
    assert reflectance.abstained(prediction, valid) == 1
    valid[10, 10] = False
    assert reflectance.abstained(prediction, valid) == 0
    assert sums_of(truth, prediction, valid, {})["squared_error"].tolist() == [0, 0]


def test_a_black_spectrum_has_a_right_angle_to_any_other_and_a_black_target_none():
    truth, prediction = constant(0.2, 0.4), constant(0.2, 0.4)
    prediction[:, 9, 9] = 0
    truth[:, 10, 10] = 0
    sums = sums_of(truth, prediction, indices={})
    assert sums["sam"] == pytest.approx(90) and sums["sam_pixels"] == 15


def test_psnr_agrees_with_scikit_image_and_errors_with_scikit_learn():
    truth, prediction = pair()
    sums = sums_of(truth, prediction)
    t, p = inside(truth), inside(prediction)
    for band in range(6):
        expected = skimage.metrics.peak_signal_noise_ratio(t[band], p[band], data_range=1)
        assert reflectance.band_psnr(sums)[band] == pytest.approx(expected)
        nrmse = skimage.metrics.normalized_root_mse(t[band], p[band])
        assert reflectance.band_nrmse(sums)[band] == pytest.approx(nrmse)
        rmse = sklearn.metrics.root_mean_squared_error(t[band].ravel(), p[band].ravel())
        assert reflectance.band_rmse(sums)[band] == pytest.approx(rmse)


def test_ssim_agrees_with_scikit_image():
    truth, prediction = pair(size=50)
    truth[:, 20:30, 20:30] = 0.05  # flat ground, where a variance is nearly 0
    ours = reflectance.band_ssim(sums_of(truth, prediction))
    for band in range(6):
        _, full = skimage.metrics.structural_similarity(
            truth[band], prediction[band], data_range=1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, full=True,
        )  # fmt: skip
        assert ours[band] == pytest.approx(inside(full).mean(), abs=1e-12)


def test_a_window_with_an_invalid_pixel_does_not_count():
    truth, prediction = pair(size=60)
    valid = np.ones((60, 60), bool)
    valid[30, 25] = False
    truth[:, 30, 25], prediction[:, 30, 25] = np.nan, 99
    sums = sums_of(truth, prediction, valid)
    clean, other = np.nan_to_num(truth, nan=0.1), np.where(valid, prediction, 0.7)
    _, full = skimage.metrics.structural_similarity(
        clean[0], other[0], data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    touched = np.zeros((60, 60), bool)
    touched[25:36, 20:31] = True
    kept = inside(~touched)
    assert sums["ssim_windows"] == 44 * 44 - 121 == kept.sum()
    assert sums["ssim"][0] == pytest.approx(inside(full)[kept].sum())
    assert sums["pixels"] == 44 * 44 - 1


def test_angle_and_relative_error_agree_with_torchmetrics():
    import tidemark._compat  # noqa: F401  (before torchvision)
    import torch
    from torchmetrics.functional.image import (
        error_relative_global_dimensionless_synthesis,
        spectral_angle_mapper,
        structural_similarity_index_measure,
    )

    truth, prediction = pair()
    sums = sums_of(truth, prediction)
    t, p = (torch.from_numpy(inside(image).copy())[None] for image in (truth, prediction))
    radians = float(spectral_angle_mapper(p, t))
    assert reflectance.spectral_angle(sums) == pytest.approx(np.degrees(radians), rel=1e-6)
    theirs = float(error_relative_global_dimensionless_synthesis(p, t, ratio=1))  # 100 / ratio
    assert reflectance.ergas(sums) == pytest.approx(theirs / 3, rel=1e-6)
    t, p = (torch.from_numpy(image)[None] for image in (truth, prediction))
    _, full = structural_similarity_index_measure(p, t, sigma=1.5, data_range=1.0, return_full_image=True)
    assert reflectance.band_ssim(sums) == pytest.approx(inside(full[0].numpy()).mean((1, 2)), abs=1e-6)


@pytest.mark.parametrize(("key", "a", "b"), [("ndvi", 3, 2), ("ndwi1", 3, 4), ("ndwi2", 3, 5)])
def test_indices_agree_with_scipy_and_scikit_learn(key, a, b):
    truth, prediction = pair(noise=0.02)
    t, p = ((inside(i)[a] - inside(i)[b]) / (inside(i)[a] + inside(i)[b]) for i in (truth, prediction))
    t, p = t.ravel().clip(-1, 1), p.ravel().clip(-1, 1)
    sums = sums_of(truth, prediction)[key]
    assert reflectance.index_correlation(sums) == pytest.approx(scipy.stats.pearsonr(t, p).statistic)
    assert reflectance.index_rmse(sums) == pytest.approx(sklearn.metrics.root_mean_squared_error(t, p))
    assert reflectance.index_mae(sums) == pytest.approx(sklearn.metrics.mean_absolute_error(t, p))
    assert reflectance.index_bias(sums) == pytest.approx((p - t).mean())


@pytest.mark.parametrize("shift", [(0, 0), (3, -3), (-2, 1)])
def test_the_best_shift_undoes_a_misregistration(shift):
    random = np.random.default_rng(4)
    scene = random.random((2, 60, 60))
    truth = scene[:, 10:50, 10:50]
    prediction = scene[:, 10 - shift[0] : 50 - shift[0], 10 - shift[1] : 50 - shift[1]] + 0.1
    sums = sums_of(truth, prediction, indices={})
    assert reflectance.shifted_psnr(sums) == pytest.approx(20)
    assert (reflectance.psnr(sums) < 10) == (shift != (0, 0))
    assert sums["shifted_pixels"] == 24 * 24


def test_a_shift_of_four_pixels_is_not_undone():
    scene = np.random.default_rng(4).random((2, 60, 60))
    sums = sums_of(scene[:, 10:50, 10:50], scene[:, 14:54, 10:50], indices={})
    assert reflectance.shifted_psnr(sums) < 10


@pytest.mark.parametrize(("offset", "rows"), [(11, 12), (9, 11)])
def test_a_shift_compares_valid_pixels_with_valid_ones(offset, rows):
    """Rows 8 to 19 of the target are valid; the last one's partner below is not."""
    scene = np.random.default_rng(4).random((1, 60, 60))
    truth, prediction = scene[:, 10:50, 10:50], scene[:, offset : offset + 40, 10:50].copy()
    valid = np.ones((40, 40), bool)
    valid[20:] = False
    prediction[:, 20:] = 5
    sums = sums_of(truth, prediction, valid, {})
    assert sums["shifted_pixels"] == rows * 24 and reflectance.shifted_psnr(sums) == 120


def test_no_shift_wins_a_tie():
    valid = np.ones((20, 20), bool)
    valid[13, 13] = False  # a partner of pixels inside at some shifts, itself in the border
    sums = sums_of(constant(0.2), constant(0.2), valid, {})
    assert sums["shifted_pixels"] == sums["pixels"] == 16


@pytest.mark.parametrize("size", [16, 10])
def test_a_chip_that_the_border_uses_up_is_refused(size):
    with pytest.raises(ValueError, match="nothing inside a border of 8 px"):
        sums_of(constant(0.1, size=size), constant(0.1, size=size), indices={})


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="shape"):
        sums_of(constant(0.1, 0.2), constant(0.1), indices={})


chips = st.integers(0, 10_000).map(lambda seed: pair(seed, size=22))


@settings(max_examples=15)
@given(st.lists(chips, min_size=2, max_size=4), st.randoms())
def test_the_order_of_the_chips_and_their_shards_change_nothing(pairs, random):
    def total(some):
        parts = [sums_of(*chip) for chip in some]
        return {key: sum(part[key] for part in parts) for key in parts[0]}

    turned = pairs[:]
    random.shuffle(turned)
    cut = random.randint(1, len(pairs) - 1)
    whole, parts = total(pairs), [total(turned[:cut]), total(turned[cut:])]
    for key, expected in whole.items():
        assert parts[0][key] + parts[1][key] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=15)
@given(chips, st.integers(0, 10_000))
def test_what_lies_on_invalid_pixels_changes_nothing(images, seed):
    random = np.random.default_rng(seed)
    valid = random.random((22, 22)) < 0.9
    others = [np.where(valid, i, random.choice([np.nan, -3.0, 7.0], i.shape)) for i in images]
    expected, found = sums_of(*images, valid), sums_of(*others, valid)
    assert {key: values.tolist() for key, values in found.items()} == {
        key: values.tolist() for key, values in expected.items()
    }


@settings(max_examples=15)
@given(chips, st.permutations(range(6)))
def test_the_order_of_the_bands_permutes_bands_and_keeps_the_rest(images, order):
    truth, prediction = images
    turned = reflectance.index_bands([BANDS[i] for i in order])
    expected = sums_of(truth, prediction)
    found = reflectance.chip_sums(truth[list(order)], prediction[list(order)], np.ones((22, 22), bool), turned)
    for key, values in expected.items():
        assert found[key] == pytest.approx(values[list(order)] if len(values) == 6 else values)


@settings(max_examples=15)
@given(chips)
def test_no_score_is_better_than_that_of_a_perfect_answer(images):
    sums, perfect = sums_of(*images), sums_of(images[0], images[0])
    assert reflectance.psnr(sums) <= reflectance.shifted_psnr(sums) + 1e-9 <= 120 + 2e-9
    assert reflectance.psnr(perfect) == 120 and reflectance.spectral_angle(perfect) == reflectance.ergas(perfect) == 0
    assert reflectance.band_ssim(perfect) == pytest.approx(np.ones(6))
    assert (reflectance.band_ssim(sums) <= 1).all() and reflectance.spectral_angle(sums) >= 0
    assert reflectance.index_correlation(perfect["ndvi"]) == pytest.approx(1)


def test_reflectance_imports_nothing_of_ours_and_no_torch():
    import subprocess
    import sys

    code = (
        "import importlib.util, sys; s = importlib.util.spec_from_file_location('m', sys.argv[1]); "
        "m = importlib.util.module_from_spec(s); s.loader.exec_module(m); "
        "assert not any(n.split('.')[0] in ('torch', 'tidemark', 'scipy') for n in sys.modules)"
    )
    subprocess.run([sys.executable, "-P", "-c", code, reflectance.__file__], check=True)
