"""Measuring speed on a noisy machine: contenders take turns in one run, and only ratios are quoted."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MIN_SAMPLES = 7
MIN_SECONDS = 1.0


@dataclass(frozen=True)
class Timing:
    """Rates of one contender in work units per second, one per round."""

    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.rates)


def interleaved(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int = MIN_SAMPLES,
    min_seconds: float = MIN_SECONDS,
    progress: Callable[[int, int, str], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time contenders in turns: A B C, A B C, …; each sample repeats its work until ``min_seconds`` have passed.

    A contender is a function that does its work once and returns how many units (chips, bytes) that was. One call comes
    before every sample and is not counted: what others pushed out of a cache is back. With ``time.process_time``
    as the clock, units per second of processor time of all threads of this process: hardly changed by other programs,
    blind to how well threads share the work.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for place, (name, work) in enumerate(contenders.items()):
            if progress is not None:
                progress(turn * len(contenders) + place, rounds * len(contenders), name)
            work()
            done, started = 0.0, clock()
            while (elapsed := clock() - started) < min_seconds or not done:
                done += work()
            rates[name].append(done / elapsed)
    return {name: Timing(tuple(values)) for name, values in rates.items()}


def ratio(timings: Mapping[str, Timing], ours: str, theirs: str) -> tuple[float, float, float]:
    """Median, minimum and maximum over the rounds of our rate divided by theirs."""
    values = [a / b for a, b in zip(timings[ours].rates, timings[theirs].rates, strict=True)]
    return statistics.median(values), min(values), max(values)


def cpu_in_words() -> str:
    """The processor's name and the number of its cores that this process may use."""
    import os

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"
