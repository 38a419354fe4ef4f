"""From stored values to probabilities, and from a run's weights to the predictions of a split."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from .. import _compat, configs  # noqa: F401
from ..datasets.context import context_scale
from ..datasets.loader import ChipLoader
from ..datasets.spec import load_manifest
from ..datasets.transforms import Preprocess, image_array
from ..errors import FormatError, WeightsError
from .device import enough_memory, find_device
from .patch_map import PatchMap
from .predictions import NODATA, PREDICTIONS_NAME, Prediction, write_predictions
from .runs import CONFIG_NAME, read_run
from .weights import Pretrained, from_pretrained


class Inference:
    """A pretrained model on a device, called with stored values.

    Args:
        pretrained: as ``from_pretrained`` gives it.
        preprocess: for the bands of this input (``pretrained.check_input``).
        device: see ``find_device``.
    """

    def __init__(self, pretrained: Pretrained, preprocess: Preprocess, device: str = "auto") -> None:
        self.device = find_device(device)
        self.model = pretrained.model.eval().to(self.device, memory_format=torch.channels_last)
        self.preprocess = preprocess.to(self.device)
        self.binary = pretrained.spec.out_channels == 1
        self.contexts = [name for name in pretrained.spec.in_channels if context_scale(name)]
        self.temperature = pretrained.calibration.temperature if pretrained.calibration else 1.0

    @property
    def context_method(self) -> str:
        """How the ground around a tile is shrunk for this model, see `Preprocess`."""
        return self.preprocess.context

    @torch.inference_mode()
    def __call__(
        self, stored: torch.Tensor, mask: torch.Tensor | None = None, **contexts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities of a batch.

        Args:
            stored: (B,C,H,W) in the input's native dtype, all its bands.
            mask: (B,H,W), 0 where the data set says that the input is invalid. It then alone decides, and a band may
                lack data, 0 in the model's input; without a mask every used band must have data.
            contexts: (B,C,H,W) with the same bands, by the name of the model's input.

        Returns:
            float32 (B,K,H,W), or (B,K) of a patch classifier; K = 1, the probability of class 1, for a binary model.
            bool (B,H,W): where the input is valid. A chip without any valid pixel has probability 0 and is not
            given to the model.

        Raises:
            DeviceError: out of GPU memory.
            WeightsError: the model returns values that are not finite.
        """
        with enough_memory("take a smaller batch size (TRAIN.BATCH_SIZE) or smaller tiles"):
            image, valid = self.preprocess(stored.to(self.device, non_blocking=True))
            if mask is not None:
                valid = mask.to(self.device) != 0
                image = image * valid[:, None]
            some = valid.flatten(1).any(1)
            some_or_first = some if some.any() else slice(1)  # the model alone knows the shape of its output
            wider = {name: self.preprocess(values.to(self.device))[0] for name, values in contexts.items()}
            given = {
                name: values[some_or_first].contiguous(memory_format=torch.channels_last)
                for name, values in {"image": image, **wider}.items()
            }
            logits = self.model(**given).float() / self.temperature
            found = logits.sigmoid() if self.binary else logits.softmax(1)
            probabilities = found.new_zeros((len(image), *found.shape[1:]))
            if some.any():
                probabilities[some] = found
        if not torch.isfinite(probabilities).all():
            raise WeightsError("the model returns values that are not finite", hint="its weights or numbers overflow")
        return probabilities, valid


