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
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from .. import _compat  # noqa: F401
from ..datasets.files import write_atomic
from ..datasets.raster import open_raster
from ..datasets.spec import Manifest
from ..datasets.transforms import image_array
from ..errors import InputError, TidemarkError
from ..models.device import enough_memory, find_device
from ..models.inference import open_batches, open_inference
from ..models.weights import Pretrained, from_pretrained
from .measuring import PeakMemory, Span, gflops, latencies, precision, rates_in_turns, warm_up


@dataclass(frozen=True)
class Job:
    """What one process measures; paths are absolute.

    Attributes:
        kind: ``model``, ``end-to-end`` or ``scene``.
        weights, reference: folders of weights; ``reference`` "" where the model is its own reference.
        data: version folder of a data set, or the scene; "" for random tensors (``model`` only).
        split: of the data set.
        chip: channels, height and width of random tensors; side of a scene's tiles in the last.
        headline: also score the whole split, for the accuracy gate.
    """

    kind: str
    weights: str
    reference: str
    data: str
    split: str
    chip: tuple[int, int, int]
    precision: str
    compiled: bool
    device: str
    threads: int
    batch: int
    warm_up: tuple[int, float]
    timed: tuple[int, float]
    turns: int
    headline: bool


@dataclass(frozen=True)
class Work:
    """What is timed.

    Attributes:
        run: does ``iterations`` batches and returns the chips in them.
        one: maps a single chip; None where that means nothing.
        inputs: what the network was given with the first batch.
        pixels: of the ground that a chip adds (tiles of a scene overlap).
    """

    run: Callable[[], int]
    one: Callable[[], object] | None
    inputs: dict[str, torch.Tensor]
    pixels: float
    iterations: int = 1


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
                other = open_work(replace(job, compiled=False), _load(job.reference, device), device)

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
        if not job.compiled and job.precision == "fp32":
            answer["gflops"] = gflops(pretrained.model, {k: v[:1] for k, v in work.inputs.items()})
    return answer | device_facts(device)


def _load(folder: str, device: torch.device) -> Pretrained:
    pretrained = from_pretrained(folder)
    pretrained.model.to(device, memory_format=torch.channels_last)
    return pretrained


def open_work(job: Job, pretrained: Pretrained, device: torch.device) -> Work:
    """What is repeated: the network on resident tensors, batches from shards to class maps, or whole scenes."""
    network = torch.compile(pretrained.model, dynamic=False) if job.compiled else pretrained.model
    if job.kind == "scene":
        return _scene_work(job, pretrained, network)
    if not job.data:
        return _model_work(network, _random_inputs(job, pretrained, device))
    # The reference U-Net maps patches too: how fast it is does not hang on what their labels are.
    opened = open_inference if pretrained.task_kind == "regression" else open_batches
    loader, predict = opened(pretrained, job.data, job.split, device=job.device, batch_size=job.batch)
    inputs = captured(pretrained.model, lambda: predict(next(iter(loader))))
    pixels = chip_pixels(loader.manifest)
    if job.kind == "model":
        return replace(_model_work(network, inputs), pixels=pixels)
    predict.infer.model = network
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    shard, names = loader.shards[0], [array.name for array in loader.arrays]
    places = itertools.cycle(range(shard.n))

    def one() -> object:
        i = next(places)
        return predict({name: torch.from_numpy(shard.read(name, i))[None] for name in names})

    return Work(lambda: len(predict(next(batches))), one, inputs, pixels)


def chip_pixels(manifest: Manifest) -> int:
    """Pixels of a chip's map, or of its image under a label per chip."""
    shape = manifest.label_array.shape or image_array(manifest).shape
    return shape[-2] * shape[-1]


def _random_inputs(job: Job, pretrained: Pretrained, device: torch.device) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn((job.batch, channels, *job.chip[1:]), generator=generator).to(
            device, memory_format=torch.channels_last
        )
        for name, channels in pretrained.spec.in_channels.items()
    }


def _model_work(network: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> Work:
    single = {name: values[:1] for name, values in inputs.items()}

    @torch.inference_mode()
    def run() -> int:
        network(**inputs)
        return len(inputs["image"])

    @torch.inference_mode()
    def one() -> object:
        return network(**single)

    height, width = inputs["image"].shape[-2:]
    return Work(run, one, inputs, height * width)


def _scene_work(job: Job, pretrained: Pretrained, network: torch.nn.Module) -> Work:
    from ..models.predict import predict_scene

    folder = tempfile.TemporaryDirectory()  # goes with the process

    def map_scene(weights: Pretrained) -> None:
        out = Path(folder.name) / "map.tif"
        predict_scene(job.data, weights, out, overlap=0.5, tile=job.chip[-1], device=job.device, batch_size=job.batch)

    tiles: list[int] = []
    handle = pretrained.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: tiles.append(len(kwargs["image"])), with_kwargs=True
    )
    inputs = captured(pretrained.model, lambda: map_scene(pretrained))
    handle.remove()
    if not tiles:
        raise InputError("the scene has no valid pixel", where=job.data)
    with open_raster(job.data) as scene:
        pixels = scene.height * scene.width
    timed = replace(pretrained, model=network)

    def run() -> int:
        map_scene(timed)
        return sum(tiles)

    return Work(run, None, inputs, pixels / sum(tiles), len(tiles))


def captured(model: torch.nn.Module, call: Callable[[], object]) -> dict[str, torch.Tensor]:
    """The named tensors that the network was first given while ``call`` ran."""
    found: dict[str, torch.Tensor] = {}

    def keep(_module, _args, kwargs) -> None:
        if not found:
            found.update(kwargs)

    handle = model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        call()
    finally:
        handle.remove()
    return found


def headline(job: Job, pretrained: Pretrained) -> dict[str, Any]:
    """The protocol's headline of this model, as it is timed, on the whole split."""
    from ..models.predictions import write_predictions
    from .evaluate import figures_of, score
    from .records import HEADLINE

    loader, predict = open_inference(pretrained, job.data, job.split, device=job.device, batch_size=job.batch)
    predict.infer.model = torch.compile(pretrained.model, dynamic=False) if job.compiled else pretrained.model
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
