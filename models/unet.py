"""U-Net (Ronneberger et al. 2015) with any encoder of segmentation-models-pytorch."""

from __future__ import annotations

from .. import _compat  # noqa: F401  isort: skip - before segmentation_models_pytorch
import difflib
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ..errors import ConfigError, InputError, WeightsError
from .registry import ModelSpec, register


@register("unet", label="U-Net", tasks=("segmentation",))
class UNet(nn.Module):
    """Encoder, decoder with skips, 1 × 1 head; takes images of any size.

    Args:
        spec: channels of ``image`` and number of logits.
        encoder: a name of ``smp.encoders.get_encoder_names()``, or ``tu-<name>`` for any of timm's.
        encoder_weights: what the encoder starts from, e.g. ``imagenet`` (fetched once by huggingface_hub;
            the first layer is adapted to the number of bands); None: random.
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
        super().__init__()
        self.in_channels = spec.in_channels["image"]
        if len(decoder_channels) != 5:
            raise ConfigError(f"unet: {len(decoder_channels)} decoder_channels, expected one for each of 5 levels")
        self.net = _build(encoder, encoder_weights, decoder_channels, self.in_channels, spec.out_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Float (B,C,H,W) to logits (B,K,H,W); sides are padded to a multiple of 32 and cropped back."""
        if image.shape[1] != self.in_channels:
            raise InputError(f"unet was made for {self.in_channels} channels, the image has {image.shape[1]}")
        height, width = image.shape[-2:]
        return self.net(pad_to_multiple(image, 32))[..., :height, :width]


def pad_to_multiple(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Extend the lower and right edges to a multiple: mirrored, or repeated where the image is too small for that."""
    height, width = image.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not down and not right:
        return image
    return functional.pad(image, (0, right, 0, down), "reflect" if down < height and right < width else "replicate")


def _build(encoder: str, weights: str | None, widths: Sequence[int], channels: int, classes: int) -> nn.Module:
    import segmentation_models_pytorch as smp

    names = smp.encoders.get_encoder_names()
    if encoder not in names and not encoder.startswith("tu-"):
        close = difflib.get_close_matches(encoder, names, n=3, cutoff=0.3)
        raise ConfigError(
            f"unet: no encoder {encoder!r}",
            hint=f"did you mean {' or '.join(close) or 'resnet18'}? timm's are named tu-<name>",
        )
    try:
        return smp.Unet(
            encoder, encoder_weights=weights, decoder_channels=tuple(widths), in_channels=channels, classes=classes
        )
    except KeyError as error:
        raise ConfigError(f"unet: {str(error.args[0]).strip()}") from None
    except Exception as error:
        if weights is None:  # a timm name that does not exist, widths that make no layer
            raise ConfigError(
                f"unet: the encoder {encoder!r} cannot be made ({type(error).__name__}: {error})"
            ) from None
        raise WeightsError(
            f"cannot fetch the {weights} weights of {encoder} ({type(error).__name__})",
            hint="check the network (or HF_HUB_OFFLINE), or leave MODEL.ARGS.encoder_weights out to "
            "start from random weights",
        ) from None
