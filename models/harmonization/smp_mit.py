"""The U-Net of segmentation-models-pytorch over a Mix Transformer encoder, seven bands in and six out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ..registry import ModelSpec, register
from ..segmentation import STRIDE, EncoderDecoder, five_levels
from .parts import TargetGridNetwork, check_whole, convolution, small_head


class Detail(nn.Module):
    """A skip at full resolution: a convolution of the inputs, joined to the decoder's last features by another."""

    def __init__(self, inputs: int, channels: int, features: int) -> None:
        super().__init__()
        self.find = nn.Sequential(convolution(inputs, channels), nn.PReLU())
        self.join = nn.Sequential(convolution(features + channels, features), nn.PReLU())

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        return self.join(torch.cat([features, self.find(x)], 1))


@register("smp-mit", label="U-Net (MiT)", inputs=("image", "pan"), tasks=("regression",))
class SmpMit(TargetGridNetwork):
    """Mix Transformer (Xie et al. 2021, SegFormer) as the encoder of a U-Net without normalisation in its decoder.

    The encoder begins at a quarter of the resolution and the decoder has no skip above it, so all detail has to pass
    through there. ``detail`` joins a skip of the inputs themselves to the decoder's last features.

    Args:
        spec: 6 channels of ``image``, 1 of ``pan``, 6 bands out.
        encoder: ``mit_b0`` … ``mit_b5``; ``mit_b3`` in the original.
        encoder_weights: what the encoder starts from, ``imagenet`` or None.
        decoder_channels: of the five decoder blocks, deepest first.
        detail: channels of a 3 × 3 convolution of the inputs that is joined to the decoder's last features by another;
            0 as in the original: none.
        residual: the answer is added to the resampled image.

    Raises:
        ConfigError: arguments that make no network.
    """

    def __init__(
        self,
        spec: ModelSpec,
        encoder: str = "mit_b3",
        encoder_weights: str | None = None,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
        detail: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__(spec, residual, multiple=STRIDE)
        five_levels("smp-mit", decoder_channels)
        if not encoder.startswith("mit_b"):
            raise ConfigError(f"smp-mit: no encoder {encoder!r}", hint="there is mit_b0 to mit_b5")
        check_whole("detail", detail, 0, 1024)
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
        self.detail = Detail(bands.in_channels["image"], detail, decoder_channels[-1]) if detail else None

    def compute(self, image: Tensor, pan: Tensor) -> Tensor:
        x = torch.cat([image, pan], 1)
        if self.detail is None:
            return self.body(x)
        net = self.body.net
        return net.segmentation_head(self.detail(x, net.decoder(net.encoder(x))))
