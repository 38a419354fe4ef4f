"""PanFusion: the generator that works on Landsat's own grids and enlarges at its end (Deep-Harmonization 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import ModelSpec, register
from .harmonizer import NATIVE_SCALE, PAN_SCALE
from .parts import channels_of, check_inputs, convolution, small_head
from .unet import check_width

SLOPE = 0.1  # of the leaky ReLUs


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside the identity, behind an activation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            *_normalised(channels, channels),
            nn.ReLU(),
            *_normalised(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


@register("panfusion", label="PanFusion", inputs=("image", "pan"), tasks=("regression",))
class PanFusion(nn.Module):
    """Encoders of image and pan at 30 m, residual blocks, and enlargement to 10 m.

    Args:
        spec: 6 channels of ``image``, 1 of ``pan``, 6 bands out.
        channels: of the first layers, 32 in the original; the others have 2, 4 and 8 times as many.
        blocks: residual blocks.
        residual: the answer is added to the resampled image.
    """

    grid = "native"

    def __init__(self, spec: ModelSpec, channels: int = 32, blocks: int = 3, residual: bool = False) -> None:
        super().__init__()
        check_width(channels)
        self.in_channels, self.residual = channels_of(spec, residual), residual
        self.image = _encoder(self.in_channels["image"], channels, stride=1)
        self.pan = _encoder(self.in_channels["pan"], channels, stride=PAN_SCALE)
        self.fuse = nn.Sequential(
            *(ResidualBlock(8 * channels) for _ in range(blocks)),
            nn.LeakyReLU(SLOPE),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            *_normalised(8 * channels, 4 * channels),
            nn.LeakyReLU(SLOPE),
            nn.Upsample(scale_factor=NATIVE_SCALE / 2, mode="bilinear"),
            *_normalised(4 * channels, 2 * channels),
            nn.LeakyReLU(SLOPE),
        )
        self.head = small_head(convolution(2 * channels, spec.out_channels, 7), residual)

    def forward(self, image: Tensor, pan: Tensor) -> Tensor:
        """float32 reflectance (B,6,h,w) and (B,1,2h,2w) on one origin to (B,6,3h,3w)."""
        check_inputs(image, pan, self.in_channels, PAN_SCALE)
        return self.head(self.fuse(torch.cat([self.image(image), self.pan(pan)], 1)))


def _encoder(bands: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *_normalised(bands, channels, 7),
        nn.LeakyReLU(SLOPE),
        *_normalised(channels, 2 * channels, stride=stride),
        nn.LeakyReLU(SLOPE),
        *_normalised(2 * channels, 4 * channels),
    )


def _normalised(channels: int, out: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    # Batch normalisation subtracts the mean, and with it any bias.
    layer = nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False)
    return [layer, nn.BatchNorm2d(out)]
