"""The trivial rows: fitted on the training split alone, and predicting every other split."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from tidemark.configs import make_config
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import Band
from tidemark.errors import ConfigError
from tidemark.models.baselines import fit_majority, fit_otsu, fit_predict, otsu_threshold
from tidemark.models.chip_arrays import Chip, ChipArrays, to_physical
from tidemark.models.forests import (
    channels_with_differences,
    fit_band_forest,
    fit_pixel_forest,
    local_means,
    patch_features,
    pixel_features,
)
from tidemark.models.predictions import Predictions
from tidemark.models.registry import list_models
from tidemark.models.runs import read_run

ROWS = ["all-dry", "all-wet", "band-forest", "majority", "otsu", "pixel-forest"]
REFLECTANCE_ROWS = ["band-linear", "bicubic", "bilinear", "histogram-matching", "nearest"]


def config(folder, model, seed=0, bands=(), **arguments):
    *_, root, name, version = folder.parts
    return make_config(
        {
            "DATA": {"ROOT": str(folder.parents[1]), "NAME": name, "VERSION": version, "BANDS": list(bands)},
            "MODEL": {"NAME": model, "ARGS": arguments},
            "SEED": seed,
        }
    )


@pytest.fixture(scope="module")
def water(tiny_dataset):
    return tiny_dataset(chips=3, shape=(2, 64, 64))


@pytest.fixture(scope="module")
def patches(tiny_dataset):
    return tiny_dataset(kind="classification", classes=3, chips=40, shape=(2, 16, 16), dtype="uint8")


def truth(folder, split):
    return {c.id: c.label for c in ChipArrays(folder, split)}


def predicted(run, folder, split):
    predictions = Predictions.open(run / split / "predictions.h5", folder, split)
    return {chip: predictions.read(chip) for chip in predictions.chip_ids}


def test_every_row_is_a_registered_model_without_weights():
    assert list_models(trained=False) == sorted(ROWS + REFLECTANCE_ROWS)


def test_stored_values_become_physical_and_invalid_where_any_band_is():
    bands = [Band(name="a", scale=0.5, offset=1, nodata=0), Band(name="b")]
    image, valid = to_physical(np.array([[[0, 4]], [[7, 8]]], np.uint16), bands)
    assert valid.tolist() == [[False, True]] and image.tolist() == [[[0, 3]], [[0, 8]]] and image.dtype == np.float32
    image, valid = to_physical(np.array([[[np.nan, 2]], [[1, 2]]], np.float32), [Band(name="a"), Band(name="b")])
    assert valid.tolist() == [[False, True]] and np.isfinite(image).all()


def test_partial_data_are_valid_where_any_band_is():
    bands = [Band(name="a", nodata=0), Band(name="b", nodata=0)]
    image, valid = to_physical(np.array([[[0, 4, 0]], [[7, 8, 0]]], np.uint16), bands, partial=True)
    assert valid.tolist() == [[True, True, False]] and image.tolist() == [[[0, 4, 0]], [[7, 8, 0]]]


@pytest.mark.parametrize("model", ["majority", "pixel-forest"])
def test_maps_of_three_classes_have_trivial_rows(tiny_dataset, tmp_path, model):
    folder = tiny_dataset(classes=3, chips=4, shape=(2, 32, 32))
    arguments = {} if model == "majority" else {"trees": 4, "windows_px": [1], "pixels": 2000}
    run = fit_predict(config(folder, model, **arguments), tmp_path / "run")
    counts = sum(np.bincount(v[v < 3], minlength=3) for v in truth(folder, "train").values())
    for class_map, probability in predicted(run, folder, "val").values():
        assert class_map.shape == (32, 32) and probability is None and set(np.unique(class_map)) <= {0, 1, 2, 255}
        assert model != "majority" or set(np.unique(class_map)) <= {int(counts.argmax()), 255}


def test_chips_give_the_bands_that_were_asked_for_in_that_order(water):
    both, swapped = (next(iter(ChipArrays(water, "val", bands))) for bands in ((), ("b1", "b0")))
    np.testing.assert_array_equal(both.image[::-1], swapped.image)
    with pytest.raises(ConfigError, match="no band 'vh', there is b0, b1"):
        ChipArrays(water, "val", ("vh",))


@pytest.mark.parametrize(("model", "value"), [("all-dry", 0), ("all-wet", 1)])
def test_a_constant_row_predicts_every_split_but_the_training_one(tmp_path, water, model, value):
    run = fit_predict(config(water, model), tmp_path / "run")
    assert not (run / "train").exists()
    for split in ("val", "test"):
        for class_map, probability in predicted(run, water, split).values():
            assert (class_map == value).all() and probability is None


def test_the_run_says_what_it_was_made_of_and_its_recipe_reads_back(tmp_path, water):
    from tidemark.configs import load_config

    cfg = config(water, "pixel-forest", seed=3, trees=5)
    info = read_run(fit_predict(cfg, tmp_path / "run"))
    assert (info.model, info.seed, info.trained, info.arguments, info.weights_sha256) == (
        "pixel-forest", 3, True, {"trees": 5}, None)  # fmt: skip
    assert info.dataset.folder == water and "numpy" in info.provenance.packages
    assert load_config(tmp_path / "run" / "config.yaml") == cfg


def test_an_unknown_argument_and_a_row_of_another_task_are_refused(tmp_path, water, patches):
    with pytest.raises(ConfigError, match="otsu has no argument 'bins'; it takes band, method"):
        fit_predict(config(water, "otsu", bins=3), tmp_path)
    with pytest.raises(ConfigError, match="band-forest is for classification, tiny is segmentation"):
        fit_predict(config(water, "band-forest"), tmp_path)
    with pytest.raises(ConfigError, match="otsu is for binary segmentation, tiny is classification"):
        fit_predict(config(patches, "otsu"), tmp_path)


def test_otsu_agrees_with_scikit_image_on_two_humps():
    from skimage.filters import threshold_otsu

    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(-20, 2, 3000), rng.normal(-9, 2, 9000)])
    counts, edges = np.histogram(values, 256)
    found = otsu_threshold(counts, (edges[:-1] + edges[1:]) / 2)
    assert found == pytest.approx(threshold_otsu(values, nbins=256), abs=1e-9)


def test_otsu_cuts_in_the_middle_of_an_empty_gap_and_not_at_all_in_a_constant_image():
    counts = np.zeros(101, int)
    counts[10], counts[90] = 5, 7
    assert otsu_threshold(counts, np.arange(101.0)) == pytest.approx(50, abs=1)
    assert otsu_threshold(np.array([0, 9, 0]), np.arange(3.0)) == -np.inf


@pytest.mark.parametrize("method", ["global", "per_chip"])
def test_otsu_calls_the_dark_part_of_its_band_water(tmp_path, water, method):
    run = fit_predict(config(water, "otsu", band="b0", method=method), tmp_path / method)
    labels = truth(water, "test")
    for chip, (class_map, _) in predicted(run, water, "test").items():
        labelled = labels[chip] != 255
        assert (class_map == labels[chip])[labelled].mean() > 0.7


def test_otsu_asks_for_the_band_where_the_names_do_not_tell(tmp_path, water):
    with pytest.raises(ConfigError, match="which of the bands b0, b1 is co-polarised"):
        fit_otsu(ChipArrays(water, "train"), 0)
    fit_otsu(ChipArrays(water, "train", ("b0",)), 0)


def test_a_constant_chip_is_dry_and_an_outlier_does_not_move_the_threshold(tiny_dataset):
    folder = tiny_dataset(name="outlier", chips=2, shape=(1, 32, 32), dtype="float32", make=chip_with_outlier)
    chips = list(ChipArrays(folder, "val"))
    for method in ("global", "per_chip"):
        predict = fit_otsu(ChipArrays(folder, "train"), 0, method=method)
        flat = Chip("flat", np.full((1, 4, 4), 100, np.float32), np.ones((4, 4), bool), None)
        assert not predict(flat)[0].any()
    predict = fit_otsu(ChipArrays(folder, "train"), 0)
    right = [(predict(chip)[0] == chip.label)[chip.label != 255].mean() for chip in chips]
    assert min(right) > 0.95


def chip_with_outlier(rng, header):
    mask = (rng.random((32, 32)) < 0.4).astype(np.uint8)
    image = np.where(mask, 10, 20) + rng.normal(0, 1, (32, 32))
    image[5, 5], mask[5, 5] = 1e9, 255
    return {"image": image[None].astype(np.float32), "mask": mask}


def test_local_means_ignore_invalid_pixels():
    plane, valid = np.full((9, 9), 5, np.float32), np.ones((9, 9), bool)
    plane[3:6, 3:6], valid[3:6, 3:6] = 1000, False
    np.testing.assert_allclose(local_means(plane, valid, 5)[valid], 5, rtol=1e-6)
    assert local_means(plane, valid, 3)[4, 4] == 0 and local_means(plane, valid, 1)[4, 4] == 0
    centre = local_means(np.arange(81, dtype=np.float32).reshape(9, 9), np.ones((9, 9), bool), 3)[4, 4]
    assert centre == pytest.approx(40)


def test_differences_are_to_the_first_band():
    image = np.array([[[1.0]], [[3.0]], [[7.0]]], np.float32)
    assert channels_with_differences(image).reshape(-1).tolist() == [1, 3, 7, 2, 6]


def test_per_chip_features_do_not_change_with_gain_and_bias():
    rng, valid = np.random.default_rng(0), np.ones((16, 16), bool)
    image = rng.normal(0, 1, (2, 16, 16)).astype(np.float32)
    plain = pixel_features(image, valid, (1, 5), True)
    np.testing.assert_allclose(pixel_features(image * 7 + 3, valid, (1, 5), True), plain, atol=1e-4)
    assert plain.shape == (256, 6)


def test_pixel_forest_learns_the_dark_class_and_gives_calibrated_probabilities(tmp_path, water):
    run = fit_predict(config(water, "pixel-forest", trees=20, windows_px=[1, 3], min_leaf=5), tmp_path / "run")
    labels = truth(water, "test")
    for chip, (class_map, probability) in predicted(run, water, "test").items():
        labelled = labels[chip] != 255
        assert (class_map == labels[chip])[labelled].mean() > 0.75
        # Round-half cases sit at 127.5: 128 is water, 127 may be either.
        assert (class_map[probability >= 128] == 1).all() and (class_map[probability <= 126] == 0).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, water):
    def digest(folder, seed):
        return (fit_predict(config(water, "pixel-forest", seed=seed, trees=8), folder) / "test" / "predictions.h5"
                ).read_bytes()  # fmt: skip

    first = digest(tmp_path / "a", 0)
    assert digest(tmp_path / "b", 0) == first and digest(tmp_path / "c", 1) != first


def test_pixel_forest_never_sees_another_split(water, monkeypatch):
    training = ChipArrays(water, "train")
    seen = []
    original = ChipArrays.__iter__

    def watched(self):
        seen.append(self.split)
        return original(self)

    monkeypatch.setattr(ChipArrays, "__iter__", watched)
    fit_pixel_forest(training, 0, trees=2)
    fit_otsu(training, 0, band="b0")
    assert set(seen) == {"train"}


@pytest.mark.parametrize("arguments", [{"windows_px": [4]}, {"windows_px": []}, {"class_weight": "some"}])
def test_impossible_forest_arguments_are_named(water, arguments):
    with pytest.raises(ConfigError, match=f"MODEL.ARGS.{next(iter(arguments))}"):
        fit_pixel_forest(ChipArrays(water, "train"), 0, trees=2, **arguments)


@pytest.mark.parametrize(
    "arguments", [{"trees": 0}, {"trees": "abc"}, {"min_leaf": 0}, {"pixels": "abc"}, {"windows_px": 3}]
)
def test_arguments_that_make_no_row_end_in_one_line(tmp_path, water, arguments):
    with pytest.raises(ConfigError, match="MODEL.ARGS: .* make no pixel-forest"):
        fit_predict(config(water, "pixel-forest", **{"trees": 2, "pixels": 50, **arguments}), tmp_path / "run")


def test_otsu_per_chip_leaves_pixels_out_that_miss_this_one_band():
    training = SimpleNamespace(partial=True, bands=(Band(name="vv_asc"), Band(name="vv_desc")))
    predict = fit_otsu(training, 0, band="vv_asc", method="per_chip")
    image = np.full((2, 8, 8), -8, np.float32)
    image[0, :, :4], image[0, :, 4] = 0, -18  # no data, and water
    dark, _ = predict(Chip("one", image, np.ones((8, 8), bool), None))
    assert dark[:, 4].all() and dark.sum() == 8


def test_nodata_is_predicted_as_nodata_never_as_water(tmp_path, tiny_dataset):
    folder = tiny_dataset(name="gaps", chips=2, shape=(2, 32, 32), make=chip_with_gap)
    for model, arguments in (("all-wet", {}), ("otsu", {"band": "b0", "method": "per_chip"}), ("otsu", {"band": "b0"}),
                             ("pixel-forest", {"trees": 3})):  # fmt: skip
        run = fit_predict(config(folder, model, **arguments), tmp_path / f"{model}{len(arguments)}")
        for class_map, _ in predicted(run, folder, "test").values():
            assert (class_map[:16] == 255).all() and (class_map[16:] != 255).all()


def chip_with_gap(rng, header):
    image = rng.integers(40, 90, (2, 32, 32)).astype(np.uint16)
    image[1, :16] = 0
    return {"image": image, "mask": (image[0] < 60).astype(np.uint8)}


def test_majority_gives_the_commonest_class_and_its_share(tmp_path, patches):
    run = fit_predict(config(patches, "majority"), tmp_path)
    counts = np.bincount(list(truth(patches, "train").values()), minlength=3)
    for class_id, probability in predicted(run, patches, "test").values():
        assert class_id == counts.argmax()
        np.testing.assert_array_equal(probability, np.round(255 * counts / counts.sum()))


def test_band_forest_beats_the_majority_and_gives_probabilities(tmp_path, patches):
    run = fit_predict(config(patches, "band-forest", trees=50), tmp_path)
    labels = truth(patches, "test")
    found = predicted(run, patches, "test")
    right = np.mean([found[chip][0] == label for chip, label in labels.items()])
    majority = np.bincount(list(labels.values())).max() / len(labels)
    assert right > majority + 0.2
    assert all(abs(int(p.sum(dtype=int)) - 255) <= 2 and p.argmax() == c for c, p in found.values())


def test_a_class_that_the_training_split_lacks_has_probability_zero(tiny_dataset):
    folder = tiny_dataset(name="two", kind="classification", classes=3, chips=5, shape=(2, 16, 16), make=two_classes)
    training = ChipArrays(folder, "train")
    for fit in (fit_majority, fit_band_forest):
        assert fit(training, 0)(next(iter(training)))[1].shape == (3,)
        assert fit(training, 0)(next(iter(training)))[1][1] == 0


def two_classes(rng, header):
    label = 2 * rng.integers(0, 2)
    image = rng.integers(1, 50 + 50 * label, (2, 16, 16)).astype(np.uint16)
    return {"image": image, "label": np.array(label, np.uint8)}


def test_patch_features_are_finite_for_blank_nodata_and_tiny_patches():
    for side in (64, 8, 5):
        image = np.zeros((2, side, side), np.float32)
        for valid in (np.ones((side, side), bool), np.zeros((side, side), bool)):
            assert np.isfinite(patch_features(image, valid)).all()


def test_predictions_follow_the_split_across_shards(tmp_path, water):
    run = fit_predict(config(water, "all-dry"), tmp_path)
    _, shards = open_split(water, "test")
    assert Predictions.open(run / "test" / "predictions.h5").chip_ids == [i for s in shards for i in s.chip_ids]
    assert json.loads((run / "run.json").read_text())["schema_version"] == "1.0"
