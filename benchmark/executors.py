"""Where the runs of a sweep go: side by side on this machine, one to a GPU, or to a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue

from ..errors import InputError, TidemarkError
from ..models.runs import usable_cores
from .runner import Cost, Outcome, Request, run, stop_children


@dataclass(frozen=True)
class Slot:
    """A part of this machine that takes one run at a time. ``cores`` is empty where the run may use all of them."""

    threads: int
    cores: tuple[int, ...] = ()
    gpu: str | None = None


def make_slots(workers: int = 1, gpus: Sequence[str] = ()) -> list[Slot]:
    """``workers`` slots that share the cores evenly, or one slot for each GPU.

    Raises:
        InputError: no worker, or a GPU twice.
    """
    if len(set(gpus)) != len(gpus):
        raise InputError(f"--gpus {','.join(gpus)} names one twice", hint="one run at a time on each GPU")
    count = len(gpus) or workers
    if count < 1:
        raise InputError(f"--workers {workers} is no number of runs side by side")
    threads = max(1, usable_cores() // count)
    if count == 1:
        return [Slot(threads, gpu=gpus[0] if gpus else None)]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    parts = [tuple(cores[i * threads : (i + 1) * threads]) for i in range(count)]
    return [Slot(threads, part, gpus[i] if gpus else None) for i, part in enumerate(parts)]


def run_all(
    requests: Sequence[Request],
    slots: Sequence[Slot] = (),
    executor: Executor | None = None,
    work: Callable[[Request], Outcome] = run,
) -> Iterator[tuple[Request, Outcome]]:
    """Make runs, yielding each as it ends; one that fails, or whose worker dies, does not stop the others.

    Args:
        requests: the runs.
        slots: parts of this machine (by default one of all cores), where no executor is given.
        executor: anything with ``submit``, such as Dask's ``client.get_executor()``; its workers must see the same
            files.
        work: what makes one run.
    """
    if executor is not None:
        waiting = {executor.submit(work, request): request for request in requests}
        for future in as_completed(waiting):
            yield waiting[future], _outcome(future)
        return
    free: SimpleQueue[Slot] = SimpleQueue()
    for slot in slots or make_slots():
        free.put(slot)

    def in_slot(request: Request) -> Outcome:
        slot = free.get()
        try:
            if slot.cores:
                os.sched_setaffinity(0, slot.cores)  # of this thread, and so of the processes it starts
            return work(replace(request, threads=slot.threads, gpu=slot.gpu))
        finally:
            free.put(slot)

    with ThreadPoolExecutor(free.qsize()) as pool:
        waiting = {pool.submit(in_slot, request): request for request in requests}
        try:
            for future in as_completed(waiting):
                yield waiting[future], _outcome(future)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop_children()
            raise


@contextmanager
def dask_executor(address: str, workers: int) -> Iterator[Executor]:
    """A Dask scheduler (``tcp://…``), or ``local``: ``workers`` processes on this machine.

    Raises:
        InputError: Dask is not installed, or nobody answers at the address.
    """
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError:
        raise InputError("Dask is not installed", hint="pip install 'tidemark[cluster]'") from None
    if address == "local":
        with LocalCluster(n_workers=workers, threads_per_worker=1) as cluster, Client(cluster) as client:
            yield client.get_executor()
        return
    try:
        client = Client(address, timeout=30)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers ({error})", where=address) from None
    with client:
        yield client.get_executor()


def part_of(shard: str, jobs: Sequence) -> list:
    """Every n-th job from the i-th, for ``i/n`` with 0 ≤ i < n. Raises InputError for anything else."""
    first, _, count = shard.partition("/")
    if not (first.isdecimal() and count.isdecimal() and int(first) < int(count)):
        raise InputError(f"--shard {shard!r} is not i/n with 0 <= i < n")
    return list(jobs[int(first) :: int(count)])


def _outcome(future) -> Outcome:
    try:
        return future.result()
    except TidemarkError as error:
        return Outcome(Cost(), str(error))
    except Exception as error:  # whatever a dead worker of a cluster leaves behind
        return Outcome(Cost(), f"its worker died: {type(error).__name__}: {str(error)[:300]}")
