"""GMNet (Luo et al. 2023, doi 10.1080/17538947.2023.2198266): water from three scales, gated, and its two ablations.

Each scale is one image of the same size: the chip (``image``), and the ground of twice and of eight times its width
around the same centre (``image_x2``, ``image_x8``). One encoder serves all three.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InputError
from .registry import ModelSpec, register

SCALES = ("image", "image_x2", "image_x8")
STRIDE = 128  # of the deepest features
# (expanded, out, pooling) of the encoder's five blocks.
ENCODER = ((32, 16, 2), (64, 16, 2), (128, 32, 2), (128, 32, 4), (256, 64, 4))
# (out, enlargement) of the decoders' blocks, deepest first; the fifth has no skip behind it.
DECODER = ((64, 4), (64, 4), (64, 2), (32, 2), (32, 2))
SKIPS = tuple(out for _, out, _ in reversed(ENCODER[:-1]))  # channels of the skips, deepest first
DEEPEST = ENCODER[-1][1]


class Down(nn.Sequential):
    """Average pooling, a 3 × 3 convolution to ``expanded`` channels, depth-wise ones, and 1 × 1 to ``out``."""

    def __init__(self, channels: int, expanded: int, out: int, scale: int) -> None:
        super().__init__(
            nn.AvgPool2d(scale),
            *_conv(channels, expanded, 3),
            *_depthwise(expanded, scale),
            *_conv(expanded, out, 1),
        )


class Up(nn.Sequential):
    """Nearest enlargement, depth-wise convolutions, and a 3 × 3 one to ``out`` channels."""

    def __init__(self, channels: int, out: int, scale: int) -> None:
        super().__init__(nn.Upsample(scale_factor=scale), *_depthwise(channels, scale), *_conv(channels, out, 3))


class Encoder(nn.ModuleList):
    """Features at 1/2, 1/4, 1/8, 1/32 and 1/128 of the image, returned deepest first."""

    def __init__(self, bands: int) -> None:
        widths = [bands, *(out for _, out, _ in ENCODER)]
        super().__init__(Down(width, *block) for width, block in zip(widths, ENCODER, strict=False))

    def forward(self, image: Tensor) -> list[Tensor]:
        features = []
        for block in self:
            image = block(image)
            features.insert(0, image)
        return features


def _conv(channels: int, out: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, kernel, padding=kernel // 2), nn.BatchNorm2d(out), nn.ReLU()]


def _depthwise(channels: int, scale: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(2 if scale == 4 else 1):
        layers += [nn.Conv2d(channels, channels, 3, padding=1, groups=channels), nn.BatchNorm2d(channels), nn.ReLU()]
    return layers


def _decoder(skips: int, blocks: int) -> nn.ModuleList:
    """The first ``blocks`` Ups where each level brings ``skips`` feature maps."""
    width, ups = skips * DEEPEST, []
    for (out, scale), skip in zip(DECODER[:blocks], (*SKIPS, 0), strict=False):
        ups.append(Up(width, out, scale))
        width = out + skips * skip
    return nn.ModuleList(ups)


def centre(features: Tensor) -> Tensor:
    """The central half of a map, enlarged back to its size (nearest): context brought onto the chip's own ground.

    The factor is 2 for the eightfold context too, where 8 would be the geometric one: the released weights were
    trained so.
    """
    height, width = features.shape[-2:]
    rows, columns = max(1, height // 2), max(1, width // 2)
    top, left = (height - rows) // 2, (width - columns) // 2
    return functional.interpolate(features[..., top : top + rows, left : left + columns], size=(height, width))


class _Scales(nn.Module):
    """What the three networks share: padding around the centre to what five poolings need, and cropping back."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.in_channels = spec.in_channels["image"]

    def _padded(self, *images: Tensor) -> list[Tensor]:
        first = images[0].shape
        for image in images:
            if image.shape[1] != self.in_channels:
                raise InputError(f"gmnet was made for {self.in_channels} channels, the image has {image.shape[1]}")
            if image.shape[-2:] != first[-2:]:
                raise InputError(f"chip and context must have one size, found {_size(first)} and {_size(image.shape)}")
        (top, bottom), (left, right) = (_split(-length % STRIDE) for length in first[-2:])
        return [functional.pad(image, (left, right, top, bottom), "replicate") for image in images]


def _split(pixels: int) -> tuple[int, int]:
    return pixels // 2, pixels - pixels // 2


