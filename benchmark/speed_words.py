"""A speed record as lines on the terminal."""

from __future__ import annotations

import math

from .speed_record import SpeedRecord


def print_speed(record: SpeedRecord) -> None:
    """Print what was measured, a line for each row, and what was left out or not checked."""
    first, weights = record.rows[0], record.weights_sha256
    print(f"{record.kind}: {record.model}, {f'weights {weights[:12]}' if weights else 'random weights'}, {record.data}")
    print(f"{first.device}, {first.threads} threads, torch {first.torch}, batch {first.batch};", end=" ")
    flops = f", {first.gflops_per_chip:.2f} GFLOPs a chip" if first.gflops_per_chip else ""
    print(f"{first.parameters:,} parameters{flops}")
    for row in record.rows:
        low, high = row.chips_per_s_range
        figures = [f"{row.chips_per_s:.1f} [{low:.1f}, {high:.1f}] chips/s", f"{row.mpx_per_s:.2f} Mpx/s"]
        if row.km2_per_s is not None:
            figures.append(f"{row.km2_per_s:.2f} km²/s")
        if row.latency is not None:
            figures.append("batch 1 p50/p90/p99 " + "/".join(
                f"{getattr(row.latency, f'p{p}_ms'):.1f}" for p in (50, 90, 99)) + " ms")  # fmt: skip
        if row.peak_memory_bytes is not None:
            figures.append(f"{math.ceil(row.peak_memory_bytes / 2**20)} MiB")
        if (ratio := row.reference_ratio) is not None:
            figures.append(f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] × the reference U-Net")
        if row.compile_s is not None:
            figures.append(f"compiled in {row.compile_s:.0f} s")
        if row.gate is not None and row.name != "fp32":
            verdict = "counts" if row.gate.passed else "does NOT count"
            figures.append(f"{row.gate.metric} {row.gate.value:.4f} of {row.gate.fp32:.4f} in fp32: {verdict}")
        print(f"  {row.name:<14}" + ", ".join(figures))
    for name, why in record.left_out.items():
        print(f"  {name:<14}left out: {why}")
    if all(row.gate is None for row in record.rows) and len(record.rows) > 1:
        print("accuracy by precision not checked: no trained weights with a labelled split")
    if record.quick:
        print("quick: shows that it runs, measures nothing")
