"""What the harmonization networks share: their answers, the padding, and blocks that several of them use."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import _compat  # noqa: F401
from ...errors import ConfigError, InputError
from ..registry import ModelSpec

MIN_VARIANCE = 1e-6  # a standard deviation of 0.001 in reflectance, about that of Sentinel-2's noise


def check_whole(name: str, value: int, least: int, most: int) -> None:
    """Raises ConfigError unless the argument is a whole number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{name} must be a whole number from {least} to {most}, found {value!r}", where="MODEL.ARGS")


class GaussianOutput(NamedTuple):
    """``mean`` and ``variance`` (B,C,H,W) of the reflectance; the variance is at least ``MIN_VARIANCE``."""

    mean: Tensor
    variance: Tensor


class GuidedOutput(NamedTuple):
    """In training: ``mean`` (B,C,H,W), and the panchromatic ``detail`` (B,1,H,W) found and ``wanted``."""

    mean: Tensor
    detail: Tensor
    wanted: Tensor


class TargetGridNetwork(nn.Module):
    """A network whose inputs both lie on the target's grid.

    Args:
        spec: channels of ``image`` and ``pan``, and bands of the answer.
        residual: the answer is added to the resampled image (by the ``Harmonizer``), so it needs as many bands.
        multiple: what the sides are padded to; the answer is cropped back.
        stretch: see ``Harmonizer``.
    """

    grid = "target"

    def __init__(self, spec: ModelSpec, residual: bool, multiple: int = 1, stretch: bool = False) -> None:
        super().__init__()
        self.in_channels = channels_of(spec, residual)
        self.residual, self.multiple, self.stretch = residual, multiple, stretch

    def forward(self, image: Tensor, pan: Tensor) -> Tensor | GaussianOutput | GuidedOutput:
        """float32 reflectance (B,6,H,W) and (B,1,H,W) on one grid to (B,6,H,W)."""
        check_inputs(image, pan, self.in_channels, 1)
        height, width = image.shape[-2:]
        down, right = -height % self.multiple, -width % self.multiple
        if down or right:
            mode = "reflect" if down < height and right < width else "replicate"
            image, pan = (functional.pad(x, (0, right, 0, down), mode) for x in (image, pan))
        found = self.compute(image, pan)
        if isinstance(found, Tensor):
            return found[..., :height, :width]
        return type(found)(*(x[..., :height, :width] for x in found))

    def compute(self, image: Tensor, pan: Tensor) -> Tensor | GaussianOutput | GuidedOutput:
        """``forward`` on sides that are multiples of ``multiple``."""
        raise NotImplementedError


def channels_of(spec: ModelSpec, residual: bool) -> dict[str, int]:
    """Channels of both inputs. Raises ConfigError for a residual network with other bands out than in."""
    channels = {name: spec.in_channels[name] for name in ("image", "pan")}
    if residual and spec.out_channels != channels["image"]:
        raise ConfigError(
            f"a residual network adds {spec.out_channels} bands to an image of {channels['image']}",
            where="MODEL.ARGS.residual",
        )
    return channels


def check_inputs(image: Tensor, pan: Tensor, channels: dict[str, int], ratio: int) -> None:
    """Raises InputError unless both have their channels and the pan is ``ratio`` times as large."""
    for name, x in (("image", image), ("pan", pan)):
        if x.shape[1] != channels[name]:
            raise InputError(f"the network was made for {channels[name]} channels, the {name} has {x.shape[1]}")
    expected = [ratio * length for length in image.shape[-2:]]
    if list(pan.shape[-2:]) != expected:
        found = " × ".join(map(str, pan.shape[-2:]))
        raise InputError(f"the pan must be {expected[0]} × {expected[1]} beside this image, found {found}")


def convolution(channels: int, out: int, kernel: int = 3, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the size."""
    return nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=bias)


def small_head(head: nn.Conv2d, residual: bool) -> nn.Conv2d:
    """The last layer; of a residual network it starts small, so that training starts beside the bicubic image."""
    if residual:
        with torch.no_grad():
            head.weight *= 0.1
            head.bias.zero_()
    return head
