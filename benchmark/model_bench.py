"""``tidemark bench model|end-to-end|scene``: PROTOCOL's figures of one model, a row for each precision.

Every sample comes from a fresh process (``speed_process``); the rows take turns over the repeats, and within a process
the model and the reference model take turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

from ..datasets.command import progress_bar
from ..datasets.spec import load_manifest
from ..datasets.transforms import image_array
from ..errors import InputError, TidemarkError
from ..models.device import find_device
from ..models.harmonization.harmonizer import NATIVE_SCALE, PAN_SCALE
from ..models.runs import provenance, usable_cores
from .measuring import TIMED, WARM_UP, percentiles_ms
from .pair_inputs import low_size
from .record_parts import Harness, Latency, Ratio
from .speed_record import PRECISIONS, Gate, SpeedRecord, SpeedRow, Timed, write_speed_record
from .speed_words import print_speed
from .subject import (
    Subject,
    chip_km2,
    find_subject,
    reference_for,
    scene_km2,
    synthetic_dataset,
    synthetic_scene,
)
from .work import Job

REPEATS, TURNS = 3, 5
SCENE_SIDE, QUICK_SIDE = 1024, 160
BATCH = {"cpu": 8, "cuda": 64}
DATA_BATCHES = 4  # of a synthetic data set


@dataclass(frozen=True)
class Request:
    """What is to be measured; see ``bench_speed``."""

    kind: str
    target: str
    dataset: Path | None = None
    split: str = "val"
    scene: Path | None = None
    channels: int = 2
    size: int = 256
    arguments: Mapping[str, Any] | None = None
    device: str = "auto"
    threads: int = 0
    batch: int = 0
    precisions: Sequence[str] = ()
    compiled: bool = True
    repeats: int = REPEATS
    quick: bool = False


def bench_speed(request: Request, out: Path | None = None) -> SpeedRecord:
    """Measure one figure, print its table, and return (and write) the record.

    Args:
        request: ``kind`` and ``target`` (run, weights or registered name); ``dataset`` and ``split`` for real chips
            (a run knows its data set), ``scene`` for a real GeoTIFF; without them synthetic ones of ``channels`` bands
            and ``size`` pixels (of reflectance the bands of l8s2, and ``size`` is the target's); ``threads`` 0 = all
            cores; ``batch`` 0 = 8 on a CPU, 64 on a GPU;
            ``quick`` = tiny, fp32 alone, one process: shows that it runs, measures nothing.
        out: JSON file for the record.

    Raises:
        InputError: arguments that do not go together; TidemarkError: what a process could not do.
    """
    for name in request.precisions:
        if name not in PRECISIONS:
            raise InputError(f"no precision {name!r}", hint=f"there is {', '.join(PRECISIONS)}")
    if request.kind == "scene" and request.dataset is not None:
        raise InputError("scenes are mapped from a GeoTIFF", hint="give --scene instead of --dataset")
    if request.quick:
        tiny = {"size": min(request.size, 64), "batch": request.batch or 2}
        request = replace(request, **tiny, compiled=False, repeats=1, precisions=request.precisions or ("fp32",))
    request = replace(request, precisions=request.precisions or PRECISIONS)
    device = find_device(request.device)
    with tempfile.TemporaryDirectory() as folder, progress_bar(f"bench {request.kind}") as progress:
        room = Path(folder)
        progress(0, 1, "making weights and data")
        subject = find_subject(
            request.target,
            room,
            channels=request.channels,
            arguments=request.arguments or {},
            data=request.dataset,
        )
        job, words, km2 = _job(request, subject, room, device.type)
        answers, left_out = _measure(request, job, subject, room, progress)
    record = _record(request, subject, job, answers, left_out, words, km2)
    print_speed(record)
    if out is not None:
        write_speed_record(out, record)
    return record


def _job(request: Request, subject: Subject, room: Path, device: str) -> tuple[Job, str, float | None]:
    """The job of the first row, its data in words, and the km² of a chip (of the whole scene, for scenes)."""
    batch, data, split, km2 = request.batch or BATCH[device], "", request.split, None
    channels, size = subject.pretrained.preprocess.channels, request.size
    shape = f"{channels}×{size}²"
    if subject.pretrained.task_kind == "regression":
        if request.kind == "scene":
            raise InputError(
                f"{subject.name} maps Landsat products, not one GeoTIFF", hint="bench end-to-end times it on chips"
            )
        if request.quick:
            size -= size % NATIVE_SCALE  # whole pixels of the image: weights that stretch take no less
        low, bands = low_size(size), subject.pretrained.spec.out_channels
        shape = f"{channels}×{low}² and pan {PAN_SCALE * low}² to {bands}×{size}²"
    if request.kind == "scene":
        scene = request.scene
        if scene is None:
            side = QUICK_SIDE if request.quick else SCENE_SIDE
            scene = synthetic_scene(subject.pretrained.preprocess.bands, room / "scene.tif", side)
        words = f"scene {scene.name}" if request.scene else f"synthetic scene, {channels}×{side}² uint16"
        data, km2 = str(scene.resolve()), scene_km2(scene)
    elif subject.data is not None:
        manifest, data = load_manifest(subject.data), str(subject.data.resolve())
        size, km2 = image_array(manifest).shape[-1], chip_km2(subject.data, split)
        words = f"{manifest.name} {manifest.version}, split {split}"
    elif request.kind == "end-to-end":
        if subject.weights_sha256 is not None:
            raise InputError("these weights need a data set with their bands", hint="give --dataset")
        data = str(synthetic_dataset(subject, room, chips=DATA_BATCHES * batch, size=size))
        split, words = "train", f"synthetic data set, {shape} uint16"
    else:
        words = f"random tensors, {shape}"
    spans = ((1, 0.0), (3, 0.2)) if request.quick else (astuple(WARM_UP), astuple(TIMED))
    job = Job(
        kind=request.kind,
        weights=str(subject.folder.resolve()),
        reference=str(reference_for(subject, room).resolve()),
        data=data,
        split=split,
        chip=(channels, size, size),
        precision="fp32",
        compiled=False,
        device=request.device,
        threads=request.threads or usable_cores(),
        batch=batch,
        warm_up=spans[0],
        timed=spans[1],
        turns=1 if request.quick else TURNS,
        headline=False,
    )
    return job, words, km2


def _measure(
    request: Request, job: Job, subject: Subject, room: Path, progress
) -> tuple[dict[tuple[str, bool], list[dict]], dict[str, str]]:
    """Answers of every process by row (precision, compiled), and the rows that could not be made."""
    gated = subject.weights_sha256 is not None and subject.data is not None and request.kind != "scene"
    rows = [(p, c) for c in ([False, True] if request.compiled else [False]) for p in PRECISIONS
            if p in request.precisions or (p, c) == ("fp32", False)]  # fmt: skip
    left_out = {} if request.compiled else {"compiled": "not asked for"}
    answers: dict[tuple[str, bool], list[dict]] = {row: [] for row in rows}
    for turn in range(request.repeats):
        for place, row in enumerate(rows):
            if row not in answers:
                continue
            name = f"{row[0]} compiled" if row[1] else row[0]
            progress(turn * len(rows) + place, request.repeats * len(rows), name)
            one = replace(job, precision=row[0], compiled=row[1], headline=gated and turn == 0)
            answer = _in_fresh_process(one, room, cold=turn == 0)
            if "not_compiled" in answer:
                left_out[name] = answer["not_compiled"]
                del answers[row]
                continue
            answers[row].append(answer)
    return answers, left_out


def _in_fresh_process(job: Job, room: Path, cold: bool) -> dict[str, Any]:
    """Run one job. The compiler's cache lies in ``room``: the first process of a row finds it without this row."""
    job_path, answer_path = room / "job.json", room / "answer.json"
    job_path.write_text(json.dumps(asdict(job)))
    answer_path.unlink(missing_ok=True)
    cache = room / f"compiled-{job.precision}"
    threads = str(job.threads)
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TORCHINDUCTOR_CACHE_DIR": str(cache),
    }
    command = [sys.executable, "-m", "tidemark.benchmark.speed_process", str(job_path), str(answer_path)]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode or not answer_path.exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        words = "was killed, perhaps for memory" if done.returncode < 0 else lines[-1][:300]
        raise TidemarkError(f"a measuring process ended with {done.returncode} ({words})", where=job.kind)
    answer = json.loads(answer_path.read_text())
    if "error" in answer:
        raise InputError(answer["error"], where=answer["where"] or None, hint=answer["hint"])
    return answer


