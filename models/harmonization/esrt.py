"""ESRT: high-preserving blocks and an efficient transformer (Lu et al. 2022, doi 10.1109/CVPRW56347.2022.00061)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ConfigError
from ..registry import ModelSpec, register
from .parts import TargetGridNetwork, check_whole, convolution, small_head
from .unet import check_width

POOLED_ROUNDS = 5  # of the shared block at half size
KERNEL = 3  # of the transformer's patches
SPLITS = 4  # parts of the image within which attention looks; more where they may not be as large
MAX_PART_PIXELS = 1 << 20
REDUCTION = 4  # of squeeze and excitation


class ResidualUnit(nn.Module):
    """A narrow pair of 1 × 1 convolutions beside the identity, both with a learned weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(convolution(channels, channels // 2, 1), convolution(channels // 2, channels, 1))
        self.weights = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.weights[0] * x + self.weights[1] * self.branch(x)


class AdaptiveResidualBlock(nn.Module):
    """Two residual units whose results are fused, beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = ResidualUnit(channels), ResidualUnit(channels)
        self.fuse = nn.Sequential(
            convolution(2 * channels, 2 * channels, 1), nn.ReLU(), convolution(2 * channels, channels)
        )
        self.weights = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        fused = self.fuse(torch.cat([first, self.second(first)], 1))
        return self.weights[0] * x + self.weights[1] * fused


class HighPreservingBlock(nn.Module):
    """Works at half size and adds what the halving lost: x - enlarged(halved(x))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.pooled, self.last = (AdaptiveResidualBlock(channels) for _ in range(3))
        self.detail = AdaptiveResidualBlock(channels)
        self.fuse = convolution(2 * channels, channels, 1)
        narrow = max(1, channels // REDUCTION)
        self.excite = nn.Sequential(
            convolution(channels, narrow, 1), nn.PReLU(), convolution(narrow, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        before = self.first(x)
        pooled = functional.avg_pool2d(before, 2)
        detail = self.detail(before - functional.interpolate(pooled, scale_factor=2))
        for _ in range(POOLED_ROUNDS):
            pooled = self.pooled(pooled)
        pooled = functional.interpolate(pooled, scale_factor=2, mode="bilinear")
        fused = self.fuse(torch.cat([pooled, detail], 1))
        return x + self.last(fused * self.excite(fused.mean((2, 3), keepdim=True)))


class EfficientTransformer(nn.Module):
    """Attention between the 3 × 3 patches of every pixel, within each quarter of the rows, then a small perceptron.

    Where a quarter has more than ``part_pixels`` pixels, the rows are cut into more parts, as large as that or smaller.
    """

    def __init__(self, channels: int, heads: int, hidden: int, part_pixels: int | None = None) -> None:
        super().__init__()
        width, self.heads, self.part_pixels = channels * KERNEL * KERNEL, heads, part_pixels
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.reduce = nn.Linear(width, width // 2)
        # A key's bias moves all scores of a query alike, which softmax does not see.
        self.qkv = nn.Linear(width // 2, 3 * (width // 2), bias=False)
        self.expand = nn.Linear(width // 2, width)
        self.perceptron = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        tokens = functional.unfold(x, KERNEL, padding=KERNEL // 2).mT
        tokens = tokens + self._attend(self.before(tokens))
        tokens = tokens + self.perceptron(self.after(tokens))
        # The sum over overlapping patches, as a mean: it keeps the scale that the layers after it start from.
        return functional.fold(tokens.mT / KERNEL**2, size, KERNEL, padding=KERNEL // 2)

    def _attend(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(self.reduce(tokens))
        pixels = qkv.shape[1]
        length = part_length(pixels, self.part_pixels)
        whole = pixels - pixels % length
        found = self._within(qkv[:, :whole].reshape(-1, length, qkv.shape[2])).reshape(len(qkv), whole, -1)
        if whole < pixels:
            found = torch.cat([found, self._within(qkv[:, whole:])], 1)
        return self.expand(found)

    def _within(self, qkv: Tensor) -> Tensor:
        """Attention of each row of the batch to itself: (B, pixels, 3 · width) to (B, pixels, width)."""
        parts = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
        return functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)


def part_length(pixels: int, limit: int | None) -> int:
    """How many of an image's pixels look at each other: a quarter of them, or fewer where there is a limit."""
    quarter = -(-pixels // SPLITS)
    return quarter if limit is None else min(quarter, limit)


@register("esrt", label="ESRT", inputs=("image", "pan"), tasks=("regression",))
class ESRT(TargetGridNetwork):
    """A light convolutional backbone with one transformer, both inputs resampled to the target grid.

    The enlargement of the paper falls away, since the inputs have the target's size.

    Args:
        spec: 6 channels of ``image``, 1 of ``pan``, 6 bands out.
        channels: of the features, an even number whose nine-fold half the heads divide.
        blocks: high-preserving blocks; the original has as many as input bands.
        heads: of the attention.
        hidden: width of the transformer's perceptron.
        part_pixels: at most so many pixels look at each other, so that what a crop has taught holds for a larger image,
            whose cost then grows with its pixels and not with their square. None: a quarter of the image, as published.
        residual: the answer is added to the resampled image.

    Raises:
        ConfigError: a number out of its range, or channels that the heads do not divide.
    """

    def __init__(
        self,
        spec: ModelSpec,
        channels: int = 32,
        blocks: int = 7,
        heads: int = 4,
        hidden: int = 128,
        part_pixels: int | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__(spec, residual, multiple=2)
        check_width(channels)
        for name, value, most in (("blocks", blocks, 64), ("heads", heads, 64), ("hidden", hidden, 8192)):
            check_whole(name, value, 1, most)
        if part_pixels is not None:
            check_whole("part_pixels", part_pixels, 1, MAX_PART_PIXELS)
        if channels % 2 or (channels * KERNEL * KERNEL // 2) % heads:
            raise ConfigError(f"{heads} heads do not divide {channels} channels", hint="take 16 or 32 and 4")
        self.first = convolution(sum(self.in_channels.values()), channels)
        self.deep = nn.Sequential(
            *(HighPreservingBlock(channels) for _ in range(blocks)),
            EfficientTransformer(channels, heads, hidden, part_pixels),
            convolution(channels, channels),
            nn.PReLU(),
        )
        self.deep_head, self.shallow_head = (
            small_head(convolution(channels, spec.out_channels), residual) for _ in range(2)
        )

    def compute(self, image: Tensor, pan: Tensor) -> Tensor:
        x = self.first(torch.cat([image, pan], 1))
        return self.deep_head(self.deep(x)) + self.shallow_head(x)
