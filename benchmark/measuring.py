"""Timing one model in one process: warm-up, spans in turns, latency at batch 1, peak memory, FLOPs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import _compat  # noqa: F401


@dataclass(frozen=True)
class Span:
    """A number of iterations and of seconds."""

    iterations: int
    seconds: float


# PROTOCOL: warm up both, then time either, whichever comes first.
WARM_UP = Span(10, 2.0)
TIMED = Span(100, 10.0)


@contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """``fp32`` with TF32 off, or ``bf16``: float32 weights under torch's autocast to bfloat16."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=name == "bf16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


class Stopwatch:
    """Seconds of work on a device: CUDA events on a GPU, else the clock; synchronised at both ends."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            torch.cuda.synchronize(device)
            self._first, self._last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._first.record()
        self._start = time.perf_counter()

    def clock(self) -> float:
        """Seconds on the host since the start, without waiting for the device."""
        return time.perf_counter() - self._start

    def stop(self) -> float:
        """Seconds of the work that was given to the device since the start."""
        if not self.cuda:
            return self.clock()
        self._last.record()
        self._last.synchronize()
        return self._first.elapsed_time(self._last) / 1000


def warm_up(work: Callable[[], int], device: torch.device, span: Span = WARM_UP) -> None:
    """Run ``work`` until both of ``span`` are reached."""
    watch, count = Stopwatch(device), 0
    while count < max(1, span.iterations) or watch.clock() < span.seconds:
        work()
        count += 1
        if watch.cuda:
            torch.cuda.synchronize(device)


def rates_in_turns(
    works: Sequence[Callable[[], int]], device: torch.device, span: Span = TIMED, turns: int = 5
) -> list[float]:
    """Work units per second of each contender, all taking turns, so that a noisy neighbour disturbs them alike.

    Args:
        works: each does one iteration (a batch) and returns its units (chips).
        device: where they run.
        span: what every contender gets in all: so many iterations or seconds, whichever comes first.
        turns: parts that the span is cut into: A B A B …
    """
    totals = [[0, 0.0] for _ in works]
    iterations, seconds = -(-span.iterations // turns), span.seconds / turns
    for _ in range(turns):
        for work, total in zip(works, totals, strict=True):
            watch, count = Stopwatch(device), 0
            while count < iterations and (watch.clock() < seconds or not count):
                total[0] += work()
                count += 1
            total[1] += watch.stop()
    return [units / elapsed for units, elapsed in totals]


def latencies(work: Callable[[], object], device: torch.device, span: Span = TIMED) -> list[float]:
    """Seconds of single iterations, each synchronised at both ends; the first few are warm-up and not among them."""
    for _ in range(min(WARM_UP.iterations, span.iterations)):
        work()
    found: list[float] = []
    whole = time.perf_counter()
    while len(found) < max(1, span.iterations) and (time.perf_counter() - whole < span.seconds or not found):
        watch = Stopwatch(device)
        work()
        found.append(watch.stop())
    return found


class PeakMemory:
    """Bytes that were needed at most since this object was made.

    On a GPU what torch allocated there; on a CPU how far the process's resident memory grew, None where the system
    does not tell (Linux does).
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
            self._before = _resident("VmRSS")
        except OSError:
            self._before = None

    def bytes(self) -> int | None:
        """The peak's growth so far."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self._before
        peak = _resident("VmHWM")
        return None if peak is None or self._before is None else max(0, peak - self._before)


def _resident(field: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


@torch.inference_mode()
def gflops(model: torch.nn.Module, inputs: dict[str, Any]) -> float:
    """10⁹ floating-point operations of one forward pass, a multiply-add counted as two, by torch's flop counter.

    It counts convolutions, matrix products and attention; resampling and what goes pixel by pixel is not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(q, k, v, *_args, **_options) -> int:
        return sdpa_flop_count(q, k, v)

    on_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}  # that on GPUs torch knows
    with FlopCounterMode(display=False, custom_mapping=on_cpu) as counter:
        model(**inputs)
    return counter.get_total_flops() / 1e9


def percentiles_ms(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Milliseconds (p50, p90, p99), each one of the values (nearest rank)."""
    ordered = sorted(seconds)
    return tuple(1000 * ordered[max(0, -(-len(ordered) * p // 100) - 1)] for p in (50, 90, 99))
