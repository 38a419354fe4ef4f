"""``tidemark bench build``: what a builder's worker makes of a scene of real size, against reading, naive and copying.

Contenders take turns, each in a fresh process that is bound to one core, on files in the page cache. MB are decoded
bytes of the chips that the data set keeps. Rates are by the clock and by processor time; the ratios quoted are by
processor time, which other programs on the machine change less.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from .. import __version__
from ..datasets.files import write_atomic
from ..errors import InputError, TidemarkError
from .build_scenes import SCENES
from .timing import cpu_in_words

SIZES = {"alos-dswe": 8192, "l8s2": 10980}  # pixels a side; a Sentinel-2 tile has 10980
QUICK = {"alos-dswe": 1024, "l8s2": 768}
NAIVE_CHIPS = {"alos-dswe": 16, "l8s2": 48}  # the first of a scene: whole blocks of its files
CONTENDERS = ("ours", "read", "copy", "naive", "naive-chunked")
GOALS = {"ours / naive": 7.0, "ours / read": 0.65}
PEAK_GOAL_BYTES = 2 << 30
SCENES_ON_PAPER = 100_000  # of docs/cluster.md


def bench_build(
    quick: bool = False, rounds: int = 3, kinds: tuple[str, ...] = (), out: Path | None = None,
    workdir: Path | None = None,
) -> dict:  # fmt: skip
    """Run the benchmark, print its table and return (and write) the record.

    Args:
        quick: small scenes, one round: shows that it runs, measures nothing.
        rounds: samples of each contender.
        kinds: of ``SIZES``; all by default.
        out: JSON file for the record.
        workdir: where the scenes are written and kept for the next call; by default a temporary folder (about 8 GB).
    """
    if unknown := set(kinds) - set(SIZES):
        raise InputError(f"no scene {min(unknown)!r}, there is {', '.join(SIZES)}")
    record = {"version": __version__, "machine": cpu_in_words(), "rounds": 1 if quick else rounds, "quick": quick}
    with tempfile.TemporaryDirectory() as temporary:
        for kind in kinds or tuple(SIZES):
            size = (QUICK if quick else SIZES)[kind]
            source = Path(workdir or temporary) / f"{kind}-{size}"
            record[kind] = bench_scene(kind, size, source, record["rounds"], 4 if quick else NAIVE_CHIPS[kind])
            print(table(kind, record[kind]), flush=True)
    print(f"{record['machine']}; one process on one core each, files in the page cache")
    if out is not None:
        write_atomic(out, json.dumps(record, indent=1) + "\n")
    return record


def bench_scene(kind: str, size: int, source: Path, rounds: int, naive_chips: int) -> dict:
    """Figures of one kind of scene: rates of every contender, ratios, peak memory."""
    scene = _scene(kind, size, source)
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        first = _run("ours", kind, source, Path(folder), scene, 0)  # also brings the files into the page cache
        with open(Path(folder) / "raw", "wb") as raw:
            for _ in range(first["bytes"] >> 20):
                raw.write(bytes(1 << 20))
        numbers = {"copy": (first["bytes"] >> 20) << 20, "naive": naive_chips, "naive-chunked": naive_chips}
        samples: dict[str, list[dict]] = {name: [] for name in CONTENDERS}
        for _ in range(rounds):
            for name in CONTENDERS:
                figures = _run(name, kind, source, Path(folder), scene, numbers.get(name, 0))
                samples[name].append({**figures, "bytes": figures["bytes"] or first["bytes"]})
    rates = {
        clock: {name: [s["bytes"] / s[clock] / 1e6 for s in taken] for name, taken in samples.items()}
        for clock in ("seconds", "cpu_seconds")
    }
    return {
        "size": size,
        "chips": first["chips"],
        "bytes": first["bytes"],
        "stored_bytes": first["stored_bytes"],
        "mb_per_s": {name: median(values) for name, values in rates["seconds"].items()},
        "mb_per_cpu_s": {name: median(values) for name, values in rates["cpu_seconds"].items()},
        "ratios": {f"ours / {name}": _ratios(rates["cpu_seconds"], name) for name in CONTENDERS if name != "ours"},
        "ratios_by_the_clock": {f"ours / {name}": _ratios(rates["seconds"], name) for name in CONTENDERS[1:]},
        "peak_bytes": max(s["peak_bytes"] for s in samples["ours"]),
    }


def _ratios(rates: dict[str, list[float]], name: str) -> list[float]:
    """Median, minimum and maximum over the rounds."""
    values = [a / b for a, b in zip(rates["ours"], rates[name], strict=True)]
    return [median(values), min(values), max(values)]


def _scene(kind: str, size: int, source: Path) -> str:
    """Draw the scenes unless they are there; returns the large one's id."""
    note = source / "scene.txt"
    if not note.exists():
        write_atomic(note, SCENES[kind](source, size))
    return note.read_text()


def _run(name: str, kind: str, source: Path, folder: Path, scene: str, number: int) -> dict:
    command = [sys.executable, "-P", "-m", f"{__package__}.build_contenders", name, kind, source, folder, scene, number]
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=os.environ | threads)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no words"]
        raise TidemarkError(f"the contender {name} of {kind} ended with {done.returncode}: {last[0][:300]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(kind: str, record: dict) -> str:
    """Rates and ratios as Markdown."""
    lines = [
        f"{kind}: {record['size']}², {record['chips']} chips, {record['bytes'] / 1e6:,.0f} MB decoded, peak memory "
        f"{record['peak_bytes'] / 1e9:.2f} GB (goal < {PEAK_GOAL_BYTES / 1e9:.2f})",
        "",
        "| contender | MB/s | MB per processor second | ours / it: median [min, max] | goal |",
        "|:--|--:|--:|--:|--:|",
    ]
    for name in CONTENDERS:
        key = f"ours / {name}"
        ratio, goal = "–", f"≥ {GOALS[key]:g}" if key in GOALS else "–"
        if key in record["ratios"]:
            ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*record["ratios"][key])
        lines.append(
            f"| {name} | {record['mb_per_s'][name]:,.1f} | {record['mb_per_cpu_s'][name]:,.1f} | {ratio} | {goal} |"
        )
    seconds = record["bytes"] / record["mb_per_cpu_s"]["ours"] / 1e6
    lines += [
        "",
        f"{SCENES_ON_PAPER:,} such scenes: {SCENES_ON_PAPER * seconds / 3600:,.0f} core hours "
        f"({seconds:.1f} s each), {SCENES_ON_PAPER * record['stored_bytes'] / 1e12:,.1f} TB of shards",
    ]
    return "\n".join(lines) + "\n"
