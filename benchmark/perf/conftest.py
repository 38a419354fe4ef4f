"""``compare(name, ours, yardstick)``: both in turns, their ratio against the stored one of this machine class.

``--store-baselines`` measures the ratios anew and writes them to ``baselines.json``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tidemark.benchmark.regression import baseline_for, judge, read_baselines, store_baseline
from tidemark.benchmark.timing import cpu_in_words, interleaved, ratio

BASELINES = Path(__file__).with_name("baselines.json")
ROUNDS, SECONDS = 3, 0.1


def pytest_addoption(parser) -> None:
    parser.addoption("--store-baselines", action="store_true", help="write this machine's ratios to baselines.json")


@pytest.fixture
def compare(benchmark, request) -> Callable[..., None]:
    """Fail where our rate over the yardstick's lies more than 40 % below the baseline, three times in a row.

    Both callables do their work once and return how many units that was. Rates are by this process's processor time,
    which other programs hardly change, so a yardstick works in this process: the clock on the wall halves a ratio
    where a neighbour takes one of two cores.
    """

    def run(name: str, ours: Callable[[], float], yardstick: Callable[[], float]) -> None:
        def measure() -> float:
            both = {"ours": ours, "yardstick": yardstick}
            return ratio(interleaved(both, ROUNDS, SECONDS, clock=time.process_time), "ours", "yardstick")[0]

        machine = cpu_in_words()
        if request.config.getoption("--store-baselines"):
            benchmark.extra_info["ratio"] = store_baseline(BASELINES, machine, name, measure)
        else:
            verdict = judge(measure, baseline_for(read_baselines(BASELINES), machine, name))
            benchmark.extra_info |= {"ratio": verdict.ratios[-1], "baseline": verdict.baseline}
            assert not verdict.lost, f"{name}: {verdict} on {machine}: a gross loss in every repeat"
        benchmark.pedantic(ours)

    return run
