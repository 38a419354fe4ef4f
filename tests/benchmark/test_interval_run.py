"""Sigma calibrated on validation holds on test, for every method; the command, its record and its figure."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tidemark.benchmark.interval_record import read_record
from tidemark.benchmark.interval_run import _crossed, measure_uncertainty
from tidemark.benchmark.intervals import EDGES, LEVELS
from tidemark.benchmark.verbs import app
from tidemark.datasets.l8s2_header import header
from tidemark.datasets.spec import Array
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import FormatError, InputError, WeightsError
from tidemark.models.harmonization.meaning import Meaning
from tidemark.models.registry import ModelSpec, create_model
from tidemark.models.weights import from_pretrained, save_pretrained
from typer.testing import CliRunner

IMAGE, PAN, TARGET = (array.bands for array in header({}, "by-tile", False).arrays[:3])
SPEC = ModelSpec({"image": 6, "pan": 1}, 6)
ARRAYS = (
    Array(name="image", dtype="uint16", shape=(6, 16, 16), role="image", bands=IMAGE),
    Array(name="pan", dtype="uint16", shape=(1, 32, 32), role="context", bands=PAN),
    Array(name="target", dtype="uint16", shape=(6, 48, 48), role="target", bands=TARGET),
    Array(name="valid", dtype="uint8", shape=(48, 48), role="valid"),
)


def chip(rng, _):
    """The bands' errors differ by their number and have heavy tails."""
    noise = 100 * np.arange(1, 7)[:, None, None] * rng.standard_t(3, (6, 48, 48))
    return {
        "image": rng.integers(9000, 15000, (6, 16, 16)).astype(np.uint16),
        "pan": rng.integers(2000, 8000, (1, 32, 32)).astype(np.uint16),
        "target": np.clip(2000 + noise, 1, 20000).astype(np.uint16),
        "valid": (rng.random((48, 48)) > 0.05).astype(np.uint8),
    }


@pytest.fixture(scope="module")
def data(tiny_dataset):
    return tiny_dataset(name="pairs-uncertain", kind="regression", chips=4, arrays=ARRAYS, make=chip)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """``weights(name, seed, **args)``: a folder with an untrained network of these arguments."""

    def make(name="srunet", seed=0, **args):
        torch.manual_seed(seed)
        args |= {"channels": 4, "depth": 2}
        folder = tmp_path_factory.mktemp(name)
        save_pretrained(
            create_model(name, SPEC, **args),
            folder,
            name=name,
            spec=SPEC,
            args=args,
            preprocess_config=Preprocess(IMAGE, normalization="none").to_config(),
            classes=(),
            card={"task_kind": "regression"},
            harmonization=Meaning(
                pan=Preprocess(PAN, normalization="none").to_config(), target=TARGET, loss="l1", residual=False
            ),
        )
        return folder

    return make


METHODS = {
    "gaussian": [{"name": "aunet-gaussian"}],
    "mc-dropout": [{"dropout": 0.1}],
    "ensemble": [{"seed": 0}, {"seed": 1}, {"seed": 2}],
}


@pytest.mark.parametrize("method", METHODS)
def test_calibrated_intervals_hold_on_data_they_have_not_seen(method, data, weights, tmp_path):
    runs = [weights(**one) for one in METHODS[method]]
    record = measure_uncertainty(runs, method, tmp_path, dataset=data, passes=4, device="cpu")
    before, after = (np.array(state.coverage) for state in (record.before, record.after))
    assert np.abs(before[:, 7] - 0.68).max() > 0.1  # an untrained network knows nothing of its error
    np.testing.assert_allclose(after[:, record.levels.index(0.68)], 0.68, atol=0.03)
    np.testing.assert_allclose(after[:, record.levels.index(0.95)], 0.95, atol=0.03)
    assert record.after.pooled["0.68"][0] == pytest.approx(0.68, abs=0.03)
    assert record.crossed.pooled["0.95"][0] == pytest.approx(0.95, abs=0.02)
    assert record.crossed.scenes == 4
    assert set(record.scenes) == {"test-0", "test-1"}
    assert record.after.pooled["0.68"][1] is None  # two scenes make no interval
    assert read_record(tmp_path) == record
    assert (tmp_path / "uncertainty.png").read_bytes().startswith(b"\x89PNG")
    for run in runs:
        kept = from_pretrained(run).harmonization.sigma
        assert kept.method == method
        assert np.allclose(kept.factors, record.factors)


