"""Two processes on CPUs (gloo) train what one process trains, and the first alone writes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from tidemark import configs
from tidemark.models.inference import predict_split
from tidemark.models.predictions import Predictions
from tidemark.models.train import train

RECIPE = {
    "MODEL": {"NAME": "patch-cnn", "ARGS": {"width": 4, "hidden": 16, "dropout": 0.0}},
    "TRAIN": {"EPOCHS": 3, "DEVICE": "cpu", "THREADS": 1, "LR": 3e-3, "SCHEDULER": "plateau", "EMA": 0.5},
}


def recipe(folder, out, **train_options):
    name, version = folder.parts[-2:]
    data = {"ROOT": str(folder.parents[1]), "NAME": name, "VERSION": version}
    return {**RECIPE, "DATA": data, "OUTPUT": str(out), "TRAIN": RECIPE["TRAIN"] | train_options}


def history(run):
    with open(run / "logs" / "metrics.csv") as file:
        return [{key: float(value) for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def in_two_processes(values, tmp_path, **environment):
    path = tmp_path / "two.yaml"
    path.write_text(yaml.safe_dump(values))
    done = subprocess.run(
        [sys.executable, "-m", "tidemark", "train", str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_two_processes_give_the_integers_of_one(patches, tmp_path):
    one = train(configs.make_config(recipe(patches, tmp_path / "one", BATCH_SIZE=8)), False)
    done = in_two_processes(recipe(patches, tmp_path / "two", BATCH_SIZE=4, DEVICES=2), tmp_path)
    (two,) = (tmp_path / "two").glob("*/*/seed0")
    assert done.stdout.strip() == str(two)  # said once
    assert done.stderr.count("epoch 3/3") == 1
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in one.iterdir())
    assert json.loads((two / "run.json").read_text())["parameters"] > 0
    for a, b in zip(history(one), history(two), strict=True):
        for key, value in a.items():
            assert value == pytest.approx(b[key], rel=2e-3), key
    for split in ("val", "test"):
        first, second = (Predictions(predict_split(run, split)) for run in (one, two))
        assert first.chip_ids == second.chip_ids
        for chip in first.chip_ids:
            np.testing.assert_array_equal(first.read(chip)[0], second.read(chip)[0])


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(patches, tmp_path):
    runs = [
        train(configs.make_config(recipe(patches, tmp_path / str(compiled), BATCH_SIZE=8, COMPILE=compiled)), False)
        for compiled in (False, True)
    ]
    assert runs[0].parent.name != runs[1].parent.name
    for a, b in zip(*(history(run) for run in runs), strict=True):
        for key, value in a.items():
            assert value == pytest.approx(b[key], rel=1e-3), key


def test_more_gpus_than_there_are_are_refused(patches, tmp_path):
    import torch
    from tidemark.errors import DeviceError

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match="a GPU is asked for"):
        train(configs.make_config(recipe(patches, tmp_path, DEVICE="cuda", DEVICES=2)), False)


def test_ranks_come_from_the_launcher_and_only_in_distributed_trainings(monkeypatch):
    from tidemark.models.session import process_rank

    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert process_rank(4) == 0
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert process_rank(4) == 3 and process_rank(1) == 0
    monkeypatch.setenv("RANK", "7")
    assert process_rank(8) == 7
