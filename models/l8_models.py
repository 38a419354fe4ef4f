"""What turns tiles of Landsat-8 into Sentinel-2's reflectance: interpolation, or trained networks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import _compat  # noqa: F401
from ..datasets.l8s2_header import header
from ..datasets.spec import Band
from ..errors import InputError, WeightsError
from .device import find_device
from .harmonization.harmonizer import Harmonizer
from .harmonization.resample import MODES, resample
from .harmonization.uncertainty import calibrated, moments
from .weights import Pretrained, from_pretrained


class Interpolation:
    """The trivial rows: Landsat alone, brought to the grid of the target."""

    with_pan = with_sigma = False

    def __init__(self, mode: str, device: torch.device) -> None:
        if mode not in MODES:
            raise InputError(f"no method {mode!r}", hint=f"there is {', '.join(MODES)}; networks: --weights")
        self.mode, self.device, self.tags = mode, device, {"TIDEMARK_METHOD": mode}

    def __call__(self, image, pan, grid_image, grid_pan, size) -> tuple[torch.Tensor, None]:
        """(B,6,H,W), and no standard deviation."""
        return resample(image, grid_image, size, self.mode), None


class Networks:
    """One network, or several whose answers are averaged.

    Args:
        pretrained: of harmonization, for Landsat-8's six bands and pan; several must have learned from the same inputs.
        uncertainty: also give the standard deviation, by the method that ``tidemark uncertainty`` has calibrated.

    Raises:
        WeightsError: weights of another task, for other bands, or not calibrated.
    """

    with_pan = True

    def __init__(self, pretrained: Sequence[Pretrained], uncertainty: bool, device: torch.device) -> None:
        self.device, self.with_sigma = device, uncertainty
        image, pan, target = physical_bands()
        inputs = []
        for one in pretrained:
            if one.harmonization is None:
                raise WeightsError(f"weights of {one.name} for {one.task_kind}, not for harmonization")
            one.harmonization.check_target(target, one.name)
            if one.harmonization.pan is None:
                raise WeightsError("weights without a panchromatic input", where=one.name)
            inputs.append((one.check_input(image), one.harmonization.pan_preprocess(pan)))
            one.model.eval().to(device)
        if any([part.to_config() for part in own] != [part.to_config() for part in inputs[0]] for own in inputs):
            raise WeightsError("the weights have learned from inputs that were prepared in different ways")
        self._image, self._pan = (part.eval().to(device) for part in inputs[0])
        self._members = [Harmonizer(one.model, stretch=False).eval() for one in pretrained]
        self._predictive = calibrated(pretrained, self._members) if uncertainty else None
        self.tags = {
            "TIDEMARK_MODEL": ", ".join(dict.fromkeys(one.name for one in pretrained)),
            "TIDEMARK_WEIGHTS_SHA256": ", ".join(one.weights_sha256 for one in pretrained),
        }

    def __call__(self, image, pan, grid_image, grid_pan, size) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Mean (B,6,H,W), and the standard deviation where it is asked for."""
        batch = self._image(image)[0], self._pan(pan)[0], grid_image, grid_pan, size
        if self._predictive is None:
            return moments(member(*batch) for member in self._members)[0].clamp_min(0), None
        # the same pixels drop the same units, whatever tiles came before
        return self._predictive(*batch, key=zlib.crc32(image.cpu().numpy().tobytes()))


def physical_bands() -> tuple[tuple[Band, ...], tuple[Band, ...], tuple[Band, ...]]:
    """Image, pan and target of the data set as reflectance 0…1 instead of stored numbers."""
    arrays = {array.name: array.bands for array in header({}, "by-tile", False).arrays}
    plain = {"scale": 1.0, "offset": 0.0, "nodata": None}
    return tuple(tuple(band.model_copy(update=plain) for band in arrays[name]) for name in ("image", "pan", "target"))


def open_model(
    weights: Sequence[str | Path | Pretrained], method: str | None, uncertainty: bool = False, device: str = "auto"
) -> Interpolation | Networks:
    """What maps a batch of tiles: an interpolation by its name, or the networks of the weights."""
    if bool(weights) == (method is not None):
        raise InputError("give either weights or a method", hint=f"--weights RUN, or --method {'|'.join(MODES)}")
    found = find_device(device)
    if method is None:
        loaded = [one if isinstance(one, Pretrained) else from_pretrained(one) for one in weights]
        return Networks(loaded, uncertainty, found)
    if uncertainty:
        raise InputError(f"{method} has no uncertainty", hint="leave out --uncertainty, or give weights")
    return Interpolation(method, found)