def _size(shape: torch.Size) -> str:
    return f"{shape[-2]} × {shape[-1]}"


def _cropped(logits: Tensor, like: Tensor) -> Tensor:
    height, width = like.shape[-2:]
    top, left = (logits.shape[-2] - height) // 2, (logits.shape[-1] - width) // 2
    return logits[..., top : top + height, left : left + width]


@register("gmnet", label="GMNet", inputs=SCALES)
class GMNet(_Scales):
    """Gated multi-scale network.

    Args:
        spec: channels of ``image`` (those of the contexts are the same) and number of logits.

    With 2 bands it has 899 462 parameters, with 4 bands 900 614. The published counts, 911 174 and 912 326, include
    11 712 in layers that the released network makes and never uses.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.encoder, self.decoder = Encoder(self.in_channels), _decoder(3, 5)
        self.gate_encoder, self.gate_decoder = Encoder(self.in_channels), _decoder(1, 4)
        widths = (DEEPEST, *(out + skip for (out, _), skip in zip(DECODER, SKIPS, strict=False)))
        self.gates = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in widths)
        self.head = nn.Conv2d(DECODER[-1][0], spec.out_channels, 1)

    def forward(self, image: Tensor, image_x2: Tensor, image_x8: Tensor) -> Tensor:
        """Float (B,C,H,W), three times the same size, to logits (B,K,H,W)."""
        low, mid, high = self._padded(image, image_x2, image_x8)
        own = self.gate_encoder(low)
        wider = [centre(m) + o for m, o in zip(self.gate_encoder(mid), own, strict=True)]
        levels = zip(
            self.encoder(low),
            self.encoder(mid),
            self._open(own),
            self.encoder(high),
            self._open(wider),
            strict=True,
        )
        first, *skips = [
            torch.cat([low, centre(mid) * mid_gate, centre(high) * high_gate], 1)
            for low, mid, mid_gate, high, high_gate in levels
        ]
        return _cropped(self.head(_decode(self.decoder, first, skips)), image)

    def _open(self, features: list[Tensor]) -> list[Tensor]:
        """Gates (B,1,h,w) in 0…1 for every level, deepest first."""
        x = features[0]
        gates = [self.gates[0](x).sigmoid()]
        for up, gate, skip in zip(self.gate_decoder, self.gates[1:], features[1:], strict=True):
            x = torch.cat([up(x), skip], 1)
            gates.append(gate(x).sigmoid())
        return gates


@register("gmnet-nogate", label="GMNet without gates", inputs=SCALES)
class GMNetWithoutGates(_Scales):
    """The ablation in which all context passes: GMNet with every gate at 1. Arguments as `GMNet`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.encoder, self.decoder = Encoder(self.in_channels), _decoder(3, 5)
        self.head = nn.Conv2d(DECODER[-1][0], spec.out_channels, 1)

    def forward(self, image: Tensor, image_x2: Tensor, image_x8: Tensor) -> Tensor:
        """Float (B,C,H,W), three times the same size, to logits (B,K,H,W)."""
        low, mid, high = (self.encoder(x) for x in self._padded(image, image_x2, image_x8))
        mid, high = ([centre(x) for x in features] for features in (mid, high))
        # The published ablation joins its scales from low to high at the start and from high to low in the skips.
        first = torch.cat([low[0], mid[0], high[0]], 1)
        skips = [torch.cat(maps, 1) for maps in zip(high[1:], mid[1:], low[1:], strict=True)]
        return _cropped(self.head(_decode(self.decoder, first, skips)), image)


@register("unet-tibet", label="single-scale U-Net")
class TibetUNet(_Scales):
    """The ablation without context: GMNet's encoder and decoder on the chip alone. Arguments as `GMNet`."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.encoder, self.decoder = Encoder(self.in_channels), _decoder(1, 5)
        self.head = nn.Conv2d(DECODER[-1][0], spec.out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Float (B,C,H,W) to logits (B,K,H,W)."""
        first, *skips = self.encoder(*self._padded(image))
        return _cropped(self.head(_decode(self.decoder, first, skips)), image)


def _decode(decoder: nn.ModuleList, x: Tensor, skips: list[Tensor]) -> Tensor:
    for up, skip in zip(decoder, skips, strict=False):
        x = torch.cat([up(x), skip], 1)
    return decoder[-1](x)
