"""Random changes of a batch, on its device: image, mask and validity alike, keyed by (seed, epoch, step)."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import _compat  # noqa: F401
from ..errors import ConfigError


@dataclass(frozen=True)
class AugmentOptions:
    """What ``augment`` may do; 0, False or None leaves a step out.

    Attributes:
        flip: mirror rows and columns, each with probability 1/2.
        rotate90: turn by a multiple of 90 degrees (180 where chips are not square).
        crop: side in pixels of a random square window.
        gain: factor in [1 - gain, 1 + gain], per chip and channel.
        bias: added value in [-bias, bias] (in standard deviations once normalised), per chip and channel.
        gamma: exponent exp(u), u in [-gamma, gamma], on the magnitude of the normalised value, per chip and channel.
        noise: standard deviation, drawn per chip in [0, noise], of Gaussian noise on every value.
    """

    flip: bool = False
    rotate90: bool = False
    crop: int | None = None
    gain: float = 0.0
    bias: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gain", "bias", "gamma", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"must be a number >= 0, found {getattr(self, name)!r}", where=f"augment {name}")
        if self.crop is not None and self.crop < 1:
            raise ConfigError(f"must be a side in pixels or None, found {self.crop!r}", where="augment crop")


def generator(name: str, seed: int, epoch: int, step: int) -> torch.Generator:
    """A CPU generator for one kind of draw: the same for the same key on every machine, device and resumed run."""
    key = np.random.SeedSequence([zlib.crc32(name.encode()), seed % 2**64, epoch, step])
    return torch.Generator().manual_seed(int(key.generate_state(1, np.uint64)[0]))


def augment(
    x: Tensor, mask: Tensor | None, valid: Tensor, *, options: AugmentOptions, seed: int, epoch: int, step: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Augment a batch; geometry alike for image, mask and validity, intensity on valid pixels of the image only.

    Args:
        x: float32 (B, C, H, W), normalised.
        mask: (B, H, W) of any dtype, or None.
        valid: bool (B, H, W).
        options: which steps, how strong.
        seed, epoch, step: the key of every draw. Draws are made on the CPU, each step from a stream of its own, and
            applied on x's device; data-parallel ranks need different steps to get different draws.
    """

    def uniform(name: str, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator(name, seed, epoch, step))

    batch, channels, height, width = x.shape
    planes = [x, valid] if mask is None else [x, valid, mask]
    if options.crop is not None:
        side = options.crop
        if side > min(height, width):
            raise ConfigError(f"{side} is more than the chip's {height}x{width}", where="augment crop")
        rows, columns = (uniform("crop", 2, batch) * torch.tensor([[height - side + 1], [width - side + 1]])).int()
        windows = list(zip(rows.tolist(), columns.tolist(), strict=True))
        planes = [
            torch.stack([p[i, ..., r : r + side, c : c + side] for i, (r, c) in enumerate(windows)]) for p in planes
        ]
    if options.flip:
        for dim, chosen in zip((-1, -2), uniform("flip", 2, batch) < 0.5, strict=True):
            planes = [_where_chip(chosen, plane, plane.flip(dim)) for plane in planes]
    if options.rotate90:
        turns = (uniform("rotate90", batch) * 4).int()
        for count in (1, 2, 3) if planes[0].shape[-1] == planes[0].shape[-2] else (2,):
            planes = [_where_chip(turns == count, plane, torch.rot90(plane, count, (-2, -1))) for plane in planes]
    x, valid, mask = (*planes, None)[:3]
    return _augment_intensity(x, valid, options, uniform, generator("noise", seed, epoch, step)), mask, valid


def _augment_intensity(x: Tensor, valid: Tensor, options: AugmentOptions, uniform, noise: torch.Generator) -> Tensor:
    batch, channels = x.shape[:2]
    changed = x

    def symmetric(name: str) -> Tensor:
        return (uniform(name, batch, channels, 1, 1) * 2 - 1).to(x.device)

    if options.gamma:
        changed = changed.sign() * changed.abs().pow(torch.exp(options.gamma * symmetric("gamma")))
    if options.gain:
        changed = changed * (1 + options.gain * symmetric("gain"))
    if options.bias:
        changed = changed + options.bias * symmetric("bias")
    if options.noise:
        sigma = options.noise * uniform("sigma", batch, 1, 1, 1)
        changed = changed + (torch.randn(x.shape, generator=noise) * sigma).to(x.device)
    return x if changed is x else torch.where(valid[:, None], changed, x)


def _where_chip(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Per chip: ``other`` where ``chosen`` (B,), else ``one``."""
    return torch.where(chosen.to(one.device).view(-1, *[1] * (one.ndim - 1)), other, one)
