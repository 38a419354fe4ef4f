"""One run of a table: what of it is missing is made by child processes, what is there is verified by its digests."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..datasets.files import sha256_file, write_atomic
from ..errors import FormatError
from ..models.fetch import WEIGHTS_NAME
from ..models.predictions import PREDICTIONS_NAME
from ..models.runs import RUN_NAME, read_run
from .records import RESULT_NAME, Result, read_result
from .scores import check_figures
from .sweep import Job, Target

MAX_COST_BYTES = 1 << 16
_running: set[subprocess.Popen] = set()


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds of a run's child processes, and of theirs, over all attempts."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)

    def __str__(self) -> str:
        return f"{self.wall_s:.1f} s, {self.cpu_s:.1f} CPU s"


@dataclass(frozen=True)
class Request:
    """A run as a worker on any machine gets it. ``threads`` 0: the cores of that machine, shared by its workers."""

    job: Job
    log: Path
    speed: bool
    threads: int = 0
    gpu: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What this attempt cost, and why it failed (None: the run is complete)."""

    cost: Cost
    error: str | None = None


def run(request: Request) -> Outcome:
    """Train, predict and score what is missing, each in a process of its own; a failure is told, not raised."""
    job, log = request.job, request.log
    log.parent.mkdir(parents=True, exist_ok=True)
    place, environment = _place(job, request.threads or _threads_of_worker(), request.gpu)
    done = Outcome(Cost())
    if not _trained(job):
        afresh = ["TRAIN.RESUME", "false"] if (job.folder / RUN_NAME).exists() else []  # else it counts as done
        done = child(["train", job.recipe, *job.overrides, *place, *afresh], log, environment)
    timed_on = {target.content_sha256: target for target in reversed(job.targets)}  # each data set's first split
    for target in job.targets:
        if done.error is not None or is_verified(job, target):
            continue
        if _foreign(target):  # changed after they were scored: made again from the weights, not scored again
            (target.place / PREDICTIONS_NAME).unlink()
        elsewhere = ["--dataset", str(target.folder)] if target.folder else []
        timed = ["--speed"] if request.speed and target is timed_on[target.content_sha256] else []
        step = child(["evaluate", str(job.folder), "--split", target.split, *elsewhere, *timed], log, environment)
        done = Outcome(done.cost + step.cost, step.error)
    write_atomic(log.with_suffix(".json"), json.dumps(vars(read_cost(log) + done.cost)) + "\n")
    return done


def read_cost(log: Path) -> Cost:
    """What a run has cost so far, from the file beside its log; nothing where that is absent or damaged."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        raw = json.loads(log.with_suffix(".json").read_bytes()[:MAX_COST_BYTES])
        return Cost(float(raw["wall_s"]), float(raw["cpu_s"]))
    return Cost()


def verified_result(job: Job, target: Target) -> Result:
    """The record of a run on a split if it fits the data, the weights, the predictions and its own integers.

    Raises:
        FormatError: what does not fit.
    """
    path = target.place / RESULT_NAME
    result, info = read_result(path), read_run(job.folder)
    scored_on = (result.dataset.name, result.dataset.version, result.dataset.content_sha256, result.dataset.split)
    if scored_on != (target.dataset, target.version, target.content_sha256, target.split):
        raise FormatError("scored on other data", where=path)
    if (result.seed, result.model.weights_sha256) != (job.seed, info.weights_sha256):
        raise FormatError("scored for another run", where=path)
    if not _weights_fit(job):
        raise FormatError("the weights are not those of the run", where=job.folder / "weights" / WEIGHTS_NAME)
    predictions = target.place / PREDICTIONS_NAME
    if not predictions.is_file() or sha256_file(predictions) != result.predictions_sha256:
        raise FormatError("the predictions are not those that were scored", where=predictions)
    check_figures(result, where=path)
    return result


def is_verified(job: Job, target: Target) -> bool:
    """Whether ``verified_result`` has nothing to object to."""
    try:
        verified_result(job, target)
    except FormatError:
        return False
    return True


def child(arguments: list[str], log: Path, environment: Mapping[str, str]) -> Outcome:
    """One ``tidemark`` command, its output appended to ``log``; the error carries its last line."""
    # -P: the present folder may hold a datasets/ or models/ that would shadow other packages.
    command = [sys.executable, "-P", "-m", __package__.partition(".")[0], *arguments]
    start = time.monotonic()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(['tidemark', *arguments])}\n")
        file.flush()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
        _running.add(process)
        try:
            _, status, usage = os.wait4(process.pid, 0)  # as RUSAGE_CHILDREN, but of this one alone
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            _running.discard(process)
    cost = Cost(time.monotonic() - start, usage.ru_utime + usage.ru_stime)
    if process.returncode == 0:
        return Outcome(cost)
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return Outcome(cost, f"{log}: `tidemark {arguments[0]}` ended with {process.returncode}: {last[-300:]}")


def stop_children() -> None:
    """End the processes of this sweep; each keeps its last checkpoint."""
    for process in tuple(_running):
        with suppress(ProcessLookupError):
            process.terminate()


def _place(job: Job, threads: int, gpu: str | None) -> tuple[list[str], dict[str, str]]:
    """Overrides and environment that say where and how a run is made; none of them changes its id."""
    # Threads that wait must not spin: beside other runs that would double everybody's time.
    environment = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    overrides = ["TRAIN.THREADS", str(threads)]
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
        overrides += ["TRAIN.DEVICE", "cuda"]
    elif job.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return overrides, environment


def _threads_of_worker() -> int:
    """The cores of this machine, divided by the tasks that a Dask worker takes at a time."""
    from ..models.runs import usable_cores

    tasks = 1
    if "distributed" in sys.modules:
        from distributed import get_worker

        with suppress(ValueError):  # not in a worker
            tasks = get_worker().state.nthreads
    return max(1, usable_cores() // tasks)


def _weights_fit(job: Job) -> bool:
    stated, weights = read_run(job.folder).weights_sha256, job.folder / "weights" / WEIGHTS_NAME
    return stated is None or (weights.is_file() and sha256_file(weights) == stated)


def _trained(job: Job) -> bool:
    """A finished run: with the weights that it states, or with the predictions that cannot be made again without."""
    try:
        if not _weights_fit(job):
            return False
        if read_run(job.folder).weights_sha256 is not None:
            return True
    except FormatError:
        return False
    return all((target.place / PREDICTIONS_NAME).is_file() and not _foreign(target) for target in job.targets)


def _foreign(target: Target) -> bool:
    """Whether a sound record lies beside predictions that are not those it was made from."""
    try:
        stated = read_result(target.place / RESULT_NAME).predictions_sha256
    except FormatError:
        return False
    predictions = target.place / PREDICTIONS_NAME
    return predictions.is_file() and sha256_file(predictions) != stated
