"""``tidemark bench backends``: one network in PyTorch, ONNX Runtime and OpenVINO, in one run on one CPU."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__, _compat  # noqa: F401
from ..datasets.files import write_atomic
from ..errors import ConfigError, DeviceError, InputError
from ..models.backends import with_backend
from ..models.inference import open_batches
from ..models.runs import usable_cores
from ..models.session import torch_threads
from ..models.weights import Pretrained
from .subject import find_subject, synthetic_dataset
from .timing import MIN_SAMPLES, MIN_SECONDS, cpu_in_words, interleaved, ratio

EAGER = "torch fp32"
CONTENDERS = (("torch", "fp32"), ("torch", "bf16"), ("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
CHIPS, QUICK_CHIPS = 32, 2


def bench_backends(
    target: str,
    *,
    dataset: Path | None = None,
    split: str = "val",
    channels: int = 2,
    size: int = 256,
    arguments: Mapping[str, Any] | None = None,
    batch: int = 4,
    threads: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dict:
    """Time every runtime that is here on stored chips to probabilities, and compare the classes; print and return.

    Args:
        target: a run, a folder of weights, owner/name, or a registered model (random weights on synthetic chips).
        dataset: version folder; by default the run's.
        split: its split, of which the first 32 chips are taken.
        channels, size, arguments: of synthetic chips and a registered model.
        batch: chips per call.
        threads: of the CPU; 0: all cores.
        quick: few chips, one short sample: shows that it runs, measures nothing.
        out: JSON file for the record.

    Raises:
        InputError: weights of reflectance, or a batch of none.
    """
    if batch < 1:
        raise InputError(f"needs a batch size above 0, found {batch}")
    chips = QUICK_CHIPS if quick else CHIPS
    threads = threads or usable_cores()
    with ExitStack() as stack:
        room = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(torch_threads(threads))
        subject = find_subject(target, room, channels=channels, arguments=arguments or {}, data=dataset)
        pretrained, data = subject.pretrained, subject.data
        if pretrained.task_kind == "regression":
            raise InputError("networks of reflectance run in PyTorch alone", where=target)
        if data is None:
            data, split = synthetic_dataset(subject, room, chips=chips, size=size), "train"
        runtimes, missing = _runtimes(pretrained, room)
        contenders, classes = {}, {}
        for label, candidate in runtimes.items():
            loader, predict = open_batches(candidate, data, split, device="cpu", batch_size=min(batch, chips))
            batches = _some(loader, chips)
            classes[label] = [answer[0] for b in batches for answer in predict(b)]
            contenders[label] = _work(predict, batches)
        timings = interleaved(contenders, 1 if quick else MIN_SAMPLES, 0.02 if quick else MIN_SECONDS)
    rows = {
        label: {
            "chips_per_s": timing.median,
            "of_eager": dict(zip(("median", "min", "max"), ratio(timings, label, EAGER), strict=True)),
            "agreement": float(np.mean([np.mean(a == b) for a, b in zip(classes[label], classes[EAGER], strict=True)])),
        }
        for label, timing in timings.items()
    }
    record = {
        "harness": __version__,
        "quick": quick,
        "device": cpu_in_words(),
        "threads": threads,
        "torch": torch.__version__,
        "model": subject.name,
        "arguments": subject.arguments,
        "weights_sha256": subject.weights_sha256,
        "data": "synthetic chips" if subject.data is None else f"{data.parent.name} {data.name} {split}",
        "chips": len(classes[EAGER]),
        "batch": min(batch, chips),
        "rows": rows,
        "missing": missing,
    }
    _print(record)
    if out is not None:
        write_atomic(out, json.dumps(record, indent=1) + "\n")
    return record


def _runtimes(pretrained: Pretrained, room: Path) -> tuple[dict[str, Pretrained], dict[str, str]]:
    """Those that are here by label, and why the others are not."""
    found, missing = {}, {}
    for backend, precision in CONTENDERS:
        label = f"{backend} {precision}"
        try:
            found[label] = with_backend(pretrained, backend, precision, room / "exported")
        except (ConfigError, DeviceError) as error:
            missing[label] = str(error)
    return found, missing


def _some(loader, chips: int) -> list[dict[str, torch.Tensor]]:
    batches, taken = [], 0
    for batch in loader:
        if taken and (taken >= chips or len(batch["index"]) < loader.batch_size):
            break
        batches.append({name: values.clone() for name, values in batch.items()})
        taken += len(batch["index"])
    return batches


def _work(predict, batches):
    def work() -> float:
        for batch in batches:
            predict(batch)
        return float(sum(len(batch["index"]) for batch in batches))

    return work


def _print(record: dict) -> None:
    print(f"{record['model']}, {record['data']}, {record['chips']} chips, batch {record['batch']}")
    print(f"{record['device']}, {record['threads']} threads; stored values to classes, agreement with {EAGER}")
    for label, row in record["rows"].items():
        of = row["of_eager"]
        figures = f"{row['chips_per_s']:>10.2f} chips/s {of['median']:>6.2f}x [{of['min']:.2f}, {of['max']:.2f}]"
        print(f"  {label:<18}{figures}  {row['agreement']:.2%} equal")
    for label, why in record["missing"].items():
        print(f"  {label:<18}not measured: {why}")
    if record["quick"]:
        print("quick: shows that it runs, measures nothing")
