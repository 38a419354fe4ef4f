"""Models from outside the registry, here of reflectance: predictions alone are packed, checked and scored."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from tidemark.benchmark.evaluate import evaluate_run
from tidemark.benchmark.imports import import_predictions
from tidemark.benchmark.records import read_result, write_result
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import Array, Band
from tidemark.errors import FormatError, InputError
from tidemark.leaderboard.artifacts import prediction_content
from tidemark.leaderboard.entries import load_entries
from tidemark.leaderboard.pack import pack
from tidemark.leaderboard.score import equal_share, score_submission
from tidemark.leaderboard.statement import check_statement
from tidemark.leaderboard.submission import SUBMISSION_NAME, read_submission
from tidemark.models.predictions import Predictions

BANDS = tuple(Band(name=name, scale=1e-4, nodata=65535) for name in ("red", "nir"))
ARRAYS = (
    Array(name="image", dtype="uint16", shape=(2, 11, 11), role="image", bands=BANDS),
    Array(name="target", dtype="uint16", shape=(2, 32, 32), role="target", bands=BANDS),
)


def pair(rng, header):
    return {a.name: rng.integers(500, 5000, a.shape).astype(np.uint16) for a in header.arrays}


@pytest.fixture(scope="module")
def foreign(tiny_dataset, tmp_path_factory):
    """``data`` (root), ``runs`` of three seeds and ``board`` with a row of the house's."""
    folder, out = (
        tiny_dataset(name="pairs", kind="regression", chips=2, arrays=ARRAYS, make=pair),
        tmp_path_factory.mktemp("out"),
    )
    runs = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        for split in ("val", "test"):
            chips = {
                i: s.read("target", n) * 1e-4 for s in open_split(folder, split)[1] for n, i in enumerate(s.chip_ids)
            }
            path = out / f"{seed}-{split}.npz"
            np.savez(path, **{i: (x + rng.normal(0, 0.01, x.shape)).astype(np.float32) for i, x in chips.items()})
            import_predictions([path], folder, split, out / f"run{seed}", model="theirs", label="Theirs", seed=seed)
            evaluate_run(out / f"run{seed}", split)
        runs.append(out / f"run{seed}")
    for split in ("val", "test"):
        write_result(out / "board" / "pairs" / f"{split}.json", read_result(runs[3] / split / "result.json"))
    return SimpleNamespace(data=folder.parents[1], runs=runs[:3], board=load_entries(out / "board"))


@pytest.fixture
def packed(foreign, statement, tmp_path):
    pack(foreign.runs, tmp_path / "packed", **statement)
    return tmp_path / "packed"


def test_predictions_without_weights_are_packed_checked_and_scored(foreign, packed):
    submission = read_submission(packed / SUBMISSION_NAME)
    assert submission.config_hash is None and all(run.weights is None for run in submission.runs)
    check_statement(submission, foreign.board)
    verification = score_submission(packed, foreign.data)
    assert verification.tier == "scored"
    assert verification.runs[0].splits["test"].headline == pytest.approx(40, abs=0.3)  # 20 log10 of 1 / 0.01
    with pytest.raises(InputError, match="no weights to make the predictions from"):
        score_submission(packed, foreign.data, again=True)


def test_a_changed_value_is_found_in_the_sums(foreign, packed, forge):
    def brighten(ids, chunks, about):
        chunks[0][0][1, 16, 16] += 0.25

    forge.rewrite(packed, 2, "val", brighten)
    with pytest.raises(FormatError, match=r"/runs/2/records/val/units/0/s\w+/.* stated, .* recomputed"):
        score_submission(packed, foreign.data)


def test_an_edited_sum_is_refused_without_the_predictions(foreign, packed, forge):
    units = [u.model_dump(mode="json") for u in read_submission(packed / SUBMISSION_NAME).runs[0].records["test"].units]
    units[0]["sums"]["squared_error"][0] *= 0.5
    forge.restate(packed, 0, "test", units=units)
    with pytest.raises(FormatError, match="/runs/0/records/test/metrics/.* its integers give"):
        check_statement(read_submission(packed / SUBMISSION_NAME), foreign.board)


def test_reflectance_is_equal_within_the_protocols_tolerance(packed, forge, tmp_path):
    path = packed / "seed0" / "test" / "predictions.h5"
    other = packed / "seed1" / "test" / "predictions.h5"
    assert prediction_content(Predictions(path)) != prediction_content(Predictions(other))
    chips = Predictions(path)

    def move(ids, chunks, about):
        for number, chip_id in enumerate(ids):
            values = chips.read(chip_id)[0].astype(np.float32)
            values += 0.0009  # less than 0.002 even where float16 rounds
            if number == 0:
                values[0, 0, :8] += 0.01
                values[1, 0, :8] = np.nan
            chunks[number] = (values.astype(np.float16), None)

    forge.rewrite(packed, 1, "test", move)
    total = len(chips.chip_ids) * 2 * 32 * 32
    assert equal_share(chips, Predictions(other)) == pytest.approx(1 - 16 / total)
