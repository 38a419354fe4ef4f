"""From predictions to a record, against a plain count over the whole split with h5py."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import tidemark
from tidemark.benchmark import counting, evaluate
from tidemark.benchmark.evaluate import evaluate_run, score
from tidemark.benchmark.records import read_result
from tidemark.benchmark.scores import abstained_metric, check_figures
from tidemark.configs import make_config
from tidemark.datasets.files import sha256_file
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import Array, Band
from tidemark.errors import FormatError, InputError
from tidemark.models.baselines import fit_predict
from tidemark.models.predictions import write_predictions
from tidemark.models.runs import git_state, run_folder


def chip_with_gaps(rng, header):
    """Water on the left; one column of nodata in one band, a row without label."""
    size = header.arrays[0].shape[1:]
    mask = np.zeros(size, np.uint8)
    mask[:, : rng.integers(0, 20)] = 1
    mask[3] = 255
    image = rng.integers(5, 50, header.arrays[0].shape).astype(header.arrays[0].dtype)
    image[1, :, 7] = 0
    return {"image": image, "mask": mask}


@pytest.fixture(scope="module")
def water(tiny_dataset):
    bands = (Band(name="vv"), Band(name="vh", nodata=0))
    return tiny_dataset(name="gaps", chips=3, shape=(2, 32, 32), bands=bands, make=chip_with_gaps)


@pytest.fixture(scope="module")
def patches(tiny_dataset):
    return tiny_dataset(kind="classification", classes=3, chips=30, shape=(2, 16, 16), dtype="uint8")


def predict(folder, path, answer, probability=None, split="test"):
    """Predictions by a function of chip id and label, for every chip of a split."""
    manifest, shards = open_split(folder, split)
    chips = [(i, s.read(manifest.label_array.name, n)) for s in shards for n, i in enumerate(s.chip_ids)]
    chunks = [(answer(i, truth), None if probability is None else probability(i, truth)) for i, truth in chips]
    return write_predictions(
        path, dataset=manifest.model_dump(), split=split, model="test", chip_ids=[i for i, _ in chips], chunks=chunks
    )


def whole(folder, split="test"):
    """(image, label) of the split, by h5py."""
    arrays = []
    for path in sorted((folder / split).glob("*.h5")):
        with h5py.File(path) as file:
            arrays.append((file["image"][...], file["mask"][...]))
    return tuple(map(np.concatenate, zip(*arrays, strict=True)))


def noisy(chip_id, truth):
    random = np.random.default_rng(list(chip_id.encode()))
    return np.where(random.random(truth.shape) < 0.2, 1 - truth.clip(0, 1), truth.clip(0, 1)).astype(np.uint8)


def test_counts_equal_a_plain_count_over_labelled_pixels_with_valid_input(water, tmp_path):
    scored = score(predict(water, tmp_path / "p.h5", noisy), water, "test")
    image, truth = whole(water)
    answer = np.concatenate(
        [
            noisy(i, t)[None]
            for i, t in zip([i for s in open_split(water, "test")[1] for i in s.chip_ids], truth, strict=True)
        ]
    )
    valid = (truth != 255) & (image[:, 1] != 0)
    total = sum(unit.confusion for unit in scored.units.values())
    expected = [[((truth == t) & (answer == a) & valid).sum() for a in (0, 1)] for t in (0, 1)]
    assert total.tolist() == expected
    assert valid.sum() == 6 * 31 * 31 == total.sum()
    assert list(scored.units) == ["test-0", "test-1"] and scored.chips == 6


def test_perfect_predictions_score_one_and_nothing_is_missing(water, tmp_path):
    found, units = evaluate.figures_of(score(predict(water, tmp_path / "p.h5", lambda i, t: t), water, "test"))
    for key in ("iou", "scene_mean_iou", "worst_decile_iou", "precision", "recall", "f1", "oa", "boundary_f1"):
        assert found[key].value == 1, key
    assert found["ece"].value is None and found["dry_false_positive_rate"].value is None
    assert all(unit.scores["iou"] == 1 for unit in units)


def test_255_on_a_valid_pixel_is_wrong_and_is_counted(water, tmp_path):
    blank = predict(water, tmp_path / "p.h5", lambda i, t: np.full(t.shape, 255, np.uint8))
    found, units = evaluate.figures_of(score(blank, water, "test"))
    assert found["oa"].value == 0 and found["iou"].value == 0 and found["abstained"].value == 1
    assert sum(unit.counts["abstained"] for unit in units) == 6 * 31 * 31
    assert abstained_metric(units) == {"abstained": found["abstained"]}


@pytest.mark.parametrize("batch_bytes", [1, 5000, 1 << 30])
def test_the_batch_size_changes_nothing(water, tmp_path, monkeypatch, batch_bytes):
    path = predict(water, tmp_path / "p.h5", noisy, lambda i, t: np.full(t.shape, 200, np.uint8))
    expected = evaluate.figures_of(score(path, water, "test"))
    monkeypatch.setattr(counting, "BATCH_BYTES", batch_bytes)
    assert evaluate.figures_of(score(path, water, "test")) == expected


def test_the_order_of_the_chips_in_the_predictions_changes_nothing(water, tmp_path):
    path = predict(water, tmp_path / "p.h5", noisy)
    manifest, shards = open_split(water, "test")
    chips = [(i, s.read("mask", n)) for s in shards for n, i in enumerate(s.chip_ids)][::-1]
    turned = write_predictions(
        tmp_path / "q.h5",
        dataset=manifest.model_dump(),
        split="test",
        model="test",
        chip_ids=[i for i, _ in chips],
        chunks=[(noisy(i, t), None) for i, t in chips],
    )
    assert evaluate.figures_of(score(path, water, "test")) == evaluate.figures_of(score(turned, water, "test"))


def test_calibration_of_water_probabilities(water, tmp_path):
    path = predict(water, tmp_path / "p.h5", noisy, lambda i, t: np.where(t == 1, 204, 51).astype(np.uint8))
    found, _ = evaluate.figures_of(score(path, water, "test"))
    assert found["ece"].value == pytest.approx(0.2)  # 0.8 where all is water, 0.2 where none is


def test_an_answer_that_the_probability_contradicts_has_little_confidence(water, tmp_path):
    """Water said where p = 0.2: the confidence in that answer is 0.2."""
    path = predict(water, tmp_path / "p.h5", noisy, lambda i, t: np.where(t == 1, 204, 51).astype(np.uint8))
    scored = score(path, water, "test")
    total = sum(unit.confusion for unit in scored.units.values())
    assert scored.confidence[204].tolist() == [0, np.trace(total)]  # right answers have 0.8
    assert scored.confidence[51].tolist() == [total.sum() - np.trace(total), 0]
    found, _ = evaluate.figures_of(scored)
    share = 1 - np.trace(total) / total.sum()
    assert found["aurc"].value == pytest.approx(share * share)  # all errors come last: risk 0, then the error rate
    assert scored.calibration[:, 1].sum() == total[1].sum()


def test_a_stored_valid_array_alone_decides_where_the_input_is_valid(tiny_dataset, tmp_path):
    bands = (Band(name="ascending", nodata=0), Band(name="descending", nodata=0))
    arrays = (
        Array(name="image", dtype="uint8", shape=(2, 32, 32), role="image", bands=bands),
        Array(name="mask", dtype="uint8", shape=(32, 32), role="mask"),
        Array(name="valid", dtype="uint8", shape=(32, 32), role="valid"),
    )

    def make(rng, header):  # the second orbit is missing; the last row has none
        image, valid = np.zeros((2, 32, 32), np.uint8), np.ones((32, 32), np.uint8)
        image[0], valid[-1] = 9, 0
        return {"image": image, "mask": np.zeros((32, 32), np.uint8), "valid": valid}

    folder = tiny_dataset(name="orbits", chips=1, arrays=arrays, make=make)
    scored = score(predict(folder, tmp_path / "p.h5", lambda i, t: t), folder, "test")
    assert [unit.pixels for unit in scored.units.values()] == [31 * 32] * 2


def test_chip_integers_add_up_to_the_units(water, tmp_path):
    path = tmp_path / "confusion.parquet"
    scored = score(predict(water, tmp_path / "p.h5", noisy), water, "test", confusion_path=path)
    chips = pq.read_table(path).to_pandas()
    assert len(chips) == 6
    for unit, counts in scored.units.items():
        mine = chips[chips.unit == unit]
        assert np.array_equal(np.stack(mine.confusion).sum(0).reshape(2, 2), counts.confusion)
        assert np.array_equal(np.stack(mine.boundary).sum(0), counts.boundary)


def run(folder, out, model, seed=0):
    cfg = make_config(
        {
            "DATA": {"ROOT": str(folder.parents[1]), "NAME": folder.parent.name, "VERSION": folder.name},
            "MODEL": {"NAME": model},
            "SEED": seed,
            "OUTPUT": str(out),
        }
    )
    return fit_predict(cfg, run_folder(cfg, open_split(folder, "test")[0]))


@pytest.mark.parametrize("text", ["- 1", "DATA: 3"])
def test_a_run_whose_configuration_is_none_is_refused(water, tmp_path, text):
    folder = run(water, tmp_path, "otsu")
    (folder / "config.yaml").write_text(text)
    with pytest.raises(FormatError, match="not the configuration of a run"):
        evaluate_run(folder, "test")


def test_a_run_becomes_a_record_that_its_integers_confirm(water, tmp_path):
    folder = run(water, tmp_path, "otsu")
    path = evaluate_run(folder, "test")
    assert sorted(p.name for p in path.parent.iterdir()) == ["confusion.parquet", "predictions.h5", "result.json"]
    assert path == folder / "test" / "result.json"
    result = read_result(path)
    check_figures(result)
    assert (result.task, result.model.name, result.model.trained, result.seed) == (
        "binary-segmentation",
        "otsu",
        False,
        0,
    )
    assert folder.parent.name == f"otsu-{result.config_hash}" and "NAME: otsu" in result.config
    assert result.dataset.content_sha256 == open_split(water, "test")[0].content_sha256
    assert set(result.packages) >= {"python", "numpy", "torch", "h5py"} and result.command and result.device
    assert str(tmp_path) in (folder / "config.yaml").read_text() and str(tmp_path) not in path.read_text()
    for code in (result.harness, result.made_with):
        assert code.version == tidemark.__version__
        assert (code.git_commit, code.dirty) == git_state(Path(tidemark.__file__).parent)
    for name, digest in (("predictions.h5", result.predictions_sha256), ("confusion.parquet", result.confusion_sha256)):
        assert sha256_file(path.parent / name) == digest
    first = path.read_bytes()
    assert evaluate_run(folder, "test").read_bytes() == first


def test_false_positives_are_counted_apart_on_scenes_without_water(tiny_dataset, tmp_path):
    def make(rng, header):  # scenes are numbered 5 and 6: one all water, one all dry
        mask = np.full((32, 32), rng.bit_generator.seed_seq.entropy[0] % 2, np.uint8)
        return {"image": rng.integers(1, 9, (1, 32, 32)).astype("uint8"), "mask": mask}

    folder = tiny_dataset(name="dry", chips=1, shape=(1, 32, 32), dtype="uint8", make=make)
    dry, wet = (read_result(evaluate_run(run(folder, tmp_path, model), "test")) for model in ("all-dry", "all-wet"))
    assert [sum(unit.confusion[1]) for unit in dry.units] == [1024, 0]
    assert (dry.metrics["dry_false_positive_rate"].value, wet.metrics["dry_false_positive_rate"].value) == (0, 1)
    assert (dry.headline.value, wet.headline.value) == (0, 0.5)
    assert [unit.scores["iou"] for unit in dry.units] == [0, None]
    assert [unit.scores["iou"] for unit in wet.units] == [1, 0]
    assert dry.metrics["scene_mean_iou"].value == 0 and wet.metrics["scene_mean_iou"].value == 0.5


def test_patches_score_as_scikit_learn_says(patches, tmp_path):
    import sklearn.metrics

    random = np.random.default_rng(0)
    answers = {}

    def answer(chip_id, truth):
        answers[chip_id] = (int(truth), int(random.integers(0, 3)))
        return np.uint8(answers[chip_id][1])

    result, _ = evaluate.figures_of(score(predict(patches, tmp_path / "p.h5", answer), patches, "test"))
    truth, answer = zip(*answers.values(), strict=True)
    assert result["macro_f1"].value == pytest.approx(sklearn.metrics.f1_score(truth, answer, average="macro"))
    assert result["accuracy"].value == pytest.approx(sklearn.metrics.accuracy_score(truth, answer))
    assert result["balanced_accuracy"].value == pytest.approx(sklearn.metrics.balanced_accuracy_score(truth, answer))
    assert result["recall:class 1"].value == pytest.approx(
        sklearn.metrics.recall_score(truth, answer, labels=[1], average="macro")
    )


def test_patches_of_a_trivial_row_have_a_calibration_error(patches, tmp_path):
    result = read_result(evaluate_run(run(patches, tmp_path, "majority"), "test"))
    check_figures(result)
    assert result.task == "classification" and result.chips == 60 == sum(unit.pixels for unit in result.units)
    assert 0 <= result.metrics["ece"].value < 0.5
    assert "boundary_f1" not in result.metrics


def test_several_classes_are_scored_by_their_mean_iou(tiny_dataset, tmp_path):
    def make(rng, header):
        mask = rng.integers(0, 3, (32, 32)).astype(np.uint8)
        return {"image": rng.integers(1, 9, (1, 32, 32)).astype("uint8"), "mask": mask}

    folder = tiny_dataset(name="three", classes=4, chips=1, shape=(1, 32, 32), dtype="uint8", make=make)
    path = predict(folder, tmp_path / "p.h5", lambda i, t: np.where(t == 2, 255, t).astype(np.uint8))
    scored = score(path, folder, "test")
    found, _ = evaluate.figures_of(scored)
    assert scored.task == "segmentation"
    # an abstention on class 2 counts as class 3, which is otherwise absent
    assert [found[f"iou:class {i}"].value for i in range(4)] == [1, 1, 0, 0]
    assert found["mean_iou"].value == 0.5


def test_predictions_for_other_chips_are_refused(water, tmp_path):
    with pytest.raises(FormatError, match="split: expected val, found test"):
        score(predict(water, tmp_path / "p.h5", noisy), water, "val")
    with pytest.raises(FormatError, match="no predictions here"):
        score(tmp_path / "none.h5", water, "test")


def test_a_class_that_does_not_exist_is_refused_with_the_chip(water, tmp_path):
    path = predict(water, tmp_path / "p.h5", lambda i, t: np.full(t.shape, 7, np.uint8))
    with pytest.raises(FormatError, match="chip test-0-000: .*found 7"):
        score(path, water, "test", confusion_path=tmp_path / "confusion.parquet")
    assert not list(tmp_path.glob("confusion*"))


def test_a_failed_evaluation_leaves_the_record_and_its_table(water, tmp_path):
    folder = run(water, tmp_path, "otsu")
    place = evaluate_run(folder, "test").parent
    before = {name: (place / name).read_bytes() for name in ("result.json", "confusion.parquet")}
    predict(water, place / "predictions.h5", lambda i, t: np.full(t.shape, 7 if i == "test-1-002" else 0, np.uint8))
    with pytest.raises(FormatError, match="chip test-1-002: .*found 7"):
        evaluate_run(folder, "test")
    assert {name: (place / name).read_bytes() for name in before} == before
    assert sorted(p.name for p in place.iterdir()) == ["confusion.parquet", "predictions.h5", "result.json"]


def test_nodata_everywhere_gives_null_figures_never_zero(tiny_dataset, tmp_path):
    def make(rng, header):
        return {"image": np.zeros((1, 32, 32), np.uint8), "mask": np.ones((32, 32), np.uint8)}

    bands = (Band(name="vv", nodata=0),)
    folder = tiny_dataset(name="blank", chips=1, shape=(1, 32, 32), dtype="uint8", bands=bands, make=make)
    path = predict(folder, tmp_path / "p.h5", lambda i, t: np.full(t.shape, 255, np.uint8))
    found, units = evaluate.figures_of(score(path, folder, "test"))
    assert {metric.value for metric in found.values()} == {None}
    assert all(unit.pixels == 0 and unit.counts["abstained"] == 0 for unit in units)


def test_a_run_without_predictions_and_weights_says_so(water, tmp_path):
    folder = run(water, tmp_path, "all-dry")
    with pytest.raises(InputError, match="no predictions for 'train' and no weights"):
        evaluate_run(folder, "train")
    with pytest.raises(FormatError, match="no finished run"):
        evaluate_run(tmp_path / "nothing", "test")


def test_a_run_whose_data_are_elsewhere_says_how_to_name_them(water, tmp_path):
    moved = tmp_path / "data" / water.parent.name / water.name
    shutil.copytree(water, moved)
    folder = run(moved, tmp_path, "otsu")
    shutil.rmtree(moved)
    with pytest.raises(FormatError, match="data set is not here") as caught:
        evaluate_run(folder, "test")
    assert "--dataset" in caught.value.hint
    assert evaluate_run(folder, "test", dataset=water).exists()


def test_the_evaluator_imports_no_torch():
    code = "import sys, tidemark.benchmark.evaluate; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
