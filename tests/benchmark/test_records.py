"""Records come back as written, and no hostile one gets through."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from tidemark.benchmark.figures import Counts
from tidemark.benchmark.records import (
    MAX_RESULT_BYTES,
    Histogram,
    Result,
    content_id,
    make_result,
    parse_result,
    read_result,
    result_schema,
    upgraded,
    write_result,
)
from tidemark.benchmark.scores import (
    BOUNDARY_KEYS,
    as_metric,
    check_figures,
    counts_of,
    estimates,
    histogram_metrics,
    unit_scores,
)
from tidemark.datasets.spec import canonical_json
from tidemark.errors import FormatError, InputError

SHA = "0123456789abcdef" * 4
CLASSES = ({"id": 0, "name": "dry", "color": "#c8b89a"}, {"id": 1, "name": "water", "color": "#1f77b4"})
NAMES = ["dry", "water"]


def histogram(random, total):
    """``total`` answers over the 256 levels, missed and hit."""
    cells = random.multinomial(total, np.full(512, 1 / 512)).reshape(2, 256)
    return Histogram(missed=cells[0].tolist(), hit=cells[1].tolist())


def make(n_units=3, seed=0, **changes) -> Result:
    random = np.random.default_rng(seed)
    near = random.integers(0, 10, (1, n_units, 2))
    boundary = np.stack([near[..., 0] + 5, near[..., 0], near[..., 1] + 5, near[..., 1]], -1)
    counts = Counts(random.integers(1, 99, (1, n_units, 2, 2)), boundary)
    units = [
        dict(id=f"scene {i}", confusion=c.tolist(), pixels=int(c.sum()), scores=scores,
             counts=dict(zip(BOUNDARY_KEYS, b.tolist(), strict=True)))
        for i, (c, b, scores) in enumerate(zip(counts.confusion[0], boundary[0],
                                               unit_scores("binary-segmentation", NAMES, counts), strict=True))
    ]  # fmt: skip
    found = {key: as_metric(value) for key, value in estimates("binary-segmentation", NAMES, counts).items()}
    pixels = int(counts.confusion.sum())
    histograms = {key: histogram(random, pixels) for key in ("calibration", "confidence")}
    found |= histogram_metrics(**histograms)
    fields = dict(
        task="binary-segmentation", seed=seed, classes=CLASSES, units=units, metrics=found, chips=9,
        dataset=dict(name="toy", version="1.0.0", title="Toy", content_sha256=SHA, manifest_sha256=SHA,
                     simulated=True, licence=None, split="test"),
        model=dict(name="unet", arguments={"encoder": "resnet18"}, parameters=7, weights_sha256=SHA, trained=True,
                   label="U-Net"),
        harness=dict(version="0.1.0"), **histograms, predictions_sha256=SHA, config="SEED: 0\n", config_hash="01234567",
    )  # fmt: skip
    return make_result(**{**fields, **changes})


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "test" / "result.json"
    write_result(path, make())
    return path


def edit(path, *keys, value):
    raw = json.loads(path.read_text())
    node = raw
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    path.write_text(json.dumps(raw))
    return path


def test_a_record_comes_back_as_written(stored):
    assert read_result(stored) == make()
    assert stored.read_bytes().endswith(b"}\n")
    assert os.listdir(stored.parent) == ["result.json"]


def test_the_same_content_has_the_same_id_and_any_change_another():
    assert make().id == make().id
    assert len({make().id, make(note="x").id, make(seed=1).id, make(chips=10).id}) == 4


def test_a_field_at_its_default_is_no_part_of_the_id():
    """So a later field with a default leaves the ids of the records before it alone."""
    record = make()
    plain = record.model_dump(mode="json", exclude={"id", "note", "speed", "made_with", "bands", "confusion_sha256"})
    for unit in plain["units"]:
        assert unit.pop("sums") == {}
    assert parse_result({**plain, "id": record.id}) == record
    assert make(note="").id == record.id and make(note="x").id != record.id
    # Fields that the schema has gained since leave this id as it was published.
    assert make(schema_version="1.1").id == "b887fbfe3737c1925e0fdd30cf686c08393b7e4d58525409047b75059f078b2b"


def old(record):
    """The record as schema 1.0 wrote it: all of its fields, and an id over all of them."""
    later = {"id", "bands", "calibration", "confidence", "made_with"}
    raw = {**record.model_dump(mode="json", exclude=later), "schema_version": "1.0"}
    raw["units"] = [{key: value for key, value in unit.items() if key != "sums"} for unit in raw["units"]]
    raw["metrics"] = {key: value for key, value in raw["metrics"].items() if key not in ("ece", "aurc")}
    return {**raw, "id": hashlib.sha256(canonical_json(raw)).hexdigest()}


def test_a_record_of_the_first_schema_still_reads_and_can_be_raised_to_the_present_one(tmp_path):
    raw = old(make())
    result = parse_result(raw)
    check_figures(result)
    assert result.id == raw["id"] and result.schema_version == "1.0"
    new = upgraded(result)
    assert new.schema_version == "1.1" and new.id == content_id(new) != result.id
    write_result(tmp_path / "result.json", new)
    assert read_result(tmp_path / "result.json") == new
    with pytest.raises(FormatError, match="/id: the content has the id"):
        parse_result({**raw, "seed": 5})


def test_the_committed_records_read_and_their_figures_hold():
    from tidemark.leaderboard import site

    folder = Path(site.__file__).parent / "submissions" / "polar-patch"
    records = [path for path in sorted(folder.rglob("test.json"))[:3]]
    assert records
    for path in records:
        check_figures(read_result(path))


def test_the_schema_is_published_by_a_command(stored):
    from tidemark.cli import app
    from typer.testing import CliRunner

    shown = CliRunner().invoke(app, ["evaluate", "--schema"])
    assert shown.exit_code == 0
    jsonschema.validate(json.loads(stored.read_text()), json.loads(shown.stdout))
    assert "which run?" in str(CliRunner().invoke(app, ["evaluate"]).exception)


def test_the_published_schema_accepts_a_record(stored):
    jsonschema.validate(json.loads(stored.read_text()), result_schema())


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("units", 0, "confusion", 0, 0), 10**6, "/units/0: Value error, .* in the confusion matrix"),
        (("units", 0, "counts", "abstained"), 10**6, "/units/0: Value error, 1000000 of .* without an answer"),
        (("units", 1, "id"), "scene 0", "unit ids repeat"),
        (("units", 0, "confusion", 0), [1, 2, 3], "not square"),
        (("units", 0, "confusion", 0, 0), -1, "/units/0/confusion/0/0: "),
        (("units", 0, "confusion", 0, 0), 1.5, "/units/0/confusion/0/0: "),
        (("units", 0, "confusion", 0, 0), "1", "/units/0/confusion/0/0: "),
        (("units", 0, "confusion", 0, 0), True, "/units/0/confusion/0/0: "),
        (("dataset", "name"), "../../etc", "/dataset/name: "),
        (("dataset", "version"), "../1", "/dataset/version: "),
        (("dataset", "split"), "te/st", "/dataset/split: "),
        (("model", "name"), "../unet", "/model/name: "),
        (("model", "label"), "x" * 101, "/model/label: "),
        (("model", "arguments"), {"a": "x" * 20_000}, "/model/arguments: .*10 000 characters"),
        (("model", "extra"), 1, "/model/extra: "),
        (("predictions_sha256",), "0" * 63, "/predictions_sha256: "),
        (("metrics", "iou"), None, "/metrics/iou: "),
        (("metrics", "iou", "interval"), {"low": 0.6, "high": 0.5, "method": "bootstrap"}, "above high"),
        (("metrics",), {}, "lack the headline 'iou'"),
        (("note",), "<b>" * 1000, "/note: "),
        (("task",), "segmentation", "lack the headline 'mean_iou'"),
        (("task",), "harmonization", "lack the headline 'psnr'"),
        (("classes",), [], "at least two"),
        (("bands",), ["red"], "bands belong to a harmonization"),
        (("speed",), dict(chips_per_s=1e300, mpx_per_s=1, device="", threads=1, precision="fp32", batch=1),
         "/speed/chips_per_s: .* less than or equal to 1000000000000"),
        (("units", 0, "sums"), {"error": [1.0]}, "either a confusion matrix or sums"),
        (("units", 0, "confusion"), [], "either a confusion matrix or sums"),
        (("calibration", "hit", 7), 10**6, "calibration: .* answers in the histogram, the units have"),
        (("confidence", "hit"), [1, 2], "/confidence/hit: "),
        (("confidence", "missed", 0), -1, "/confidence/missed/0: "),
        (("classes", 1, "color"), "red;", "/classes/1/color: "),
        (("schema_version",), "1.9", "written by a newer version"),
        (("schema_version",), "99.0", "written by a newer version: needs schema >= 99.0"),
        (("metrics", "iou", "value"), 0.99, "/id: the content has the id"),
        (("seed",), 5, "/id: the content has the id"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_json_pointer(stored, keys, value, message):
    with pytest.raises(FormatError, match=message) as caught:
        read_result(edit(stored, *keys, value=value))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lambda text: text.replace('"chips": 9', '"chips": NaN'), "NaN is not a JSON number"),
        (lambda text: text.replace('"chips": 9', '"chips": 1e999'), "/chips: |not a result|Infinity"),
        (lambda text: text.replace('"resnet18"', "1e999"), "/model/arguments: .*not JSON compliant"),
        (lambda text: text[:100], "not valid JSON"),
        (lambda text: "[" * 200_000, "not valid JSON"),
        (lambda text: "[]", "Input should be"),
        (lambda text: '"' + "x" * (10 << 20) + '"', "Input should be"),
        (lambda text: " " * (MAX_RESULT_BYTES + 1), "over the limit"),
        (lambda text: '{"note": "\\ud800"}', "\\ud800|not a result|valid"),
    ],
)
def test_text_that_is_no_record_is_refused_in_one_line(stored, text, message):
    stored.write_text(text(stored.read_text()))
    with pytest.raises(FormatError, match=message) as caught:
        read_result(stored)
    assert len(str(caught.value)) < 900


def test_a_missing_record_says_what_to_do(tmp_path):
    with pytest.raises(FormatError, match="tidemark evaluate"):
        read_result(tmp_path / "result.json")


def test_figures_that_their_integers_do_not_give_are_found():
    check_figures(make())
    check_figures(make(n_units=8))
    with pytest.raises(FormatError, match="/metrics/iou: .* its integers give"):
        check_figures(make(metrics={**make().metrics, "iou": {"value": 0.99}}))
    with pytest.raises(FormatError, match="/metrics/iou"):  # an interval where there is none
        invented = {"value": make().headline.value, "interval": {"low": 0, "high": 1, "method": "bootstrap"}}
        check_figures(make(metrics={**make().metrics, "iou": invented}))
    for key, source in (("ece", "calibration"), ("aurc", "confidence")):
        with pytest.raises(FormatError, match=f"/metrics/{key}: .* its integers give"):
            check_figures(make(metrics={**make().metrics, key: {"value": 0.01}}))
        with pytest.raises(FormatError, match=f"/metrics/{key}: .* its integers give value=None"):
            check_figures(make(**{source: None}))
    with pytest.raises(FormatError, match="/metrics/abstained: .* its integers give value=None"):
        check_figures(make(metrics={**make().metrics, "abstained": {"value": 0}}))
    units = [unit.model_dump() for unit in make().units]
    units[2]["scores"]["iou"] = 0.99
    with pytest.raises(FormatError, match="/units/2/scores/iou"):
        check_figures(make(units=units))


def test_records_of_different_units_are_no_seeds_of_one_row():
    with pytest.raises(InputError, match="1 units differ"):
        counts_of([make(), make(n_units=4, seed=1)])


def test_seeds_are_matched_by_unit_whatever_their_order():
    other = make(seed=1)
    turned = make(seed=1, units=[unit.model_dump() for unit in reversed(other.units)])
    a, b = counts_of([make(), other]), counts_of([make(), turned])
    assert np.array_equal(a.confusion, b.confusion) and np.array_equal(a.boundary, b.boundary)
