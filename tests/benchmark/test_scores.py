"""Every column of the protocol, by task, against numbers computed by hand from the integers of a few units."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tidemark.benchmark.figures import Counts, figures
from tidemark.benchmark.reflectance import chip_sums, index_bands
from tidemark.benchmark.scores import as_metric, estimates, unit_scores

WATER = ("dry", "water")
ICE = ("water", "ice", "land")
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")

# Rows = truth. Scene 1: TP 6, FN 2, FP 2, TN 90. Scene 2: TP 1, FN 1, FP 0, TN 8. Scene 3: no water, FP 1 of 10.
SCENES = np.array([[[90, 2], [2, 6]], [[8, 0], [1, 1]], [[9, 1], [0, 0]]])
BOUNDARY = np.array([[10, 8, 12, 9], [2, 2, 2, 1], [2, 0, 0, 0]])

# Two scenes of three classes; land is nowhere in the first.
POLAR = np.array([[[5, 1, 0], [2, 4, 0], [0, 0, 0]], [[3, 0, 1], [0, 2, 0], [1, 0, 6]]])


def values(task, names, counts):
    return {key: found.mean for key, found in estimates(task, names, counts).items()}


def test_every_column_of_binary_water_by_hand():
    found = values("binary-segmentation", WATER, Counts(SCENES[None], BOUNDARY[None]))
    precision, recall = 10 / 14, 10 / 14  # of boundary pixels: (8 + 2 + 0) / (10 + 2 + 2), (9 + 1) / (12 + 2)
    assert found == pytest.approx(
        {
            "iou": 7 / 13,  # 7 / (7 + 3 FP + 3 FN)
            "scene_mean_iou": (6 / 10 + 1 / 2 + 0) / 3,
            "worst_decile_iou": 0,
            "precision": 7 / 10,
            "recall": 7 / 10,
            "f1": 14 / 20,
            "oa": 114 / 120,
            "boundary_f1": 2 * precision * recall / (precision + recall),
            "dry_false_positive_rate": 1 / 10,  # of scene 3 alone
        }
    )


def test_every_column_of_three_class_scenes_by_hand():
    found = values("segmentation", ICE, Counts(POLAR[None]))
    # Pooled: [[8, 1, 1], [2, 6, 0], [1, 0, 6]]
    iou = {"water": 8 / 13, "ice": 6 / 9, "land": 6 / 8}
    assert found == pytest.approx(
        {
            "mean_iou": sum(iou.values()) / 3,
            "oa": 20 / 25,
            **{f"iou:{name}": value for name, value in iou.items()},
            "precision:water": 8 / 11,
            "precision:ice": 6 / 7,
            "precision:land": 6 / 7,
            "recall:water": 8 / 10,
            "recall:ice": 6 / 8,
            "recall:land": 6 / 7,
        }
    )


def test_every_column_of_patches_by_hand():
    found = values("classification", ICE, Counts(POLAR[None]))
    f1 = {"water": 16 / 21, "ice": 12 / 15, "land": 12 / 14}
    assert found["macro_f1"] == pytest.approx(sum(f1.values()) / 3)
    assert found["balanced_accuracy"] == pytest.approx((8 / 10 + 6 / 8 + 6 / 7) / 3)
    assert found["accuracy"] == 20 / 25
    assert {name: found[f"f1:{name}"] for name in ICE} == pytest.approx(f1)
    assert {f"{key}:{name}" for key in ("precision", "recall") for name in ICE} < found.keys()


def test_an_absent_class_is_null_in_its_unit_and_left_out_of_the_mean_there():
    first, second = unit_scores("segmentation", ICE, Counts(POLAR[None]))
    assert first["iou:land"] is first["recall:land"] is first["precision:land"] is None
    assert first["mean_iou"] == pytest.approx((5 / 8 + 4 / 7) / 2)
    assert second["iou:land"] == 6 / 8


def test_a_class_that_the_whole_split_lacks_is_null_not_zero():
    found = estimates("segmentation", ICE, Counts(POLAR[None, :1]))
    assert as_metric(found["iou:land"]).value is None
    assert found["mean_iou"].mean == pytest.approx((5 / 8 + 4 / 7) / 2)


def test_what_was_not_measured_is_null():
    found = estimates("binary-segmentation", WATER, Counts(SCENES[None]))
    assert as_metric(found["boundary_f1"]).value is None
    wet = estimates("binary-segmentation", WATER, Counts(SCENES[None, :2]))
    assert as_metric(wet["dry_false_positive_rate"]).value is None


def test_scores_are_means_over_seeds_of_pooled_scores():
    seeds = np.stack([SCENES, np.array([[[92, 0], [0, 8]], [[8, 0], [0, 2]], [[10, 0], [0, 0]]])])
    found = estimates("binary-segmentation", WATER, Counts(seeds))
    assert found["iou"].seeds == pytest.approx([7 / 13, 1]) and found["iou"].mean == pytest.approx(10 / 13)
    assert found["iou"].sd == pytest.approx(np.std([7 / 13, 1], ddof=1))


def locations(n, noise=0.05, bands=6):
    random = np.random.default_rng(3)
    truth = random.uniform(0.05, 0.6, (n, bands, 24, 24))
    prediction = truth + random.normal(0, noise, truth.shape) * random.uniform(0.5, 2, (n, 1, 1, 1))
    valid = np.ones((24, 24), bool)
    parts = [chip_sums(t, p, valid, index_bands(BANDS)) for t, p in zip(truth, prediction, strict=True)]
    return Counts(
        np.zeros((1, n, 0, 0), np.int64),
        sums={key: np.stack([part[key] for part in parts])[None] for key in parts[0]},
    )


def test_every_column_of_a_harmonization_is_the_mean_over_locations():
    counts = locations(4)
    found, units = values("harmonization", BANDS, counts), unit_scores("harmonization", BANDS, counts)
    by_band = [f"{key}:{band}" for key in ("psnr", "ssim", "nrmse", "rmse", "bias") for band in BANDS]
    by_index = [f"{key}_{what}" for key in ("ndvi", "ndwi1", "ndwi2") for what in ("r", "rmse", "mae", "bias")]
    whole = ["psnr", "psnr_shifted", "ssim", "nrmse", "rmse", "sam", "ergas"]
    assert list(found)[0] == "psnr" and set(found) == {*whole, *by_band, *by_index}
    for key, value in found.items():
        assert value == pytest.approx(np.mean([unit[key] for unit in units])), key
    for key in ("psnr", "ssim", "nrmse", "rmse"):
        assert found[key] == pytest.approx(np.mean([found[f"{key}:{band}"] for band in BANDS]))
    mean_squared = counts.sums["squared_error"][0, 0] / 64
    assert units[0]["psnr"] == pytest.approx((-10 * np.log10(mean_squared)).mean())


def test_intervals_of_decibels_and_degrees_are_not_cut_at_one():
    found = estimates("harmonization", BANDS, locations(8))
    for key in ("psnr", "sam", "ergas", "psnr:red"):
        assert 1 < found[key].low < found[key].mean < found[key].high, key
    assert found["bias:red"].low < 0 < found["bias:red"].high
    assert found["ndvi_r"].high <= 1


def test_bands_without_an_index_have_none():
    assert not any(figure.key.startswith("nd") for figure in figures("harmonization", ("b1", "b2")))


@settings(max_examples=40)
@given(arrays(np.int64, (7, 3, 3), elements=st.integers(0, 50)), st.permutations(range(7)))
def test_the_order_of_the_units_changes_nothing(confusion, order):
    for task, names in (("segmentation", ICE), ("classification", ICE)):
        one = estimates(task, names, Counts(confusion[None]))
        other = estimates(task, names, Counts(confusion[None, order]))
        for key, found in one.items():
            assert (found.mean, found.method) == pytest.approx((other[key].mean, other[key].method), nan_ok=True)
            if found.method:
                assert (found.low, found.high) == pytest.approx((other[key].low, other[key].high))


@settings(max_examples=40)
@given(arrays(np.int64, (5, 2, 2), elements=st.integers(0, 50)), st.integers(0, 4))
def test_a_unit_without_pixels_changes_no_pooled_score(confusion, place):
    padded = np.insert(confusion, place, 0, axis=0)
    boundary = np.tile([4, 3, 4, 2], (5, 1))
    one = values("binary-segmentation", WATER, Counts(confusion[None], boundary[None]))
    other = values("binary-segmentation", WATER, Counts(padded[None], np.insert(boundary, place, 0, axis=0)[None]))
    assert one == pytest.approx(other, nan_ok=True)
