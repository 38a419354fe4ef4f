"""Harmonized reflectance from a data set on disk and predictions.h5 to a record that its sums confirm."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from tidemark.benchmark import counting
from tidemark.benchmark.command import evaluate_command
from tidemark.benchmark.evaluate import evaluate_run, figures_of, score
from tidemark.benchmark.records import content_id, parse_result, read_result
from tidemark.benchmark.scores import check_figures, counts_of, sums_fault
from tidemark.datasets.files import sha256_file
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import Array, Band
from tidemark.errors import FormatError, InputError
from tidemark.models.predictions import write_predictions
from tidemark.models.runs import RunInfo, dataset_of, provenance, write_run

SIZE = 32
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
TARGET = tuple(Band(name=name, sensor="Sentinel-2", scale=1e-4, nodata=65535) for name in BANDS)
INPUT = tuple(Band(name=name, sensor="Landsat-8", scale=2.75e-5, offset=-0.2, nodata=0) for name in BANDS)
ARRAYS = (
    Array(name="image", dtype="uint16", shape=(6, 11, 11), role="image", bands=INPUT),
    Array(name="target", dtype="uint16", shape=(6, SIZE, SIZE), role="target", bands=TARGET),
    Array(name="valid", dtype="uint8", shape=(SIZE, SIZE), role="valid"),
)


def location(rng, header):
    """Random reflectance 0.05 to 0.5; one pixel under a cloud, one outside the target's swath."""
    target = rng.integers(500, 5000, (6, SIZE, SIZE)).astype(np.uint16)
    valid = np.ones((SIZE, SIZE), np.uint8)
    valid[10, 10], target[2, 20, 20] = 0, 65535
    return {"image": rng.integers(1, 9, (6, 11, 11)).astype(np.uint16), "target": target, "valid": valid}


@pytest.fixture(scope="module")
def folder(tiny_dataset):
    return tiny_dataset(name="l8s2", kind="regression", chips=3, arrays=ARRAYS, make=location)


def chips_of(folder, split="test"):
    """(chip id, scene, reflectance float64, valid) of the split, by plain reading."""
    found = []
    for shard in open_split(folder, split)[1]:
        for i, chip_id in enumerate(shard.chip_ids):
            stored, valid = shard.read("target", i), shard.read("valid", i) != 0
            found.append((chip_id, chip_id[:6], stored * 1e-4, valid & (stored != 65535).all(0)))
    return found


def predict(folder, path, answer, split="test"):
    chips = chips_of(folder, split)
    return write_predictions(
        path,
        dataset=open_split(folder, split)[0].model_dump(),
        split=split,
        model="test",
        chip_ids=[chip[0] for chip in chips],
        chunks=[(answer(*chip).astype(np.float16), None) for chip in chips],
    )


def noisy(chip_id, scene, truth, valid):
    return truth + np.random.default_rng(list(chip_id.encode())).normal(0, 0.02, truth.shape)


def test_scores_are_those_of_pixels_valid_in_both_images_away_from_the_border(folder, tmp_path):
    scored = score(predict(folder, tmp_path / "p.h5", noisy), folder, "test")
    found, units = figures_of(scored)
    assert scored.task == "harmonization" and scored.chips == 6 and [u.id for u in units] == ["test-0", "test-1"]
    by_location = {}
    for chip_id, scene, truth, valid in chips_of(folder):
        prediction = noisy(chip_id, scene, truth, valid).astype(np.float16).astype(float)
        inner = (slice(None), slice(8, -8), slice(8, -8))
        error = (prediction - truth)[inner][:, valid[8:-8, 8:-8]]
        by_location.setdefault(scene, []).append(error)
    expected = []
    for unit, (scene, errors) in zip(units, by_location.items(), strict=True):
        pooled = np.concatenate(errors, 1)
        assert unit.id == scene and unit.pixels == pooled.shape[1] == 3 * (16 * 16 - 2)
        expected.append(-10 * np.log10((pooled**2).mean(1)))
        assert unit.scores["psnr"] == pytest.approx(expected[-1].mean())
        assert unit.scores["bias:red"] == pytest.approx(pooled[2].mean())
    assert found["psnr"].value == pytest.approx(np.mean(expected))
    assert found["psnr:nir"].value == pytest.approx(np.mean([e[3] for e in expected]))
    assert found["rmse"].value == pytest.approx(0.02, rel=0.05) and found["abstained"].value == 0
    assert {"ssim", "sam", "ergas", "nrmse", "psnr_shifted", "ssim:swir2", "ndvi_r", "ndwi2_bias"} <= found.keys()
    assert "ece" not in found and found["psnr"].interval is None  # two locations


