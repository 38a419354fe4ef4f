"""SRUNet, the network of the released harmonization weights (Deep-Harmonization, ISPRS 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import ModelSpec, register
from .parts import TargetGridNetwork, convolution, small_head
from .unet import UNet, side_multiple


@register("srunet", label="SRUNet", inputs=("image", "pan"), tasks=("regression",))
class SRUNet(TargetGridNetwork):
    """A U-Net over image and pan, both resampled to the target grid.

    Args:
        spec: 6 channels of ``image``, 1 of ``pan``, 6 bands out.
        depth: 3 to 6; the released weights have 5 or 6.
        up_mode: ``upconv``, ``upsample`` or ``shuffle``; the released weights have the last two.
        channels: of the first level, doubled at each below; 64 in the released weights.
        dropout: probability at the end of every block; 0.1 for Monte Carlo dropout.
        residual: the answer is added to the resampled image.
        stretch: chips are stretched to the target's size, as the released weights learned it; see ``Harmonizer``.

    Parameters at 64 channels, by depth: see ``tests/models/harmonization/test_networks.py``.
    """

    def __init__(
        self,
        spec: ModelSpec,
        depth: int = 3,
        up_mode: str = "upconv",
        channels: int = 64,
        dropout: float = 0.0,
        residual: bool = False,
        stretch: bool = False,
    ) -> None:
        super().__init__(spec, residual, multiple=side_multiple(depth), stretch=stretch)
        self.unet = UNet(sum(self.in_channels.values()), depth, channels, up_mode, dropout=dropout)
        self.head = small_head(convolution(channels, spec.out_channels, 1), residual)

    def compute(self, image: Tensor, pan: Tensor) -> Tensor:
        return self.head(self.unet(torch.cat([image, pan], 1)))
