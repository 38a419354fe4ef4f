"""U-Net (Ronneberger et al. 2015) with any encoder of segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Sequence

from .registry import ModelSpec, register
from .segmentation import EncoderDecoder, five_levels


@register("unet", label="U-Net", tasks=("segmentation",))
class UNet(EncoderDecoder):
    """Encoder, decoder with skips, 1 × 1 head; takes images of any size.

    Args:
        spec, encoder, encoder_weights: see `EncoderDecoder`; ``tu-convnext_tiny`` is a modern encoder.
        decoder_channels: of the five decoder blocks, deepest first.

    Raises:
        ConfigError: unknown encoder or weights name, not five decoder blocks.
        WeightsError: the encoder's weights cannot be fetched.
    """

    def __init__(
        self,
        spec: ModelSpec,
        encoder: str = "resnet18",
        encoder_weights: str | None = None,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
    ) -> None:
        five_levels("unet", decoder_channels)
        super().__init__("unet", "Unet", spec, encoder, encoder_weights, decoder_channels=tuple(decoder_channels))