def _record(
    request: Request,
    subject: Subject,
    job: Job,
    answers: Mapping[tuple[str, bool], list[dict]],
    left_out: Mapping[str, str],
    words: str,
    km2: float | None,
) -> SpeedRecord:
    made, first = provenance(request.device if request.device != "auto" else "cpu"), answers["fp32", False][0]
    return SpeedRecord(
        kind=request.kind,
        quick=request.quick,
        model=subject.name,
        arguments=subject.arguments,
        weights_sha256=subject.weights_sha256,
        data=words,
        chip=tuple(first["chip"]),
        target=first["target"] and tuple(first["target"]),
        cache=None if request.kind == "model" else "warm",
        timing=Timed(warm_up=job.warm_up, timed=job.timed, turns=job.turns),
        rows=tuple(_row(row, found, first, job, km2) for row, found in answers.items()),
        left_out=dict(left_out),
        harness=Harness(version=made.tidemark, git_commit=made.git_commit, dirty=made.dirty),
        packages=made.packages,
        command=made.command,
    )


def _row(row: tuple[str, bool], found: list[dict], plain: dict, job: Job, km2: float | None) -> SpeedRow:
    rates = [answer["rates"][0] for answer in found]
    ratios = [answer["rates"][0] / answer["rates"][1] for answer in found if len(answer["rates"]) == 2]
    pooled = [second for answer in found for second in answer["latencies"]]
    memory = [answer["peak_memory_bytes"] for answer in found if answer["peak_memory_bytes"] is not None]
    median, pixels = statistics.median(rates), found[0]["pixels"]
    ground = None if km2 is None else km2 / (found[0]["chips"] if job.kind == "scene" else 1)
    return SpeedRow(
        kind=job.kind,
        chips_per_s=median,
        mpx_per_s=median * pixels / 1e6,
        km2_per_s=None if ground is None else median * ground,
        chips_per_s_range=(min(rates), max(rates)),
        samples=tuple(rates),
        processes=len(found),
        latency=Latency(**dict(zip(("p50_ms", "p90_ms", "p99_ms"), percentiles_ms(pooled), strict=True)),
                        samples=len(pooled)) if pooled else None,
        peak_memory_bytes=max(memory) if memory else None,
        parameters=found[0]["parameters"],
        gflops_per_chip=plain["gflops"] or None,
        reference_ratio=Ratio(median=statistics.median(ratios), low=min(ratios), high=max(ratios)) if ratios else None,
        precision=row[0],
        compiled=row[1],
        compile_s=found[0]["compile_s"],
        batch=found[0]["batch"],
        threads=job.threads,
        gate=_gate(found[0]["headline"], plain["headline"], job.split),
        **{key: found[0][key] for key in ("device", "driver", "cuda", "torch")},
    )  # fmt: skip


def _gate(own: dict | None, plain: dict | None, split: str) -> Gate | None:
    if own is None or plain is None or own["value"] is None or plain["value"] is None:
        return None
    return Gate(metric=own["metric"], dataset=own["dataset"], split=split, fp32=plain["value"], value=own["value"])
