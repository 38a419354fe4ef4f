"""A run with weights: predicted when asked, on its own data and on another's, and timed from file to class map."""

from __future__ import annotations

import pytest
from tidemark.benchmark.evaluate import evaluate_run
from tidemark.benchmark.measuring import Span
from tidemark.benchmark.records import Speed, make_result, read_result, write_result
from tidemark.benchmark.speed import measure_speed
from tidemark.configs import make_config
from tidemark.errors import InputError, WeightsError
from tidemark.models.predictions import Predictions
from tidemark.models.runs import read_run
from tidemark.models.train import train


@pytest.fixture(scope="module")
def run(tiny_dataset, tmp_path_factory):
    """A small network after one epoch."""
    folder = tiny_dataset(kind="classification", classes=3, chips=12, shape=(2, 16, 16), dtype="uint8")
    cfg = make_config({"DATA": {"ROOT": str(folder.parents[1]), "NAME": "tiny"},
                       "MODEL": {"NAME": "patch-cnn", "ARGS": {"width": 4, "hidden": 16}},
                       "TRAIN": {"EPOCHS": 1, "BATCH_SIZE": 5, "DEVICE": "cpu", "THREADS": 1, "LOSS": "ce"},
                       "OUTPUT": str(tmp_path_factory.mktemp("runs"))})  # fmt: skip
    return train(cfg, progress=False)


def test_missing_predictions_are_made_from_the_weights(run):
    result = read_result(evaluate_run(run, "test"))
    assert result.model.weights_sha256 == read_run(run).weights_sha256 and result.model.trained
    assert result.chips == 24 and result.metrics["ece"].value is not None and result.speed is None
    assert len(Predictions(run / "test" / "predictions.h5").chip_ids) == 24


def test_other_data_are_scored_beside_and_must_have_the_same_bands(run, tiny_dataset):
    evaluate_run(run, "test")
    before = (run / "test" / "result.json").read_bytes()
    other = tiny_dataset(name="other", kind="classification", classes=3, chips=4, shape=(2, 16, 16), dtype="uint8")
    path = evaluate_run(run, "val", dataset=other)
    assert path == run / "on-other-1.0.0" / "val" / "result.json"
    result = read_result(path)
    assert (result.dataset.name, result.chips) == ("other", 8)
    assert (run / "test" / "result.json").read_bytes() == before
    strange = tiny_dataset(name="strange", kind="classification", classes=3, chips=4, shape=(1, 16, 16), dtype="uint8")
    with pytest.raises((WeightsError, InputError)):
        evaluate_run(run, "val", dataset=strange)


def patches(tiny_dataset, **changes):
    return tiny_dataset(**{"kind": "classification", "classes": 3, "shape": (2, 16, 16), "dtype": "uint8", **changes})


def test_another_version_with_the_same_pixels_is_other_data(run, tiny_dataset):
    own = evaluate_run(run, "test")
    later = patches(tiny_dataset, version="1.0.1", chips=12)
    path = evaluate_run(run, "test", dataset=later)
    assert path == run / "on-tiny-1.0.1" / "test" / "result.json" and read_result(path).dataset.version == "1.0.1"
    assert read_result(path).dataset.content_sha256 == read_result(own).dataset.content_sha256
    assert evaluate_run(run, "test", dataset=read_run(run).dataset.folder) == own


def test_data_built_anew_are_predicted_anew(run, tiny_dataset):
    first, second = (patches(tiny_dataset, name="rebuilt", chips=chips) for chips in (2, 3))
    assert read_result(evaluate_run(run, "val", dataset=first)).chips == 4
    assert read_result(evaluate_run(run, "val", dataset=second)).chips == 6


def test_a_speed_once_measured_stays_with_its_predictions(run, monkeypatch):
    speed = Speed(chips_per_s=9, mpx_per_s=1, device="a CPU", threads=1, precision="fp32", batch=1)
    monkeypatch.setattr("tidemark.benchmark.speed.measure_speed", lambda *_: speed)
    path = evaluate_run(run, "train", speed=True)
    assert read_result(evaluate_run(run, "train")).speed == read_result(path).speed == speed
    write_result(path, make_result(**read_result(path).model_dump(exclude={"id"}) | {"predictions_sha256": "0" * 64}))
    assert read_result(evaluate_run(run, "train")).speed is None


def test_speed_counts_every_chip_and_names_what_it_ran_on(run):
    speed = measure_speed(run, "test", repeats=3, before=Span(1, 0.0), timed=Span(3, 60.0))
    low, high = speed.chips_per_s_range
    assert 0 < low <= speed.chips_per_s <= high
    assert speed.mpx_per_s == pytest.approx(speed.chips_per_s * 16 * 16 / 1e6)
    assert (speed.kind, speed.batch, speed.precision) == ("end-to-end", 5, "fp32") and speed.driver is None
    assert "cores" in speed.device and speed.threads >= 1 and speed.parameters == read_run(run).parameters
