"""Records come back as written, and no hostile one gets through."""

from __future__ import annotations

import json
import os

import jsonschema
import numpy as np
import pytest
from tidemark.benchmark.records import MAX_RESULT_BYTES, Result, make_result, read_result, result_schema, write_result
from tidemark.benchmark.scores import BOUNDARY_KEYS, Counts, as_metric, check_figures, counts_of, estimates, unit_scores
from tidemark.errors import FormatError, InputError

SHA = "0123456789abcdef" * 4
CLASSES = ({"id": 0, "name": "dry", "color": "#c8b89a"}, {"id": 1, "name": "water", "color": "#1f77b4"})
NAMES = ["dry", "water"]


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
    fields = dict(
        task="binary-segmentation", seed=seed, classes=CLASSES, units=units, metrics=found, chips=9,
        dataset=dict(name="toy", version="1.0.0", title="Toy", content_sha256=SHA, manifest_sha256=SHA,
                     simulated=True, licence=None, split="test"),
        model=dict(name="unet", arguments={"encoder": "resnet18"}, parameters=7, weights_sha256=SHA, trained=True,
                   label="U-Net"),
        harness=dict(version="0.1.0"), predictions_sha256=SHA, config="SEED: 0\n", config_hash="01234567",
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


def test_the_published_schema_accepts_a_record(stored):
    jsonschema.validate(json.loads(stored.read_text()), result_schema())


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("units", 0, "confusion", 0, 0), 10**6, "/units/0: Value error, .* in the confusion matrix"),
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
