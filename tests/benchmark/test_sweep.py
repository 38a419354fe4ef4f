"""Sweeps with weights: verified by digest, scored on other data with the same bands, placed on workers and machines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from tidemark.benchmark import executors, runner
from tidemark.benchmark.evaluate import evaluate_run
from tidemark.benchmark.executors import dask_executor, make_slots, part_of, run_all
from tidemark.benchmark.reproduce import Where, reproduce
from tidemark.benchmark.runner import Cost, Outcome, Request
from tidemark.benchmark.sweep import load_table, plan
from tidemark.configs import load_config
from tidemark.datasets.spec import Band
from tidemark.errors import FormatError, InputError
from tidemark.models.predictions import Predictions
from tidemark.models.train import train

PATCHES = {"kind": "classification", "classes": 3, "shape": (2, 32, 32), "dtype": "uint8"}


@pytest.fixture(scope="module")
def data(tiny_dataset, tmp_path_factory):
    """One root with the data sets home, away (the same bands), and two that do not fit."""
    root = tmp_path_factory.mktemp("all")
    kelvin = (Band(name="b0", sensor="test", unit="K"), Band(name="b1", sensor="test", unit="K"))
    made = {
        "home": tiny_dataset(name="home", chips=6, **PATCHES),
        "away": tiny_dataset(name="away", chips=5, **PATCHES),
        "other-unit": tiny_dataset(name="other-unit", chips=4, bands=kelvin, **PATCHES),
        "other-classes": tiny_dataset(name="other-classes", chips=3, **{**PATCHES, "classes": 2}),
    }
    for name, folder in made.items():
        (root / name).symlink_to(folder.parent)
    return root


@pytest.fixture
def spec(tmp_path):
    """A table of one network and one trivial row; a function that writes it with changes to the network's row."""
    network = {"MODEL": {"NAME": "patch-cnn", "ARGS": {"width": 4, "hidden": 16}}, "TRAIN": {"EPOCHS": 1}}
    for name, recipe in (("cnn", network), ("majority", {"MODEL": {"NAME": "majority"}})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe))

    def write(evaluate_on=(), row="cnn"):
        elsewhere = [{"version": "1.0.0", "build": "make it", **other} for other in evaluate_on]
        rows = [{"recipe": str(tmp_path / "cnn.yaml")}, {"recipe": str(tmp_path / "majority.yaml")}]
        rows[["cnn", "majority"].index(row)]["evaluate_on"] = elsewhere
        table = {
            "title": "Small", "tolerance": 0.01,
            "profiles": {"cpu": {"seeds": [0], "overrides": ["TRAIN.DEVICE", "cpu"]}},
            "parts": [{"dataset": "home", "version": "1.0.0", "build": "make it", "splits": ["test"], "rows": rows}],
        }  # fmt: skip
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(table))
        return tmp_path / "small.yaml"

    return write


@pytest.fixture
def calls(monkeypatch):
    """The commands that would be child processes, run in this one."""
    made = []

    def child(arguments, log, environment):
        made.append(arguments[0])
        if arguments[0] == "train":
            train(load_config(arguments[1], arguments[2:]), progress=False)
        else:
            evaluate_run(arguments[1], arguments[3], dataset=arguments[5] if len(arguments) > 5 else None)
        return Outcome(Cost(1.0, 1.0))

    monkeypatch.setattr(runner, "child", child)
    return made


def test_weights_are_scored_on_other_data_and_stand_in_its_table_by_name(spec, data, tmp_path, calls):
    table = spec([{"dataset": "away", "splits": ["val", "test"]}])
    lines = []
    made = reproduce(table, "cpu", data, tmp_path / "runs", records=tmp_path / "records", say=lines.append)
    assert calls == ["train", "evaluate", "evaluate", "evaluate", "train", "evaluate"]
    assert "away 1.0.0 val" in lines[0] and "test 0." in lines[0]
    assert [t.title for t in made.tables] == [f"Tiny 1.0.0, split {x} (simulated)" for x in ("test", "test", "val")]
    assert {r.dataset.name for r in made.results} == {"home", "away"}
    (cells,) = made.tables[1].cells
    assert "(trained on home 1.0.0)" in cells[0]
    assert len(made.tables[0].cells) == 2 and not any("trained on" in c[0] for c in made.tables[0].cells)
    kept = sorted(p.relative_to(tmp_path / "records").parts[0] for p in (tmp_path / "records").rglob("*.json"))
    assert kept == ["away", "away", "home", "home"]
    calls.clear()
    assert reproduce(table, "cpu", data, tmp_path / "runs", say=lines.append) == made and calls == []


