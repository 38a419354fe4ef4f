"""A table by one command: what is there is kept, what is missing is made, what fails costs one run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tidemark.benchmark import runner
from tidemark.benchmark.evaluate import evaluate_run
from tidemark.benchmark.records import Interval, read_result
from tidemark.benchmark.reproduce import differences, reproduce
from tidemark.benchmark.sweep import load_table, plan, table_names
from tidemark.benchmark.tables import Cell, collect, rows
from tidemark.configs import load_config
from tidemark.datasets.spec import load_manifest
from tidemark.errors import ConfigError, FormatError, InputError, PartialResultError, TidemarkError
from tidemark.models.train import train


@pytest.fixture(scope="module")
def data(tiny_dataset):
    """Root folder of a tiny data set."""
    return tiny_dataset(name="tiny", chips=2, shape=(2, 64, 64)).parents[1]


@pytest.fixture
def table(tmp_path, data):
    """Two trivial rows, one with two seeds; returns the table's path."""
    for name, args in (("all-wet", {}), ("otsu", {"band": "b0"})):
        recipe = {"DATA": {"NAME": "tiny"}, "MODEL": {"NAME": name, "ARGS": args}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    spec = {
        "title": "Tiny", "tolerance": 0.01,
        "profiles": {"cpu": {"seeds": [0, 1], "budget_min": 1, "overrides": ["TRAIN.DEVICE", "cpu"]}},
        "parts": [{"dataset": "tiny", "version": "1.0.0", "build": "tidemark build tiny", "splits": ["test", "val"],
                   "mark": "made by a test",
                   "rows": [{"recipe": str(tmp_path / "all-wet.yaml"), "seeds": [0]},
                            {"recipe": str(tmp_path / "otsu.yaml")}]}],
    }  # fmt: skip
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.fixture
def calls(monkeypatch):
    """The commands that would be child processes, run in this one."""
    made = []

    def child(arguments, log, environment):
        made.append(arguments[0])
        if arguments[0] == "train":
            train(load_config(arguments[1], arguments[2:]))
        else:
            evaluate_run(arguments[1], arguments[3], dataset=arguments[5] if len(arguments) > 5 else None)
        return runner.Outcome(runner.Cost(2.0, 1.0))

    monkeypatch.setattr(runner, "child", child)
    return made


def make(table, data, out, **options):
    lines = []
    return reproduce(table, "cpu", data, out, say=lines.append, **options), lines


def test_everything_is_made_once_and_published(table, data, tmp_path, calls):
    made, lines = make(table, data, tmp_path / "runs", records=tmp_path / "records")
    assert calls == ["train", "evaluate", "evaluate"] * 3 and len(lines) == 4
    assert all("(6.0 s, 3.0 CPU s)" in line for line in lines[:3])
    assert lines[3].startswith(
        "3 runs one after the other: 18.0 s, 9.0 CPU s (0.3 of the profile's 1 minutes). This call: 3 runs, "
    )
    assert [t.title for t in made.tables] == [
        f"Tiny 1.0.0, split {split} (simulated): made by a test" for split in ("test", "val")
    ]
    assert {cells[:2] for cells in made.tables[0].cells} == {("all wet", "0"), ("Otsu threshold", "0, 1")}
    stored = sorted(p.relative_to(tmp_path / "records").parts for p in (tmp_path / "records").rglob("*.json"))
    assert len(stored) == 6 and {p[:3] for p in stored} == {("tiny", "v1", "all-wet"), ("tiny", "v1", "otsu")}
    assert {p[4] for p in stored} == {"test.json", "val.json"} and stored[0][3].endswith("-seed0")
    assert {r.id for r in collect([tmp_path / "records"])} == {r.id for r in made.results}
    text = (tmp_path / "runs" / "tables" / "small.md").read_text()
    assert "Otsu threshold" in text and "tidemark reproduce small --profile cpu" in text
    assert r"\begin{tabular}" in (tmp_path / "runs" / "tables" / "small.tex").read_text()


def test_a_second_time_runs_nothing_and_gives_the_same(table, data, tmp_path, calls):
    first, _ = make(table, data, tmp_path / "runs")
    calls.clear()
    again, lines = make(table, data, tmp_path / "runs")
    assert calls == [] and again == first
    assert all("was there; made in 6.0 s, 3.0 CPU s" in line for line in lines[:3])
    assert "18.0 s, 9.0 CPU s (0.3 of the profile's 1 minutes). This call: 0 runs" in lines[3]


def one_result(tmp_path, model="otsu", seed=0):
    return next((tmp_path / "runs").glob(f"tiny-1.0.0/{model}-*/seed{seed}/test/result.json"))


def test_a_record_that_was_edited_is_scored_again(table, data, tmp_path, calls):
    first, _ = make(table, data, tmp_path / "runs")
    path = one_result(tmp_path)
    raw = json.loads(path.read_text())
    raw["metrics"]["iou"]["value"] = 0.99
    path.write_text(json.dumps(raw))
    calls.clear()
    again, _ = make(table, data, tmp_path / "runs")
    assert calls == ["evaluate"] and [r.metrics for r in again.results] == [r.metrics for r in first.results]


def test_a_record_of_another_version_with_the_same_pixels_is_scored_again(table, data, tmp_path, calls):
    make(table, data, tmp_path / "runs")
    job = plan(load_table(table), "cpu", data, tmp_path / "runs")[0]
    target = job.targets[0]
    assert runner.is_verified(job, target)
    with pytest.raises(FormatError, match="scored on other data"):
        runner.verified_result(job, replace(target, version="1.0.1"))


def test_predictions_that_were_changed_are_made_again_and_not_scored(table, data, tmp_path, calls):
    first, _ = make(table, data, tmp_path / "runs")
    mine, other = one_result(tmp_path).parent, one_result(tmp_path, "all-wet").parent
    (mine / "predictions.h5").write_bytes((other / "predictions.h5").read_bytes())
    calls.clear()
    again, _ = make(table, data, tmp_path / "runs")
    assert calls == ["train", "evaluate", "evaluate"]  # this row has no weights to predict from
    assert [r.metrics for r in again.results] == [r.metrics for r in first.results]


def test_lost_predictions_of_a_row_without_weights_are_made_again(table, data, tmp_path, calls):
    first, _ = make(table, data, tmp_path / "runs")
    (one_result(tmp_path).parent / "predictions.h5").unlink()
    calls.clear()
    again, _ = make(table, data, tmp_path / "runs")
    assert calls[0] == "train"
    assert [r.predictions_sha256 for r in again.results] == [r.predictions_sha256 for r in first.results]


def test_a_crash_costs_one_run_and_the_next_call_makes_only_that(table, data, tmp_path, calls, monkeypatch):
    child = runner.child

    def crashing(arguments, log, environment):
        if arguments[0] == "train" and arguments[arguments.index("SEED") + 1] == "1":
            return runner.Outcome(runner.Cost(1.0, 1.0), "`tidemark train` ended with -9: Killed")
        return child(arguments, log, environment)

    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:small -->\nnothing yet\n<!-- /table -->\n")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "child", crashing)
        with pytest.raises(PartialResultError, match="1 of 3 runs failed: .*otsu.yaml seed 1 on tiny 1.0.0.*Killed"):
            make(table, data, tmp_path / "runs", records=tmp_path / "records", readme=readme)
    assert len(list((tmp_path / "records").rglob("*.json"))) == 4  # each record is kept as soon as it is there
    assert "nothing yet" in readme.read_text()  # half a table is not published
    calls.clear()
    make(table, data, tmp_path / "runs", records=tmp_path / "records", readme=readme)
    assert calls == ["train", "evaluate", "evaluate"]
    assert "nothing yet" not in readme.read_text() and "Otsu threshold" in readme.read_text()


def test_check_compares_with_the_committed_records_and_publishes_nothing(table, data, tmp_path, calls):
    records = tmp_path / "records"
    make(table, data, tmp_path / "runs", records=records)
    before = {p: p.read_bytes() for p in records.rglob("*.json")}
    make(table, data, tmp_path / "runs", records=records, check=True)
    assert {p: p.read_bytes() for p in records.rglob("*.json")} == before
    for path in records.rglob("all-wet/*/val.json"):
        path.unlink()
    with pytest.raises(TidemarkError, match="1 figures differ .*all wet on tiny 1.0.0 val: no committed figure"):
        make(table, data, tmp_path / "runs", records=records, check=True)


def test_figures_must_lie_in_the_interval_or_within_the_tolerance(table, data, tmp_path, calls):
    row = rows(make(table, data, tmp_path / "runs")[0].results)[0]

    def with_headline(mean, interval=None):
        return replace(row, metrics={**row.metrics, "iou": Cell(mean, None, interval)})

    assert differences([with_headline(0.505)], [with_headline(0.5)], 0.01) == []
    assert "0.5200, expected 0.5000 ± 0.01" in differences([with_headline(0.52)], [with_headline(0.5)], 0.01)[0]
    wide = Interval(low=0.4, high=0.6, method="jackknife-t")
    assert differences([with_headline(0.59)], [with_headline(0.5, wide)], 0.01) == []
    assert "expected [0.4000, 0.6000]" in differences([with_headline(0.61)], [with_headline(0.5, wide)], 0.5)[0]
    assert differences([with_headline(None)], [with_headline(None)], 0.01) == []
    assert len(differences([with_headline(None)], [with_headline(0.5)], 0.01)) == 1


def test_simulated_data_may_differ_in_their_bits_between_processors(table, data, tmp_path, calls):
    row = rows(make(table, data, tmp_path / "runs")[0].results)[0]
    elsewhere = replace(row, key="made on another processor")
    assert differences([elsewhere], [row], 0.01) == []
    observed = replace(elsewhere, dataset=row.dataset.model_copy(update={"simulated": False}))
    assert "no committed figure" in differences([observed], [row], 0.01)[0]


def test_child_processes_ignore_folders_that_look_like_our_packages(table, data, tmp_path, monkeypatch):
    """The one test with real child processes: in a folder with its own datasets/, models/ and tidemark.py."""
    spec = yaml.safe_load(table.read_text())
    spec["parts"][0] |= {"rows": [{"recipe": str(tmp_path / "all-wet.yaml"), "seeds": [0]}], "splits": ["test"]}
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump({"MODEL": {"NAME": "all-dry", "ARGS": {"depth": 3}}}))
    spec["parts"][0]["rows"].append({"recipe": str(tmp_path / "broken.yaml"), "seeds": [0]})
    table.write_text(yaml.safe_dump(spec))
    place = tmp_path / "place"
    for name in ("datasets", "models"):
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text("raise SystemExit('shadowed')")
    (place / "tidemark.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(place)
    with pytest.raises(PartialResultError, match="1 of 2 runs failed.*ended with 2: .*no argument 'depth'"):
        make(table, data, "runs")
    result = read_result(next(Path("runs").glob("tiny-1.0.0/all-wet-*/seed0/test/result.json")))
    assert result.metrics["recall"].value == 1
    assert any("$ tidemark train" in log.read_text() for log in Path("runs/logs").iterdir())


def test_a_missing_data_set_names_the_command_that_makes_it(table, tmp_path):
    with pytest.raises(FormatError, match="the data set is not there; make it: tidemark build tiny"):
        make(table, tmp_path / "empty", tmp_path / "runs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": 2}, "/tolerance: "),
        ({"extra": 1}, "/extra: "),
        ({"profiles": {}}, "/profiles: "),
        ({"profiles": {"huge": {"seeds": [0]}}}, "/profiles/huge"),
        ({"profiles": {"cpu": {"seeds": [0], "overrides": ["SEED"]}}}, "'SEED' has no value"),
        ({"parts": []}, "/parts: "),
    ],
)
def test_a_table_with_a_fault_is_refused_with_its_place(table, change, message):
    table.write_text(yaml.safe_dump(yaml.safe_load(table.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        load_table(table)


def test_the_same_run_in_two_rows_is_refused_for_they_would_write_to_one_folder(table, data, tmp_path):
    spec = yaml.safe_load(table.read_text())
    spec["parts"][0]["rows"].append({"recipe": str(tmp_path / "otsu.yaml"), "seeds": [1]})
    table.write_text(yaml.safe_dump(spec))
    with pytest.raises(ConfigError, match="two rows ask for the same run .*otsu.yaml seed 1 on tiny 1.0.0"):
        plan(load_table(table), "cpu", data, tmp_path)


def test_an_unknown_table_or_profile_names_the_known_ones(table, data, tmp_path):
    with pytest.raises(ConfigError, match="omria: no such table; there is .*ombria, .*polar-patch"):
        load_table("omria")
    with pytest.raises(ConfigError, match="no profile 'full', there is cpu"):
        plan(load_table(table), "full", data, tmp_path)


@pytest.mark.parametrize("name", table_names())
def test_the_tables_that_come_along_hold_their_compulsory_rows(name):
    spec = load_table(name)
    water, patches = {"all-dry", "all-wet", "otsu", "pixel-forest"}, {"majority", "band-forest"}
    pairs = {"nearest", "bilinear", "bicubic", "band-linear"}
    trivial = {"polar-patch": patches, "polar-ice-consecutive-sim": patches, "polar-ice-sim": {"majority"}}
    made = {row.recipe.partition("/")[2] for part in spec.parts for row in part.rows}
    for part in spec.parts:
        rows = {row.recipe.partition("/")[2] for row in part.rows}
        for row in part.rows:
            cfg = load_config(row.recipe, (*part.overrides, *row.overrides, "DATA.NAME", part.dataset))
            assert cfg.DATA.NAME == part.dataset
        needed = trivial.get(part.dataset, pairs if part.dataset.startswith("l8s2") else water)
        assert needed <= rows or "test" not in part.splits  # recipes compared on validation
        assert not made <= needed
    assert spec.profiles["cpu"].seeds == (0, 1, 2) or "test" not in spec.parts[0].splits


def test_run_ids_name_data_configuration_and_seed(table, data, tmp_path):
    jobs = plan(load_table(table), "cpu", data, tmp_path / "runs")
    assert len({job.run_id for job in jobs}) == 3
    moved = plan(load_table(table), "cpu", data, tmp_path / "elsewhere")
    assert [job.run_id for job in moved] == [job.run_id for job in jobs]
    assert {t.content_sha256 for t in jobs[0].targets} == {load_manifest(data / "tiny" / "1.0.0").content_sha256}


def test_a_readme_without_markers_is_refused_before_any_run(table, data, tmp_path, calls):
    readme = tmp_path / "README.md"
    readme.write_text("nothing")
    with pytest.raises(InputError, match="0 places for the table 'small'"):
        make(table, data, tmp_path / "runs", readme=readme)
    assert calls == []
