"""A run with weights: predicted when asked, on its own data and on another's, and timed from file to class map."""

from __future__ import annotations

import pytest
from tidemark.benchmark.evaluate import evaluate_run
from tidemark.benchmark.measuring import Span
from tidemark.benchmark.records import read_result
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


def test_speed_counts_every_chip_and_names_what_it_ran_on(run):
    speed = measure_speed(run, "test", repeats=3, before=Span(1, 0.0), timed=Span(3, 60.0))
    low, high = speed.chips_per_s_range
    assert 0 < low <= speed.chips_per_s <= high
    assert speed.mpx_per_s == pytest.approx(speed.chips_per_s * 16 * 16 / 1e6)
    assert (speed.kind, speed.batch, speed.precision) == ("end-to-end", 5, "fp32") and speed.driver is None
    assert "cores" in speed.device and speed.threads >= 1 and speed.parameters == read_run(run).parameters
