"""AUNet: the harmonization U-Net with attention on its skips and over its channels (Deep-Harmonization, ISPRS 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import ModelSpec, register
from .parts import TargetGridNetwork, convolution, small_head
from .unet import UNet, side_multiple


@register("aunet", label="AUNet", inputs=("image", "pan"), tasks=("regression",))
class AUNet(TargetGridNetwork):
    """A U-Net over image and pan, both resampled to the target grid, with attention.

    Args:
        spec, depth, up_mode, channels, dropout, residual: see ``SRUNet``.
        attention: on the skips: ``standard`` (gated), ``modified`` (gated and as it is) or ``none``.
        channel_attention: efficient channel attention at the end of every block.
    """

    def __init__(
        self,
        spec: ModelSpec,
        depth: int = 3,
        up_mode: str = "shuffle",
        channels: int = 64,
        attention: str = "standard",
        channel_attention: bool = True,
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__(spec, residual, multiple=side_multiple(depth))
        bands = sum(self.in_channels.values())
        self.unet = UNet(bands, depth, channels, up_mode, attention, channel_attention, dropout)
        self.head = small_head(convolution(channels, spec.out_channels, 1), residual)

    def compute(self, image: Tensor, pan: Tensor) -> Tensor:
        return self.head(self.unet(torch.cat([image, pan], 1)))
