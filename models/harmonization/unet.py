"""The U-Net that SRUNet and AUNet are: average pooling, PReLU, no normalisation, attention where asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigError
from .parts import check_whole, convolution

UP_MODES = ("upconv", "upsample", "shuffle")
ATTENTIONS = ("standard", "modified", "none")
DEPTHS = range(2, 8)


class ChannelAttention(nn.Module):
    """Efficient channel attention (Wang et al. 2020, ECA-Net): channels are weighted by what their neighbours hold."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = int(math.log2(channels) / 2 + 1)  # γ = 2 and b = 1, raised to the next odd number
        kernel += 1 - kernel % 2
        self.mix = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.mix(x.mean((2, 3))[:, None]).sigmoid()[:, 0]
        return x * weights[..., None, None]


class AttentionGate(nn.Module):
    """A skip connection weighted per pixel by what the decoder holds there (Oktay et al. 2018, Attention U-Net)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(convolution(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.skip = nn.Sequential(convolution(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.weight = nn.Sequential(
            nn.PReLU(), convolution(channels, 1, 1, bias=False), nn.BatchNorm2d(1), nn.Sigmoid()
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return skip * self.weight(self.gate(x) + self.skip(skip))


class Block(nn.Sequential):
    """Two 3 × 3 convolutions with PReLU, then channel attention and dropout where asked for."""

    def __init__(self, channels: int, out: int, channel_attention: bool, dropout: float) -> None:
        layers: list[nn.Module] = [convolution(channels, out), nn.PReLU(), convolution(out, out), nn.PReLU()]
        if channel_attention:
            layers.append(ChannelAttention(out))
        if dropout:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


class Up(nn.Module):
    """Enlargement by 2, the skip connection, and a block."""

    def __init__(
        self, channels: int, out: int, up_mode: str, attention: str, channel_attention: bool, dropout: float
    ) -> None:
        super().__init__()
        self.enlarge = enlargement(channels, out, up_mode)
        self.gate = None if attention == "none" else AttentionGate(out)
        self.keep_skip = attention == "modified"
        self.block = Block((3 if self.keep_skip else 2) * out, out, channel_attention, dropout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.enlarge(x)
        if self.gate is None:
            joined = [x, skip]
        else:
            joined = [x, skip, self.gate(x, skip)] if self.keep_skip else [x, self.gate(x, skip)]
        return self.block(torch.cat(joined, 1))


def enlargement(channels: int, out: int, up_mode: str) -> nn.Module:
    """``upconv`` a transposed convolution, ``upsample`` bilinear and 1 × 1, ``shuffle`` sub-pixel convolution."""
    if up_mode == "upconv":
        return nn.ConvTranspose2d(channels, out, 2, stride=2)
    if up_mode == "upsample":
        return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), convolution(channels, out, 1))
    return nn.Sequential(convolution(channels, 4 * out), nn.PReLU(), nn.PixelShuffle(2), convolution(out, out))


class UNet(nn.Module):
    """Encoder of ``depth`` blocks and decoder of one fewer; (B,C,H,W) to features (B,channels,H,W).

    Args:
        inputs: channels of the input.
        depth: blocks of the encoder, 2 to 7; see ``side_multiple``.
        channels: of the first block; each level below has twice as many.
        up_mode: ``upconv``, ``upsample`` or ``shuffle``.
        attention: on the skips: ``standard``, ``modified`` (the skip itself passes as well) or ``none``.
        channel_attention: at the end of every block.
        dropout: probability at the end of every block.

    Raises:
        ConfigError: an argument that is none of these.
    """

    def __init__(
        self,
        inputs: int,
        depth: int,
        channels: int,
        up_mode: str,
        attention: str = "none",
        channel_attention: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value, valid in (("up_mode", up_mode, UP_MODES), ("attention", attention, ATTENTIONS)):
            if value not in valid:
                raise ConfigError(f"no {name} {value!r}", where="MODEL.ARGS", hint=f"there is {', '.join(valid)}")
        check_width(channels)
        check_dropout(dropout)
        widths = [channels << level for level in range(depth)]
        more = (channel_attention, dropout)
        self.encoder = nn.ModuleList(
            Block(before, width, *more) for before, width in zip([inputs, *widths], widths, strict=False)
        )
        self.decoder = nn.ModuleList(Up(2 * width, width, up_mode, attention, *more) for width in reversed(widths[:-1]))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.encoder[:-1]:
            skips.append(block(x))
            x = functional.avg_pool2d(skips[-1], 2)
        x = self.encoder[-1](x)
        for up, skip in zip(self.decoder, reversed(skips), strict=True):
            x = up(x, skip)
        return x


def side_multiple(depth: int) -> int:
    """What the sides must be multiples of. Raises ConfigError for a depth that is not 2 to 7."""
    if isinstance(depth, bool) or depth not in DEPTHS:
        raise ConfigError(f"depth must be {DEPTHS[0]} to {DEPTHS[-1]}, found {depth!r}", where="MODEL.ARGS")
    return 1 << (depth - 1)


def check_width(channels: int) -> None:
    """Raises ConfigError unless ``channels`` is a whole number from 1 to 1024."""
    check_whole("channels", channels, 1, 1024)


def check_dropout(dropout: float) -> None:
    """Raises ConfigError unless ``dropout`` is a probability below 1."""
    if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise ConfigError(f"dropout must lie in 0 … 1, below 1, found {dropout!r}", where="MODEL.ARGS")
