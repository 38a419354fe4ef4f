"""MB-RRDB: residual-dense blocks in two branches, image and pan, whose features are fused (Deep-Harmonization 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigError
from ..registry import ModelSpec, register
from .parts import GuidedOutput, TargetGridNetwork, convolution, small_head
from .unet import check_width

BLOCKS = 3


class DenseBlock(nn.Module):
    """Convolutions that each see all before them, compressed by a 1 × 1 without bias."""

    def __init__(self, channels: int, out: int, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(convolution(channels + i * growth, growth) for i in range(layers))
        self.compress = convolution(channels + layers * growth, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x).relu()], 1)
        return self.compress(x)


class Branch(nn.Module):
    """A convolution and three dense blocks, each on all features so far; returns the four of them side by side."""

    def __init__(self, bands: int, channels: int, layers: int, growth: int) -> None:
        super().__init__()
        self.first = convolution(bands, channels)
        self.blocks = nn.ModuleList(DenseBlock((i + 1) * channels, channels, layers, growth) for i in range(BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for block in self.blocks:
            x = torch.cat([x, block(x)], 1)
        return x


@register("mb-rrdb", label="MB-RRDB", inputs=("image", "pan"), tasks=("regression",))
class MBRRDB(TargetGridNetwork):
    """Two branches of residual-dense blocks, both inputs resampled to the target grid.

    Args:
        spec: 6 channels of ``image``, 1 of ``pan``, 6 bands out.
        channels: of each feature map, 6 in the original.
        layers: of each dense block.
        growth: channels that each layer adds.
        pan_output: in training the pan branch also answers the pan itself; the loss compares the high-pass of both, so
            that the branch keeps the detail it is there for.
        residual: the answer is added to the resampled image.
    """

    def __init__(
        self,
        spec: ModelSpec,
        channels: int = 6,
        layers: int = 6,
        growth: int = 12,
        pan_output: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__(spec, residual)
        check_width(channels)
        if not 1 <= layers <= 32 or not 1 <= growth <= 256:
            raise ConfigError(
                f"layers must be 1 to 32 and growth 1 to 256, found {layers} and {growth}", where="MODEL.ARGS"
            )
        bands = self.in_channels
        self.image = Branch(bands["image"], channels, layers, growth)
        self.pan = Branch(bands["pan"], channels, layers, growth)
        features = (BLOCKS + 1) * channels
        self.head = small_head(convolution(2 * features, spec.out_channels, 1), residual)
        self.pan_head = convolution(features, bands["pan"], 1, bias=False) if pan_output else None

    def compute(self, image: Tensor, pan: Tensor) -> Tensor | GuidedOutput:
        of_image, of_pan = self.image(image), self.pan(pan)
        mean = self.head(torch.cat([of_image, of_pan], 1))
        if self.pan_head is None or not self.training:
            return mean
        return GuidedOutput(mean, high_pass(self.pan_head(of_pan)), high_pass(pan))


def high_pass(x: Tensor) -> Tensor:
    """(B,1,H,W) minus the mean of its eight neighbours, times 8; 0 where a constant image is constant, edges too."""
    kernel = x.new_full((1, 1, 3, 3), -1.0)
    kernel[..., 1, 1] = 8.0
    return functional.conv2d(functional.pad(x, (1, 1, 1, 1), "replicate"), kernel)