def test_each_scene_is_calibrated_on_all_the_others():
    # Ratios of 1 in two scenes and of 100 in the third: what two say holds for none but the other of them.
    ratios = np.zeros((3, 1, len(EDGES) + 1), np.int64)
    for scene, ratio in enumerate((1.0, 1.0, 100.0)):
        ratios[scene, 0, np.searchsorted(EDGES, ratio)] = 1000
    crossed = _crossed(ratios)
    by_hand = [1.0, 1.0, 0.0]  # at 95 % the third gets about 1, and each of the first two gets about 100
    assert crossed.pooled["0.95"][0] == pytest.approx(np.mean(by_hand), abs=0.01)
    assert crossed.coverage[0][LEVELS.index(0.95)] == pytest.approx(2 / 3, abs=0.01)


def test_the_same_measurement_gives_the_same_figures(data, weights, tmp_path):
    run = weights(dropout=0.1)
    first, second = (
        measure_uncertainty([run], "mc-dropout", tmp_path / n, dataset=data, passes=3, device="cpu", keep=False)
        for n in "ab"
    )
    assert first.model_dump(exclude={"provenance"}) == second.model_dump(exclude={"provenance"})
    assert (tmp_path / "a" / "uncertainty.png").read_bytes() == (tmp_path / "b" / "uncertainty.png").read_bytes()
    assert from_pretrained(run).harmonization.sigma is None


def test_the_command_prints_coverage_and_draws_measurements_side_by_side(data, weights, tmp_path):
    runs = [str(weights(seed=seed)) for seed in range(2)]
    done = CliRunner().invoke(
        app,
        ["uncertainty", *runs, "--method", "ensemble", "--dataset", str(data), "--out", str(tmp_path / "one")],
    )
    assert done.exit_code == 0, done.output
    assert "inside the 68% interval, after" in done.output
    beside = ["--beside", str(tmp_path / "one"), "--beside", str(tmp_path / "one" / "uncertainty.json")]
    done = CliRunner().invoke(app, ["uncertainty", *beside, "--out", str(tmp_path / "both")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "both" / "uncertainty.png").stat().st_size > 10_000


def test_what_cannot_be_measured_is_refused_in_words(data, weights, tmp_path):
    run = weights()
    with pytest.raises(InputError, match="name two splits"):
        measure_uncertainty([run], "gaussian", tmp_path, dataset=data, split="val")
    with pytest.raises(InputError, match="no variance"):
        measure_uncertainty([run], "gaussian", tmp_path, dataset=data)
    with pytest.raises(InputError, match="no dropout"):
        measure_uncertainty([run], "mc-dropout", tmp_path, dataset=data)
    with pytest.raises(FormatError, match="no finished run here"):
        measure_uncertainty([run], "gaussian", tmp_path)
    with pytest.raises(WeightsError, match="no weights here"):
        measure_uncertainty([tmp_path], "gaussian", tmp_path, dataset=data)
    for arguments in ([], ["--method", "ensemble"], [str(run)]):
        done = CliRunner().invoke(app, ["uncertainty", *arguments])
        assert isinstance(done.exception, InputError), arguments


def test_a_broken_record_is_refused_in_words(tmp_path):
    with pytest.raises(FormatError, match="no uncertainty here"):
        read_record(tmp_path)
    (tmp_path / "uncertainty.json").write_text("{")
    with pytest.raises(FormatError, match="not valid JSON"):
        read_record(tmp_path)
    (tmp_path / "uncertainty.json").write_text(json.dumps({"format": "tidemark-uncertainty"}))
    with pytest.raises(FormatError, match="dataset"):
        read_record(tmp_path)
