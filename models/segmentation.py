"""Networks of segmentation-models-pytorch: DeepLabV3+, HRNet and SegFormer, and what they share with the U-Net."""

from __future__ import annotations

from .. import _compat  # noqa: F401  isort: skip - before segmentation_models_pytorch
import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..errors import ConfigError, InputError, WeightsError
from .registry import ModelSpec, register

STRIDE = 32  # of the deepest features of every encoder


class EncoderDecoder(nn.Module):
    """One of the library's networks for images of any size and number of bands.

    Args:
        name: of the registered model, for messages.
        kind: name of the library's class, such as ``Unet``.
        spec: channels of ``image`` and number of logits.
        encoder: a name of ``smp.encoders.get_encoder_names()``, or ``tu-<name>`` for any of timm's.
        encoder_weights: what the encoder starts from, e.g. ``imagenet`` (fetched once by huggingface_hub;
            the first layer is adapted to the number of bands); None: random.
        more: further arguments of the class.

    Raises:
        ConfigError: unknown encoder or weights name, or arguments that make no network.
        WeightsError: the encoder's weights cannot be fetched.
    """

    def __init__(
        self, name: str, kind: str, spec: ModelSpec, encoder: str, encoder_weights: str | None, **more: Any
    ) -> None:
        super().__init__()
        self.name, self.in_channels = name, spec.in_channels["image"]
        self.net = _build(name, kind, encoder, encoder_weights, self.in_channels, spec.out_channels, more)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Float (B,C,H,W) to logits (B,K,H,W); sides are padded to a multiple of 32 and cropped back."""
        if image.shape[1] != self.in_channels:
            raise InputError(f"{self.name} was made for {self.in_channels} channels, the image has {image.shape[1]}")
        height, width = image.shape[-2:]
        return self.net(pad_to_multiple(image, STRIDE))[..., :height, :width]


@register("deeplabv3plus", label="DeepLabV3+")
class DeepLabV3Plus(EncoderDecoder):
    """Atrous pyramid over an encoder's deepest features (Chen et al. 2018).

    Args:
        spec, encoder, encoder_weights: see `EncoderDecoder`; MobileNetV2 as in GMNet's published comparison.
        decoder_channels: of the pyramid and the decoder.
    """

    def __init__(
        self,
        spec: ModelSpec,
        encoder: str = "mobilenet_v2",
        encoder_weights: str | None = None,
        decoder_channels: int = 256,
    ) -> None:
        super().__init__(
            "deeplabv3plus", "DeepLabV3Plus", spec, encoder, encoder_weights, decoder_channels=decoder_channels
        )


@register("hrnet", label="HRNet")
class HRNet(EncoderDecoder):
    """High-resolution encoder (Wang et al. 2020), whose four resolutions are joined by a decoder with skips.

    Args:
        spec, encoder, encoder_weights: see `EncoderDecoder`; the encoder is one of timm's HRNets.
        decoder_channels: of the five decoder blocks, deepest first.
    """

    def __init__(
        self,
        spec: ModelSpec,
        encoder: str = "tu-hrnet_w18",
        encoder_weights: str | None = None,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
    ) -> None:
        five_levels("hrnet", decoder_channels)
        super().__init__("hrnet", "Unet", spec, encoder, encoder_weights, decoder_channels=tuple(decoder_channels))


@register("segformer", label="SegFormer")
class SegFormer(EncoderDecoder):
    """Hierarchical transformer with a decoder of plain linear layers (Xie et al. 2021).

    Args:
        spec, encoder, encoder_weights: see `EncoderDecoder`; ``mit_b0`` … ``mit_b5``.
        decoder_channels: of the decoder.
    """

    def __init__(
        self,
        spec: ModelSpec,
        encoder: str = "mit_b0",
        encoder_weights: str | None = None,
        decoder_channels: int = 256,
    ) -> None:
        super().__init__(
            "segformer", "Segformer", spec, encoder, encoder_weights, decoder_segmentation_channels=decoder_channels
        )


def five_levels(name: str, decoder_channels: Sequence[int]) -> None:
    """Raises ConfigError unless there is a width for each of a U-Net's five decoder blocks."""
    if len(decoder_channels) != 5:
        raise ConfigError(f"{name}: {len(decoder_channels)} decoder_channels, expected one for each of 5 levels")


def pad_to_multiple(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Extend the lower and right edges to a multiple: mirrored, or repeated where the image is too small for that."""
    height, width = image.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not down and not right:
        return image
    return functional.pad(image, (0, right, 0, down), "reflect" if down < height and right < width else "replicate")


def _build(
    name: str, kind: str, encoder: str, weights: str | None, channels: int, classes: int, more: dict[str, Any]
) -> nn.Module:
    import segmentation_models_pytorch as smp

    if not isinstance(encoder, str) or ":" in encoder:  # timm would ask the Hub, or read another folder
        raise ConfigError(f"{name}: an encoder is a name without a colon, found {encoder!r}")
    names = smp.encoders.get_encoder_names()
    if encoder not in names and not encoder.startswith("tu-"):
        close = difflib.get_close_matches(encoder, names, n=3, cutoff=0.3)
        raise ConfigError(
            f"{name}: no encoder {encoder!r}",
            hint=f"did you mean {' or '.join(close) or 'resnet18'}? timm's are named tu-<name>",
        )
    try:
        return getattr(smp, kind)(encoder, encoder_weights=weights, in_channels=channels, classes=classes, **more)
    except KeyError as error:
        raise ConfigError(f"{name}: {str(error.args[0]).strip()}") from None
    except Exception as error:
        if weights is None:  # a timm name that does not exist, widths that make no layer
            raise ConfigError(
                f"{name}: the encoder {encoder!r} cannot be made ({type(error).__name__}: {error})"
            ) from None
        raise WeightsError(
            f"cannot fetch the {weights} weights of {encoder} ({type(error).__name__})",
            hint="check the network (or HF_HUB_OFFLINE), or leave MODEL.ARGS.encoder_weights out to "
            "start from random weights",
        ) from None
