"""The training of a harmonization network: its loss on valid pixels, and the PSNR that selects the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from ... import _compat  # noqa: F401
from ...benchmark.reflectance import BORDER_PX, psnr
from ..tasks import Task
from .harmonizer import Harmonizer
from .losses import HarmonizationLoss


def loss_name(name: str) -> str:
    """The loss of a recipe: ``auto`` is ``l1``."""
    return "l1" if name == "auto" else name


class HarmonizationTask(Task):
    """Reflectance on the target's grid; PSNR as the protocol has it (per band, mean over bands, mean over locations).

    Args:
        network: a registered harmonization network.
        options: the TRAIN node of a configuration; LOSS is one of `HarmonizationLoss`.
        bands: of the target.
        units: scenes of the data set; a batch's ``unit`` says which one a chip belongs to.
        seed: with epoch and step it fixes every draw inside the network (dropout).
    """

    def __init__(self, network: nn.Module, options: CfgNode, *, bands: int, units: int, seed: int = 0) -> None:
        super().__init__(network, options, inputs=("image", "pan"), seed=seed)
        self.bands, self.units = bands, units
        self.loss = HarmonizationLoss(loss_name(options.LOSS))

    def answer(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Any:
        """Reflectance of a batch, see ``Harmonizer``."""
        size = tuple(batch["target"].shape[-2:])
        # Not kept: it has no parameters, and the weights on disk are the network's own.
        return Harmonizer(network)(batch["image"], batch["pan"], batch["grid_image"], batch["grid_pan"], size)

    def loss_of(self, answer: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss that the recipe names, over valid pixels."""
        return self.loss(answer, batch["target"], batch["valid"])

    def weight_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Its valid pixels."""
        return batch["valid"].sum()

    def no_counts(self) -> np.ndarray:
        """float64 (units, bands + 1): squared error of each band, and pixels."""
        return np.zeros((self.units, self.bands + 1))

    def counts_of(self, answer: Any, batch: Mapping[str, Tensor]) -> np.ndarray:
        """What a batch adds; validation leaves the border out, as the evaluator does."""
        mean = answer if isinstance(answer, Tensor) else answer.mean
        target, valid = batch["target"], batch["valid"]
        if not self.trainer.training:
            inside = (..., slice(BORDER_PX, -BORDER_PX), slice(BORDER_PX, -BORDER_PX))
            mean, target, valid = mean[inside], target[inside], valid[inside]
        squared = torch.where(valid[:, None], (mean - target).double().square(), 0.0).sum((2, 3))
        found = torch.cat([squared, valid.sum((1, 2))[:, None].double()], 1)
        counts = self.no_counts()
        np.add.at(counts, batch["unit"].cpu().numpy(), found.cpu().numpy())
        return counts

    def scores(self, counts: np.ndarray) -> dict[str, float]:
        """``psnr`` in dB, over the units that have valid pixels."""
        counts = counts[counts[:, -1] > 0]
        if not len(counts):
            return {"psnr": float("nan")}
        return {"psnr": float(psnr({"squared_error": counts[:, :-1], "pixels": counts[:, -1:]}).mean())}
