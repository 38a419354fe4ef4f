"""What a speed measurement repeats: a network on resident tensors, batches from shards to maps, or whole scenes."""

from __future__ import annotations

import inspect
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import _compat  # noqa: F401
from ..datasets.pairs import PairLoader
from ..datasets.raster import open_raster
from ..datasets.spec import Manifest
from ..datasets.transforms import image_array
from ..errors import InputError
from ..models.harmonization.harmonizer import Harmonizer
from ..models.harmonization.inference import HarmonizationInference
from ..models.inference import Inference, open_batches, open_inference
from ..models.weights import Pretrained
from .pair_inputs import random_pairs


@dataclass(frozen=True)
class Job:
    """What one process measures; paths are absolute.

    Attributes:
        kind: ``model``, ``end-to-end`` or ``scene``.
        weights: folder of weights.
        reference: that of the reference model; of reflectance the model's own, for whose inputs one is made then.
        data: version folder of a data set, or the scene; "" for random tensors (``model`` only).
        split: of the data set.
        chip: channels, height and width of random tensors, of reflectance those of the target under the channels of
            the image; side of a scene's tiles in the last.
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
        module: the network, not compiled; of reflectance with the resampling around it.
        inputs: what ``module`` was given with the first batch, by the names of its arguments.
        pixels: of the ground that a chip adds (tiles of a scene overlap); of reflectance those of the answer.
    """

    run: Callable[[], int]
    one: Callable[[], object] | None
    module: nn.Module
    inputs: dict[str, Any]
    pixels: float
    iterations: int = 1

    @property
    def single(self) -> dict[str, Any]:
        """``inputs`` of the first chip alone."""
        return {k: v[:1] if isinstance(v, torch.Tensor) else v for k, v in self.inputs.items()}

    @property
    def target(self) -> tuple[int, int] | None:
        """Height and width of the reflectance that is answered; None for classes."""
        return self.inputs.get("size")


def open_work(job: Job, pretrained: Pretrained, device: torch.device) -> Work:
    """What is repeated: the network on resident tensors, batches from shards to maps, or whole scenes.

    A network of reflectance is always called through its ``Harmonizer``, so resampling is part of its time; of its
    compiled rows the network alone is compiled.
    """
    network = torch.compile(pretrained.model, dynamic=False) if job.compiled else pretrained.model
    pairs = pretrained.task_kind == "regression"
    if job.kind == "scene":
        return _scene_work(job, pretrained, network)
    timed, module = (Harmonizer(n).eval() if pairs else n for n in (network, pretrained.model))
    if not job.data:
        inputs = random_pairs(job.batch, *job.chip[:2], device) if pairs else _random_inputs(job, pretrained, device)
        return _model_work(timed, module, inputs)
    # The reference U-Net maps patches too: how fast it is does not hang on what their labels are.
    opened = open_inference if pairs else open_batches
    loader, predict = opened(pretrained, job.data, job.split, device=job.device, batch_size=job.batch)
    inputs = captured(called_by(predict.infer), lambda: predict(next(iter(loader))))
    if job.kind == "model":
        return replace(_model_work(timed, module, inputs), pixels=chip_pixels(loader.manifest))
    put_network(predict.infer, network)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    shard, names = loader.shards[0], [array.name for array in loader.arrays]
    places = itertools.cycle(range(shard.n))

    def one() -> object:
        i = next(places)
        batch = {name: torch.from_numpy(shard.read(name, i))[None] for name in names}
        if isinstance(loader, PairLoader):  # the first shard's chips are the split's first
            batch = loader.placed(batch | {"index": torch.tensor([i])})
        return predict(batch)

    return Work(lambda: len(predict(next(batches))), one, module, inputs, chip_pixels(loader.manifest))


def called_by(infer: Inference | HarmonizationInference) -> nn.Module:
    """The module that an inference calls: the network, or the ``Harmonizer`` around it."""
    return infer.harmonizer if isinstance(infer, HarmonizationInference) else infer.model


def put_network(infer: Inference | HarmonizationInference, network: nn.Module) -> None:
    """Let an inference call this network, the same one compiled."""
    if isinstance(infer, HarmonizationInference):
        infer.harmonizer.network = network
    else:
        infer.model = network


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


def _model_work(timed: nn.Module, module: nn.Module, inputs: dict[str, Any]) -> Work:
    @torch.inference_mode()
    def run() -> int:
        timed(**inputs)
        return len(inputs["image"])

    @torch.inference_mode()
    def one() -> object:
        return timed(**single)

    height, width = inputs.get("size", inputs["image"].shape[-2:])
    work = Work(run, one, module, inputs, height * width)
    single = work.single
    return work


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

    return Work(run, None, pretrained.model, inputs, pixels / sum(tiles), len(tiles))


def captured(module: nn.Module, call: Callable[[], object]) -> dict[str, Any]:
    """The arguments that the module was first given while ``call`` ran, by name."""
    found: dict[str, Any] = {}
    signature = inspect.signature(module.forward)

    def keep(_module, args, kwargs) -> None:
        if not found:
            found.update(signature.bind(*args, **kwargs).arguments)

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        call()
    finally:
        handle.remove()
    return found
