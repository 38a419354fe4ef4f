"""One fresh process of a speed measurement: ``python -m tidemark.benchmark.speed_process JOB.json ANSWER.json``.

The model is loaded, compiled where asked, warmed up and timed alone (latency, memory); then the reference model is
loaded, and both are timed in turns.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import _compat  # noqa: F401
from ..datasets.files import write_atomic
from ..errors import TidemarkError
from ..models.device import enough_memory, find_device
from ..models.inference import open_inference
from ..models.weights import Pretrained, from_pretrained
from .measuring import PeakMemory, Span, gflops, latencies, precision, rates_in_turns, warm_up
from .pair_inputs import ReferenceOnPairs
from .work import Job, open_work, put_network


def measure(job: Job) -> dict[str, Any]:
    """The figures of one process.

    Raises:
        TidemarkError: the weights do not fit the data, the device is absent or too small.
    """
    torch.set_num_threads(job.threads)
    device = find_device(job.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)  # whose stream the events are recorded on
    answer: dict[str, Any] = {}
    memory = PeakMemory(device)
    with precision(job.precision, device), enough_memory("take a smaller --batch"):
        pretrained = _load(job.weights, device)
        answer["parameters"] = sum(p.numel() for p in pretrained.model.parameters())
        work = open_work(job, pretrained, device)
        started = time.perf_counter()
        chips = work.run()
        answer["compile_s"] = time.perf_counter() - started if job.compiled else None
        warm, timed = Span(*job.warm_up), Span(*job.timed)
        warm_up(work.run, device, Span(-(-warm.iterations // work.iterations), warm.seconds))
        answer["peak_memory_bytes"] = memory.bytes()
        answer["latencies"] = latencies(work.one, device, timed) if work.one else []
        contenders = [work.run]
        if job.reference:
            with precision("fp32", device):
                other = open_work(replace(job, compiled=False), _load_reference(job.reference, device), device)

            def reference() -> int:
                with precision("fp32", device):
                    return other.run()

            warm_up(reference, device, Span(1, 0.0))
            contenders.append(reference)
        span = Span(-(-timed.iterations // work.iterations), timed.seconds)
        answer["rates"] = rates_in_turns(contenders, device, span, job.turns)
        answer["headline"] = headline(job, pretrained) if job.headline else None
        answer["pixels"], answer["batch"] = work.pixels, len(work.inputs["image"])
        answer["chips"] = chips
        answer["chip"] = [int(n) for n in work.inputs["image"].shape[1:]]
        answer["target"] = work.target and [pretrained.spec.out_channels, *work.target]
        if not job.compiled and job.precision == "fp32":
            answer["gflops"] = gflops(work.module, work.single)
    return answer | device_facts(device)


def _load(folder: str, device: torch.device) -> Pretrained:
    pretrained = from_pretrained(folder)
    pretrained.model.to(device, memory_format=torch.channels_last)
    return pretrained


def _load_reference(folder: str, device: torch.device) -> Pretrained:
    pretrained = _load(folder, device)
    if pretrained.task_kind != "regression":
        return pretrained
    model = ReferenceOnPairs(pretrained.spec).eval()
    return replace(pretrained, model=model.to(device, memory_format=torch.channels_last))


def headline(job: Job, pretrained: Pretrained) -> dict[str, Any]:
    """The protocol's headline of this model, as it is timed, on the whole split."""
    from ..models.predictions import write_predictions
    from .evaluate import figures_of, score
    from .records import HEADLINE

    loader, predict = open_inference(pretrained, job.data, job.split, device=job.device, batch_size=job.batch)
    if job.compiled:
        put_network(predict.infer, torch.compile(pretrained.model, dynamic=False))
    manifest = loader.manifest
    with tempfile.TemporaryDirectory() as folder:
        path = write_predictions(
            Path(folder) / "predictions.h5",
            dataset={key: getattr(manifest, key) for key in ("name", "version", "content_sha256")},
            split=job.split,
            model=pretrained.name,
            chip_ids=loader.chip_ids,
            chunks=itertools.chain.from_iterable(map(predict, loader)),
        )
        scored = score(path, job.data, job.split)
    metrics, _ = figures_of(scored)
    key = HEADLINE[scored.task]
    return {"metric": key, "value": metrics[key].value, "dataset": f"{manifest.name} {manifest.version}"}


def device_facts(device: torch.device) -> dict[str, str | None]:
    """Device, driver, CUDA and torch in words; driver and CUDA are None on a CPU."""
    from ..models.runs import device_in_words

    cuda = device.type == "cuda"
    return {
        "device": device_in_words(str(device)),
        "driver": nvidia_driver() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "torch": torch.__version__,
    }


def nvidia_driver() -> str | None:
    """Version of the kernel driver."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text().split()
    except OSError:
        return None
    return next((word for word in words if word[:1].isdigit() and "." in word), None)


def main() -> None:
    """Read the job, write the answer; what went wrong on purpose goes there as one line."""
    job_path, answer_path = map(Path, sys.argv[1:3])
    job = Job(**json.loads(job_path.read_text()))
    try:
        answer = measure(job)
    except TidemarkError as error:
        answer = {"error": error.what, "where": str(error.where or ""), "hint": error.hint}
    except RuntimeError as error:
        if not job.compiled:
            raise
        answer = {"not_compiled": f"torch.compile fails here ({_last_line(error)})"}
    write_atomic(answer_path, json.dumps(answer))


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


if __name__ == "__main__":
    main()
