"""The U-Net of segmentation-models-pytorch over a Mix Transformer encoder, seven bands in and six out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import ConfigError
from ..registry import ModelSpec, register
from ..segmentation import STRIDE, EncoderDecoder, five_levels
from .parts import TargetGridNetwork, small_head


@register("smp-mit", label="U-Net (MiT)", inputs=("image", "pan"), tasks=("regression",))
class SmpMit(TargetGridNetwork):
    """Mix Transformer (Xie et al. 2021, SegFormer) as the encoder of a U-Net without normalisation in its decoder.

    Args:
        spec: 6 channels of ``image``, 1 of ``pan``, 6 bands out.
        encoder: ``mit_b0`` … ``mit_b5``; ``mit_b3`` in the original.
        encoder_weights: what the encoder starts from, ``imagenet`` or None.
        decoder_channels: of the five decoder blocks, deepest first.
        residual: the answer is added to the resampled image.
    """

    def __init__(
        self,
        spec: ModelSpec,
        encoder: str = "mit_b3",
        encoder_weights: str | None = None,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        residual: bool = False,
    ) -> None:
        super().__init__(spec, residual, multiple=STRIDE)
        five_levels("smp-mit", decoder_channels)
        if not encoder.startswith("mit_b"):
            raise ConfigError(f"smp-mit: no encoder {encoder!r}", hint="there is mit_b0 to mit_b5")
        bands = ModelSpec({"image": sum(self.in_channels.values())}, spec.out_channels)
        self.body = EncoderDecoder(
            "smp-mit",
            "Unet",
            bands,
            encoder,
            encoder_weights,
            decoder_channels=tuple(decoder_channels),
            decoder_use_norm=False,
        )
        small_head(self.body.net.segmentation_head[0], residual)

    def compute(self, image: Tensor, pan: Tensor) -> Tensor:
        return self.body(torch.cat([image, pan], 1))
