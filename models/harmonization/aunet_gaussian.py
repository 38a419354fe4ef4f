"""AUNet that answers a mean and a variance for every value (Deep-Harmonization, ISPRS 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..registry import ModelSpec, register
from .parts import MIN_VARIANCE, GaussianOutput, TargetGridNetwork, convolution, small_head
from .unet import UNet, side_multiple

START_SIGMA = 0.012  # reflectance: about what a bicubic image is off by; from far off it is long in coming


@register("aunet-gaussian", label="AUNet (Gaussian)", inputs=("image", "pan"), tasks=("regression",))
class AUNetGaussian(TargetGridNetwork):
    """AUNet with two heads; to be trained with the loss ``gaussian-nll``.

    The variance is a softplus, where the original cuts at zero: there it would have no gradient any more.

    Args:
        spec, depth, up_mode, channels, dropout, residual: see ``SRUNet``.
        attention, channel_attention: see ``AUNet``; the original uses none here.
    """

    def __init__(
        self,
        spec: ModelSpec,
        depth: int = 3,
        up_mode: str = "shuffle",
        channels: int = 64,
        attention: str = "none",
        channel_attention: bool = False,
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__(spec, residual, multiple=side_multiple(depth))
        bands = sum(self.in_channels.values())
        self.unet = UNet(bands, depth, channels, up_mode, attention, channel_attention, dropout)
        self.mean = small_head(convolution(channels, spec.out_channels, 1), residual)
        self.variance = convolution(channels, spec.out_channels, 1)
        nn.init.constant_(self.variance.bias, math.log(math.expm1(START_SIGMA**2)))

    def compute(self, image: Tensor, pan: Tensor) -> GaussianOutput:
        features = self.unet(torch.cat([image, pan], 1))
        return GaussianOutput(self.mean(features), functional.softplus(self.variance(features)) + MIN_VARIANCE)