def test_a_perfect_answer_is_limited_by_float16_alone(folder, tmp_path):
    found, _ = figures_of(score(predict(folder, tmp_path / "p.h5", lambda c, s, t, v: t), folder, "test"))
    assert found["psnr"].value > 75 and found["ssim"].value > 0.9999 and found["sam"].value < 0.1
    assert found["ndvi_r"].value == pytest.approx(1, abs=1e-4)


def test_what_is_not_finite_on_a_valid_pixel_is_wrong_and_counted(folder, tmp_path):
    def silent(chip_id, scene, truth, valid):
        return np.full(truth.shape, np.nan) if chip_id == "test-0-000" else np.where(valid, truth, np.nan)

    _, units = figures_of(score(predict(folder, tmp_path / "p.h5", silent), folder, "test"))
    assert [unit.counts["abstained"] for unit in units] == [254, 0]
    assert units[0].scores["rmse"] > 0.3 and units[1].scores["rmse"] < 1e-3


def test_the_batch_size_and_the_order_in_the_file_change_nothing(folder, tmp_path, monkeypatch):
    path = predict(folder, tmp_path / "p.h5", noisy)
    expected = figures_of(score(path, folder, "test"))
    monkeypatch.setattr(counting, "BATCH_BYTES", 1)
    assert figures_of(score(path, folder, "test")) == expected
    chips = chips_of(folder)[::-1]
    turned = write_predictions(
        tmp_path / "q.h5", dataset=open_split(folder, "test")[0].model_dump(), split="test", model="test",
        chip_ids=[c[0] for c in chips], chunks=[(noisy(*c).astype(np.float16), None) for c in chips],
    )  # fmt: skip
    assert figures_of(score(turned, folder, "test")) == expected


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run whose predictions came from elsewhere: no weights, no recipe."""
    path, manifest = tmp_path_factory.mktemp("run"), open_split(folder, "test")[0]
    info = RunInfo(
        dataset=dataset_of(manifest, folder.parents[1]), model="noisy", label="Noisy copy", trained=False, seed=0,
        train_seconds=0, provenance=provenance(),
    )  # fmt: skip
    write_run(path, info, "")
    predict(folder, path / "test" / "predictions.h5", noisy)
    return path


def test_a_run_becomes_a_record_that_its_sums_confirm(run):
    path = evaluate_run(run, "test")
    result = read_result(path)
    check_figures(result)
    assert (result.task, result.bands, result.classes) == ("harmonization", BANDS, ())
    assert result.headline == result.metrics["psnr"] and result.config_hash is None
    assert all(unit.confusion == () for unit in result.units)
    first = path.read_bytes()
    assert evaluate_run(run, "test").read_bytes() == first


def test_its_figures_are_shown_as_a_table(run, capsys):
    evaluate_command(run, "test")
    shown = capsys.readouterr().out
    assert "PSNR" in shown and "Noisy copy" in shown and "result.json" in shown


def test_locations_without_a_valid_pixel_have_null_figures_never_zero(tiny_dataset, tmp_path):
    def cloudy(rng, header):
        return {**location(rng, header), "valid": np.zeros((SIZE, SIZE), np.uint8)}

    folder = tiny_dataset(name="cloudy", kind="regression", chips=1, arrays=ARRAYS, make=cloudy)
    found, units = figures_of(score(predict(folder, tmp_path / "p.h5", noisy), folder, "test"))
    assert {metric.value for metric in found.values()} == {None}
    assert all(unit.pixels == 0 and set(unit.scores.values()) == {None} for unit in units)
    assert all(sums_fault(unit, BANDS) is None for unit in units)


def test_chip_sums_add_up_to_the_units_and_their_table_is_pinned(run):
    result = read_result(evaluate_run(run, "test"))
    table = run / "test" / "confusion.parquet"
    assert sha256_file(table) == result.confusion_sha256
    chips = pq.read_table(table).to_pandas()
    assert len(chips) == 6
    for unit in result.units:
        mine = chips[chips.unit == unit.id]
        for key, values in unit.sums.items():
            assert np.stack(mine[key]).sum(0) == pytest.approx(values), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda unit: unit["sums"]["squared_error"].__setitem__(0, 1e-9), "/units/1/sums/error: .* cannot be"),
        (lambda unit: unit["sums"]["squared_error"].__setitem__(0, -1.0), "/units/1/sums/squared_error: -1.0 is below"),
        (lambda unit: unit["sums"]["ssim_windows"].__setitem__(0, 1e6), "/units/1/sums/ssim_windows: 1000000.0 of"),
        (lambda unit: unit["sums"]["pixels"].__setitem__(0, 5.0), "/units/1/sums/pixels: 5.0, the unit states 762"),
        (lambda unit: unit["sums"]["ssim"].__setitem__(0, 0.0), "/metrics/ssim: "),
        (lambda unit: unit["scores"].update({"psnr": 60.0}), "/units/1/scores/psnr: 60.0 stated"),
        (lambda unit: unit["counts"].update({"abstained": 9}), "/metrics/abstained: "),
        (lambda unit: unit["sums"].update({"ndvi": [1.0]}), "sums .* those of 'test-0' are"),
        (lambda unit: unit["sums"].update({"extra": [1.0]}), "sums .* those of 'test-0' are"),
        (lambda unit: unit["sums"]["ssim"].__setitem__(0, float("inf")), "finite|not valid JSON|not a result"),
        (lambda unit: unit.update({"confusion": [[1, 0], [0, 1]]}), "either a confusion matrix or sums"),
        (lambda unit: unit.update({"sums": {}}), "either a confusion matrix or sums"),
    ],
)
def test_sums_that_contradict_each_other_or_the_figures_are_found(run, change, message):
    raw = json.loads(evaluate_run(run, "test").read_text())
    change(raw["units"][1])
    with pytest.raises(FormatError, match=message):
        check_figures(_sealed(raw))


def _sealed(raw):
    """The record with the id that its content has, as a forger would write it."""
    try:
        return parse_result(raw)
    except FormatError as error:
        if "/id:" not in str(error):
            raise
    from tidemark.benchmark.records import Result

    draft = Result.model_validate(raw)
    return parse_result({**raw, "id": content_id(draft)})


def test_records_with_other_sums_are_no_seeds_of_one_row(run):
    result = read_result(evaluate_run(run, "test"))
    units = [unit.model_copy(update={"sums": {**unit.sums, "ndvi": (1.0,)}}) for unit in result.units]
    assert counts_of([result, result]).sums["squared_error"].shape == (2, 2, 6)
    with pytest.raises(InputError, match="sums differ"):
        counts_of([result, result.model_copy(update={"units": tuple(units)})])


def test_bands_are_named_once_and_only_for_reflectance(run):
    raw = json.loads(evaluate_run(run, "test").read_text())
    for bands, message in (([], "names its bands"), (["red"] * 6, "each once")):
        with pytest.raises(FormatError, match=message):
            parse_result({**raw, "bands": bands})


def test_class_maps_are_no_answer_to_a_regression(folder, tmp_path):
    chips = chips_of(folder)
    path = write_predictions(
        tmp_path / "p.h5", dataset=open_split(folder, "test")[0].model_dump(), split="test", model="test",
        chip_ids=[c[0] for c in chips], chunks=[(np.zeros((SIZE, SIZE), np.uint8), None) for _ in chips],
    )  # fmt: skip
    with pytest.raises(FormatError, match="expected the array reflectance, found prediction"):
        score(path, folder, "test")


def test_reflectance_of_another_size_is_refused(folder, tmp_path):
    path = predict(folder, tmp_path / "p.h5", lambda c, s, t, v: t[:, ::2, ::2])
    with pytest.raises(FormatError, match=r"expected shape \(6, 32, 32\) a chip, found \(6, 16, 16\)"):
        score(path, folder, "test")


def test_target_and_input_decide_together_where_a_pixel_counts(folder):
    shard = open_split(folder, "test")[1][0]
    chip_id, scene, truth, valid = next(counting.target_chips(shard))
    assert not valid[10, 10] and not valid[20, 20] and valid.sum() == SIZE * SIZE - 2
    assert truth.dtype == np.float64 and truth[:, valid].min() >= 0.05 and truth[:, valid].max() <= 0.5
    assert chip_id == "test-0-000" and open_split(folder, "test")[0].scenes[scene].id == "test-0"


def test_chips_that_the_border_uses_up_are_refused_before_any_work(tiny_dataset, tmp_path):
    shape = (6, 16, 16)
    arrays = (ARRAYS[0], Array(name="target", dtype="uint16", shape=shape, role="target", bands=TARGET))

    def make(rng, header):
        return {a.name: rng.integers(1, 9, a.shape).astype(np.uint16) for a in header.arrays}

    small = tiny_dataset(name="small", kind="regression", chips=1, arrays=arrays, make=make)
    path = write_predictions(
        tmp_path / "p.h5", dataset=open_split(small, "test")[0].model_dump(), split="test", model="test",
        chip_ids=["test-0-000", "test-1-000"], chunks=[(np.zeros(shape, np.float16), None)] * 2,
    )  # fmt: skip
    with pytest.raises(InputError, match="chips of 16 x 16 px: nothing is left inside a border of 8 px"):
        score(path, small, "test")
