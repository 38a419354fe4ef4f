"""When a ratio of speed is a gross loss: a planted one always, noise never, and the baselines of other machines."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tidemark
from tidemark.benchmark.regression import (
    REPEATS,
    baseline_for,
    is_loss,
    judge,
    read_baselines,
    store_baseline,
)
from tidemark.errors import FormatError

PERF_TEST = """
def test_half_as_fast(compare):
    def work():
        return float(sum(range(20_000)) > 0)

    def slowed():
        work(), work(), work()
        return work()

    compare("planted", slowed, work)
"""


def noisy(ratio: float, seed: int, spread: float = 0.15):
    """Measurements that scatter around ``ratio`` by 15 %, as on a busy machine."""
    rng = np.random.default_rng(seed)
    return lambda: ratio * float(np.exp(rng.normal(0, spread)))


def test_a_planted_loss_of_half_is_found_and_noise_is_not():
    found = sum(judge(noisy(0.5, seed), 1.0).lost for seed in range(500))
    false = sum(judge(noisy(1.0, seed), 1.0).lost for seed in range(500))
    assert found >= 325 and false == 0
    assert all(judge(noisy(0.5, seed, 0.03), 1.0).lost for seed in range(500))
    assert not any(judge(noisy(0.8, seed, 0.03), 1.0).lost for seed in range(500))


def test_one_good_measurement_clears_and_a_loss_is_measured_three_times():
    values = iter([0.5, 0.55, 0.61, 0.1])
    verdict = judge(lambda: next(values), 1.0)
    assert not verdict.lost and verdict.ratios == (0.5, 0.55, 0.61)
    calls = itertools.count()
    verdict = judge(lambda: 0.59 + 0 * next(calls), 1.0)
    assert verdict.lost and next(calls) == REPEATS and "0.59" in str(verdict)
    assert not is_loss(0.6, 1.0) and is_loss(0.599, 1.0)


def test_a_machine_is_compared_with_its_own_class_else_with_the_slowest():
    stored = {"a": {"x": 2.0, "y": 1.0}, "b": {"x": 3.0}}
    assert baseline_for(stored, "b", "x") == 3.0
    assert baseline_for(stored, "c", "x") == 2.0 and baseline_for(stored, "b", "y") == 1.0
    assert baseline_for(stored, "c", "z") is None
    assert not judge(lambda: 1e-9, None).lost


def test_stored_ratios_leave_other_machines_alone(tmp_path):
    path = tmp_path / "baselines.json"
    values = iter([3.0, 5.0, 2.0, 7.0, 7.0, 7.0])
    assert store_baseline(path, "a", "x", lambda: next(values)) == 2.0
    store_baseline(path, "b", "x", lambda: next(values))
    assert read_baselines(path) == {"a": {"x": 2.0}, "b": {"x": 7.0}}
    assert read_baselines(tmp_path / "none.json") == {}
    for broken in ("[]", "{", '{"a": 1}', '{"a": {"x": "fast"}}'):
        path.write_text(broken)
        with pytest.raises(FormatError, match="baselines.json"):
            read_baselines(path)


def test_the_suite_fails_on_a_planted_loss_and_passes_without(tmp_path):
    perf = tmp_path / "perf"
    perf.mkdir()
    for name in ("conftest.py", "pytest.ini"):
        shutil.copy(Path(tidemark.__path__[0]) / "benchmark" / "perf" / name, perf)
    (perf / "test_planted.py").write_text(PERF_TEST)

    def run(*more: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(perf / "pytest.ini"), str(perf), *more]
        return subprocess.run(command, capture_output=True, text=True, cwd=perf)

    assert run("--store-baselines").returncode == 0
    assert run().returncode == 0
    stored = read_baselines(perf / "baselines.json")
    faster = {machine: {name: 3 * ratio for name, ratio in ratios.items()} for machine, ratios in stored.items()}
    (perf / "baselines.json").write_text(json.dumps(faster))
    failed = run()
    assert failed.returncode == 1 and "a gross loss in every repeat" in failed.stdout