@pytest.mark.parametrize(
    ("other", "row", "message"),
    [
        ("other-unit", "cnn", r"evaluate_on other-unit 1.0.0: expected bands b0 \(1, test\); .*, found b0 \(K, test\)"),
        ("other-classes", "cnn", "expected classification of class 0, class 1, class 2, found .* of class 0, class 1$"),
        ("home", "cnn", "the data set of the row itself"),
        ("away", "majority", "majority has no weights to score elsewhere"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_any_run(spec, data, tmp_path, calls, other, row, message):
    with pytest.raises(InputError, match=message):
        reproduce(spec([{"dataset": other}], row), "cpu", data, tmp_path / "runs", say=print)
    assert calls == []


def test_a_patch_classifier_is_scored_on_scenes_with_its_classes(spec, data, tmp_path, calls, tiny_dataset):
    scenes = tiny_dataset(name="scenes", classes=3, chips=4, shape=(2, 48, 80), dtype="uint8")
    (data / "scenes").symlink_to(scenes.parent)
    try:
        made = reproduce(spec([{"dataset": "scenes"}]), "cpu", data, tmp_path / "runs", say=print)
    finally:
        (data / "scenes").unlink()
    (result,) = [r for r in made.results if r.dataset.name == "scenes"]
    assert result.task == "segmentation" and sum(u.pixels for u in result.units) > 0
    (path,) = tmp_path.glob("runs/*/*/seed0/on-scenes-1.0.0/test/predictions.h5")
    predictions = Predictions(path)
    answer = predictions.read(predictions.chip_ids[0])[0]
    assert answer.shape == (48, 80) and len(np.unique(answer[:16, :16])) == 1  # a class for every cell of 16 pixels


def test_the_first_seed_of_a_row_alone_is_timed_on_each_data_set(spec, data, tmp_path, monkeypatch):
    table = yaml.safe_load(spec([{"dataset": "away", "splits": ["val", "test"]}]).read_text())
    table |= {"speed": True}
    table["profiles"]["cpu"]["seeds"] = [0, 1]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(table))
    asked = []

    def child(arguments, log, environment):
        asked.append(arguments)
        if arguments[0] == "train":
            train(load_config(arguments[1], arguments[2:]), progress=False)
        else:
            evaluate_run(arguments[1], arguments[3], dataset=arguments[5] if "--dataset" in arguments else None)
        return Outcome(Cost())

    monkeypatch.setattr(runner, "child", child)
    reproduce(tmp_path / "small.yaml", "cpu", data, tmp_path / "runs", say=print)
    timed = [["--speed" in a for a in asked if a[0] == "evaluate" and f"seed{seed}" in a[1]] for seed in (0, 1)]
    assert timed == [
        [True, True, False, True],
        [False] * 4,
    ]  # own test, away's val, away's test; the trivial row's test


def test_a_missing_data_set_to_score_on_is_named_with_its_command(spec, data, tmp_path):
    with pytest.raises(FormatError, match="nowhere/1.0.0: the data set is not there; make it: make it"):
        plan(load_table(spec([{"dataset": "nowhere"}])), "cpu", data, tmp_path)
    with pytest.raises(FormatError, match="no split 'june', there is train, val, test"):
        plan(load_table(spec([{"dataset": "away", "splits": ["june"]}])), "cpu", data, tmp_path)


def test_weights_that_were_changed_are_trained_again_and_predictions_made_again_from_good_ones(
    spec, data, tmp_path, calls
):
    table = spec()
    first = reproduce(table, "cpu", data, tmp_path / "runs", say=print)
    (run,) = tmp_path.glob("runs/home-1.0.0/patch-cnn-*/seed0")
    weights, predictions = run / "weights" / "model.safetensors", run / "test" / "predictions.h5"
    good = predictions.read_bytes()

    predictions.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    calls.clear()
    again = reproduce(table, "cpu", data, tmp_path / "runs", say=print)
    assert calls == ["evaluate"] and predictions.read_bytes() == good
    assert [r.predictions_sha256 for r in again.results] == [r.predictions_sha256 for r in first.results]

    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    calls.clear()
    again = reproduce(table, "cpu", data, tmp_path / "runs", say=print)
    assert calls == ["train", "evaluate"]
    assert [r.model.weights_sha256 for r in again.results] == [r.model.weights_sha256 for r in first.results]


def test_parts_of_a_job_array_make_all_runs_once_and_the_whole_call_puts_the_table_together(
    spec, data, tmp_path, calls
):
    table = spec()
    for part in ("0/2", "1/2"):
        made = reproduce(table, "cpu", data, tmp_path / "runs", where=Where(shard=part), say=print)
        assert made.tables == () and len(made.results) == 1
    assert calls == ["train", "evaluate"] * 2
    assert len(reproduce(table, "cpu", data, tmp_path / "runs", say=print).tables[0].cells) == 2
    assert calls == ["train", "evaluate"] * 2
    with pytest.raises(InputError, match="makes no table to check"):
        reproduce(table, "cpu", data, tmp_path / "runs", where=Where(shard="0/2"), check=True)


@pytest.mark.parametrize("shard", ["2/2", "-1/2", "1", "a/b", "0/0", ""])
def test_a_part_that_is_none_is_refused(shard):
    with pytest.raises(InputError, match="is not i/n"):
        part_of(shard, [1, 2])


def test_workers_share_the_cores_and_a_gpu_takes_one_run(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [slot.threads for slot in make_slots(3)] == [2, 2, 2]
    cores = [slot.cores for slot in make_slots(4)]
    assert sorted(sum(cores, ())) == list(range(8))
    assert [(slot.gpu, slot.threads) for slot in make_slots(gpus=("0", "3"))] == [("0", 4), ("3", 4)]
    assert make_slots(100)[0].threads == 1  # more workers than cores
    for wrong in (dict(workers=0), dict(gpus=("0", "0"))):
        with pytest.raises(InputError):
            make_slots(**wrong)
    with pytest.raises(InputError, match="without --workers and --dask"):
        Where(gpus=("0",), workers=2)


def test_throughput_is_measured_only_where_a_run_has_the_machine_to_itself():
    assert Where().alone and Where(gpus=("1",)).alone and Where(shard="0/2").alone
    assert not any(w.alone for w in (Where(workers=2), Where(gpus=("0", "1")), Where(dask="local")))


@pytest.fixture
def request_(spec, data, tmp_path):
    """The request of the table's first run."""
    job = plan(load_table(spec()), "cpu", data, tmp_path / "runs")[0]
    return Request(job, tmp_path / "logs" / "a.log", speed=False)


def test_n_runs_go_side_by_side_each_in_a_slot_of_its_own_and_a_failure_stops_none(request_):
    together, most, seen = [], [], []

    def work(request):
        together.append(request)
        most.append(len(together))
        seen.append((request.threads, request.gpu, len(os.sched_getaffinity(0))))
        threading.Event().wait(0.05)
        together.remove(request)
        if request.log.name == "1":
            raise MemoryError("no room")
        return Outcome(Cost(1, 1))

    requests = [replace(request_, log=Path(str(i))) for i in range(6)]
    slots = [executors.Slot(1, (core,), gpu) for core, gpu in zip([*os.sched_getaffinity(0)] * 2, "01", strict=False)]
    outcomes = {request.log.name: outcome for request, outcome in run_all(requests, slots, work=work)}
    assert len(outcomes) == 6 and max(most) == len(slots)
    assert (
        {s[0] for s in seen} == {1} and {s[1] for s in seen} == {s.gpu for s in slots} and {s[2] for s in seen} == {1}
    )
    assert outcomes["1"].error == "its worker died: MemoryError: no room"
    assert [o.error for name, o in outcomes.items() if name != "1"] == [None] * 5


def test_a_run_on_a_gpu_sees_that_gpu_and_one_on_the_cpu_sees_none(request_):
    overrides, environment = runner._place(request_.job, 3, None)
    assert environment == {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
    assert overrides == ["TRAIN.THREADS", "3"]
    overrides, environment = runner._place(request_.job, 3, "1")
    assert environment["CUDA_VISIBLE_DEVICES"] == "1" and overrides[2:] == ["TRAIN.DEVICE", "cuda"]
    _, environment = runner._place(replace(request_.job, device="auto"), 3, None)
    assert "CUDA_VISIBLE_DEVICES" not in environment


def test_a_child_process_is_charged_with_its_own_time_and_fails_with_its_last_line(tmp_path):
    log = tmp_path / "a.log"
    done = runner.child(["info", "--schema"], log, {})
    assert done.error is None and 0 < done.cost.cpu_s < 60 and done.cost.wall_s >= 0.1
    failed = runner.child(["evaluate", str(tmp_path)], log, {})
    assert "`tidemark evaluate` ended with 2: tidemark: " in failed.error and "no finished run here" in failed.error
    assert log.read_text().startswith("$ tidemark info --schema\n")


def test_the_cost_of_a_run_is_added_up_over_its_attempts(request_, monkeypatch):
    answers = iter([Outcome(Cost(5, 7), "killed"), Outcome(Cost(2, 3), "killed again")])
    monkeypatch.setattr(runner, "child", lambda *_: next(answers))
    for error in ("killed", "killed again"):
        assert runner.run(request_).error == error
    assert runner.read_cost(request_.log) == Cost(7, 10)
    request_.log.with_suffix(".json").write_text("[]")
    assert runner.read_cost(request_.log) == Cost()


@pytest.mark.slow
def test_a_dask_cluster_makes_the_runs_and_tells_of_failures(spec, data, tmp_path):
    pytest.importorskip("distributed")
    job = plan(load_table(spec()), "cpu", data, tmp_path / "runs")[1]
    bad = replace(job, recipe="nowhere/none", folder=tmp_path / "runs" / "none")
    requests = [Request(j, tmp_path / "logs" / f"{i}.log", False, threads=1) for i, j in enumerate((job, bad))]
    with dask_executor("local", 1) as executor:
        outcomes = {request.log.name: outcome for request, outcome in run_all(requests, executor=executor)}
    assert outcomes["0.log"].error is None and outcomes["0.log"].cost.cpu_s > 0
    assert "no such recipe" in outcomes["1.log"].error
    assert runner.is_verified(job, job.targets[0])


def test_nobody_at_the_dask_address_is_said(monkeypatch):
    pytest.importorskip("distributed")
    with pytest.raises(InputError, match="no Dask scheduler answers"), dask_executor("tcp:/nowhere", 1):
        pass


@pytest.mark.slow
def test_a_sweep_that_is_ended_ends_its_runs_and_goes_on_at_the_next_call(spec, data, tmp_path):
    recipe = yaml.safe_load((tmp_path / "cnn.yaml").read_text())
    recipe["TRAIN"]["EPOCHS"] = 2000  # longer than the test waits
    table = spec()
    (tmp_path / "cnn.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-P", "-m", "tidemark", "reproduce", str(table), "--data-root", str(data)]
    sweep = subprocess.Popen([*command, "--out", str(tmp_path / "runs")], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/home-1.0.0/patch-cnn-*/seed0/last.ckpt")):
        assert time.monotonic() < deadline and sweep.poll() is None
        time.sleep(0.1)
    children = [
        int(child)
        for task in Path(f"/proc/{sweep.pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    assert children
    sweep.send_signal(signal.SIGTERM)
    assert sweep.wait(60) == 143
    assert not any(Path(f"/proc/{child}").exists() for child in children)
