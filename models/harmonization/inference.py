"""From stored values of an image and its panchromatic band to reflectance on the target's grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ... import _compat  # noqa: F401
from ...datasets.pairs import PairLoader, pair_arrays
from ...datasets.spec import Band, load_manifest
from ...errors import WeightsError
from ..device import enough_memory, find_device
from ..predictions import Prediction
from ..weights import Pretrained
from .harmonizer import Harmonizer


class HarmonizationInference:
    """A pretrained harmonization network on a device, called with stored values.

    Args:
        pretrained: as ``from_pretrained`` gives it, of the kind ``regression``.
        image, pan: bands of the inputs as they are stored; None: as those that the network learned from.
        device: see ``find_device``.

    Raises:
        WeightsError: weights of another kind, or a band that is missing or has another unit or sensor.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        image: Sequence[Band] | None = None,
        pan: Sequence[Band] | None = None,
        device: str = "auto",
    ) -> None:
        if pretrained.harmonization is None:
            raise WeightsError(f"weights for {pretrained.task_kind}, not for reflectance", where=pretrained.name)
        self.device = find_device(device)
        model = pretrained.model.eval().to(self.device, memory_format=torch.channels_last)
        self.harmonizer = Harmonizer(model).eval()
        own = pretrained.preprocess
        self.preprocess = (own if image is None else own.for_bands(image)).to(self.device)
        self.pan_preprocess = pretrained.harmonization.pan_preprocess(pan).to(self.device)

    @torch.inference_mode()
    def __call__(
        self, image: Tensor, pan: Tensor, grid_image: Tensor, grid_pan: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Reflectance of a batch.

        Args:
            image: (B,C,h,w) stored values of all its bands.
            pan: (B,1,h',w') stored values.
            grid_image, grid_pan: (B,4), see ``datasets.grids.grid_between``.
            size: (H,W) of the target.

        Returns:
            float32 (B,C',H,W), at least 0 as reflectance is; of a network with a variance its mean. Pixels without
            data went in as 0: what comes out there is nothing.

        Raises:
            DeviceError: out of GPU memory.
            WeightsError: the network returns values that are not finite.
        """
        with enough_memory("take a smaller batch size (TRAIN.BATCH_SIZE) or smaller tiles"):
            inputs = (
                values(stored.to(self.device, non_blocking=True))[0].contiguous(memory_format=torch.channels_last)
                for values, stored in ((self.preprocess, image), (self.pan_preprocess, pan))
            )
            found = self.harmonizer(*inputs, grid_image.to(self.device), grid_pan.to(self.device), size)
            mean = (found if isinstance(found, Tensor) else found.mean).float().clamp_min(0)
        if not torch.isfinite(mean).all():
            raise WeightsError("the model returns values that are not finite", hint="its weights or numbers overflow")
        return mean


@dataclass(frozen=True)
class PairPredictor:
    """Maps a batch of a ``PairLoader`` to reflectance float16 (C,H,W) of each chip, NaN where it is not valid.

    ``image`` and ``valid`` name its arrays (None: every pixel is answered); ``size`` is the target's.
    """

    infer: HarmonizationInference
    image: str
    valid: str | None
    size: tuple[int, int]

    def __call__(self, batch: dict[str, Tensor]) -> list[Prediction]:
        found = self.infer(batch[self.image], batch["pan"], batch["grid_image"], batch["grid_pan"], self.size)
        answers = found.cpu().numpy().astype(np.float16)
        if self.valid is not None:
            answers = np.where(batch[self.valid].numpy()[:, None] != 0, answers, np.float16(np.nan))
        return [(answer, None) for answer in answers]


def open_pair_inference(
    pretrained: Pretrained, folder: str | Path, split: str, *, device: str = "auto", batch_size: int = 1
) -> tuple[PairLoader, PairPredictor]:
    """A loader of what the network needs, and what maps one of its batches; see ``inference.open_inference``.

    Raises:
        WeightsError: the weights do not fit the data set's bands or units, of the inputs or of the answer.
    """
    manifest = load_manifest(folder)
    image, target, pan = pair_arrays(manifest)
    if pan is None:
        raise WeightsError(f"the network needs pan, {manifest.name} has none", where=folder)
    infer = HarmonizationInference(pretrained, image.bands, pan.bands, device)
    pretrained.harmonization.check_target(target.bands, folder)
    masks = [a.name for a in manifest.arrays if a.role == "valid" and a.shape == target.shape[1:]]
    loader = PairLoader(folder, split, batch_size, arrays=[image.name, pan.name, *masks[:1]])
    return loader, PairPredictor(infer, image.name, masks[0] if masks else None, target.shape[1:])