class OrbitInference:
    """Several models for the same ground, each batch entry by the first that has enough data; called as `Inference`.

    Args:
        models: for the same input, in order of preference: that of both orbits, then those of one.
        most_missing: a model is taken where each of its bands misses less than this share of the pixels (0.3 in
            GMNet's published products); where none has that, the one that misses least.
    """

    def __init__(self, models: Sequence[Inference], most_missing: float = 0.3) -> None:
        self.models, self.most_missing = list(models), most_missing
        self.device, self.binary = models[0].device, models[0].binary
        self.contexts, self.context_method = models[0].contexts, models[0].context_method

    def __call__(
        self, stored: torch.Tensor, mask: torch.Tensor | None = None, **contexts: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities and validity of a batch, see `Inference`."""
        missing = torch.stack([model.preprocess.missing_share(stored.to(self.device)) for model in self.models])
        enough = missing < self.most_missing
        chosen = torch.where(enough.any(0), enough.int().argmax(0), missing.argmin(0)).cpu()
        found: list = [None] * len(stored)
        for number, model in enumerate(self.models):
            own = torch.nonzero(chosen == number).flatten()
            if len(own):
                given = {name: values[own] for name, values in contexts.items()}
                answers = model(stored[own], mask if mask is None else mask[own], **given)
                for i, *parts in zip(own.tolist(), *answers, strict=True):
                    found[i] = parts
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


def decide(probabilities: torch.Tensor, valid: torch.Tensor) -> list[Prediction]:
    """Class maps and stored probabilities of a batch, as ``predictions.h5`` holds them.

    Binary maps: class 1 where p >= 0.5, and round(255 p). Maps of more classes: the most probable class, no
    probability. Patches: the most probable class, and round(255 p) of every class. Invalid pixels, and patches
    without a valid pixel, are 255.
    """
    scaled = (255 * probabilities).round().to(torch.uint8)
    classes = (probabilities[:, 0] >= 0.5) if probabilities.shape[1] == 1 else probabilities.argmax(1)
    if probabilities.ndim == 2:
        valid = valid.flatten(1).any(1)
    classes = torch.where(valid, classes.to(torch.uint8), NODATA).cpu().numpy()
    if probabilities.shape[1] == 1:
        return list(zip(classes, scaled[:, 0].cpu().numpy(), strict=True))
    return [(k, p if p.ndim == 1 else None) for k, p in zip(classes, scaled.cpu().numpy(), strict=True)]


@dataclass(frozen=True)
class BatchPredictor:
    """Maps a batch of a ``ChipLoader``: ``image`` and ``valid`` name its arrays (None: the bands' nodata decide)."""

    infer: Inference
    image: str
    valid: str | None

    def __call__(self, batch: dict[str, torch.Tensor]) -> list[Prediction]:
        contexts = {name: batch[name] for name in self.infer.contexts}
        return decide(*self.infer(batch[self.image], batch[self.valid] if self.valid else None, **contexts))


def open_inference(
    pretrained: Pretrained,
    folder: str | Path,
    split: str,
    *,
    device: str = "auto",
    batch_size: int = 1,
    learned_from: str | Path | None = None,
) -> tuple[ChipLoader, BatchPredictor]:
    """A loader of the arrays that the model and the data's validity need, and what maps one of its batches.

    Args:
        pretrained: the weights.
        folder: the data set's version folder.
        split: name of the split.
        device: see ``find_device``.
        batch_size: chips per batch.
        learned_from: version folder of the patches that a classifier has learned from: with it, one of the same classes
            maps scenes (`PatchMap`).

    Raises:
        WeightsError: the weights do not fit the data set's bands, units or task.
    """
    manifest = load_manifest(folder)
    if pretrained.task_kind == manifest.task.kind == "regression":
        from .harmonization.inference import open_pair_inference

        return open_pair_inference(pretrained, folder, split, device=device, batch_size=batch_size)
    if pretrained.task_kind != manifest.task.kind:
        if (pretrained.task_kind, manifest.task.kind) != ("classification", "segmentation") or learned_from is None:
            raise WeightsError(f"weights for {pretrained.task_kind}, {manifest.name} is a {manifest.task.kind}")
        patch = image_array(load_manifest(learned_from)).shape[1:]
        if patch[0] != patch[1]:
            raise WeightsError(f"patches of {patch[0]} x {patch[1]} px are not square", where=learned_from)
        pretrained = replace(pretrained, model=PatchMap(pretrained.model, patch[0]), task_kind="segmentation")
    return open_batches(pretrained, folder, split, device=device, batch_size=batch_size)


def open_batches(
    pretrained: Pretrained, folder: str | Path, split: str, *, device: str = "auto", batch_size: int = 1
) -> tuple[ChipLoader, BatchPredictor]:
    """As `open_inference`, for classes, whatever kind of label the data set has: only its images are read."""
    manifest = load_manifest(folder)
    image = image_array(manifest)
    masks = [a.name for a in manifest.arrays if a.role == "valid" and a.shape == image.shape[1:]]
    infer = Inference(pretrained, pretrained.check_input(image.bands), device)
    loader = ChipLoader(folder, split, batch_size, arrays=[image.name, *infer.contexts, *masks[:1]])
    return loader, BatchPredictor(infer, image.name, masks[0] if masks else None)


def predict_split(
    run: str | Path,
    split: str,
    *,
    device: str | None = None,
    batch_size: int | None = None,
    folder: str | Path | None = None,
    out: str | Path | None = None,
) -> Path:
    """Predict one split with the weights of a run.

    Args:
        run: a run folder with ``weights/``.
        split: name of the split.
        device, batch_size: instead of the run's own (TRAIN.DEVICE, TRAIN.BATCH_SIZE).
        folder: version folder of another data set with the same bands; by default the run's own. Of a patch classifier
            it may hold scenes, see `open_inference`.
        out: file to write; by default ``<run>/<split>/predictions.h5``.

    Returns:
        The file.

    Raises:
        FormatError: no finished run, or the data set there is not the one that the run has seen.
        WeightsError: the weights are not the run's, or do not fit the data set's bands, units or classes.
    """
    run = Path(run)
    info, cfg = read_run(run), configs.load_config(run / CONFIG_NAME)
    pretrained = from_pretrained(run / "weights")
    if pretrained.weights_sha256 != info.weights_sha256:
        raise WeightsError(
            f"sha256 {pretrained.weights_sha256[:16]}… found, run.json says {str(info.weights_sha256)[:16]}…",
            where=run / "weights",
            hint="train again",
        )
    source = Path(folder or info.dataset.folder)
    manifest = load_manifest(source)
    if folder is None and manifest.content_sha256 != info.dataset.content_sha256:
        raise FormatError(
            f"the run has seen the content {info.dataset.content_sha256[:16]}…, here is "
            f"{manifest.content_sha256[:16]}…",
            where=source,
            hint="build or pull the version it names",
        )
    if [c["name"] for c in pretrained.classes] != [c.name for c in manifest.task.classes]:
        raise WeightsError(
            f"the weights know the classes {', '.join(c['name'] for c in pretrained.classes)}, the data "
            f"set has {', '.join(c.name for c in manifest.task.classes)}",
            where=run / "weights",
        )
    device, batch_size = device or cfg.TRAIN.DEVICE, batch_size or cfg.TRAIN.BATCH_SIZE
    loader, predict = open_inference(
        pretrained, source, split, device=device, batch_size=batch_size, learned_from=info.dataset.folder
    )

    def chips() -> Iterator[Prediction]:
        from rich.progress import track

        for batch in track(loader, f"predict {split}", len(loader), transient=True, disable=not sys.stderr.isatty()):
            yield from predict(batch)

    dataset = {key: getattr(manifest, key) for key in ("name", "version", "content_sha256")}
    return write_predictions(
        out or run / split / PREDICTIONS_NAME,
        dataset=dataset,
        split=split,
        model=info.model,
        chip_ids=loader.chip_ids,
        chunks=chips(),
    )


def numpy_inference(infer: Inference | OrbitInference, tile_px: tuple[int, int]):
    """``infer`` for `blend_strips`: arrays in and out; a patch's probability holds for all of its pixels."""

    def predict(stored: np.ndarray, **contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities, valid = infer(
            torch.from_numpy(stored), **{name: torch.from_numpy(values) for name, values in contexts.items()}
        )
        if probabilities.ndim == 2:
            probabilities = probabilities[:, :, None, None].expand(-1, -1, *tile_px)
        return probabilities.cpu().numpy(), valid.cpu().numpy()

    return predict
