"""Random changes of a batch, on its device: image, context and mask alike, keyed by (seed, epoch, step)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import _compat  # noqa: F401
from ..errors import ConfigError
from .context import context_scale

SHARES = ("probability", "band_drop", "lines", "regions", "orbits")
# As published for GMNet (img_aug.py of Tibet-Water-2020): a line is 1 to 3 pixels wide and at least 50 long, a region
# at most a quarter of the side, an orbit's gap at least 100 pixels.
LINE_WIDTH_PX, LINE_LENGTH_PX, REGION_SIDE, ORBIT_GAP_PX = (1, 3), 50, 0.25, 100


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
        probability: with which each of gain, bias, gamma and noise touches a chip.
        band_drop: probability that a channel of a chip is 0 everywhere; one channel always stays.
        lines: probability that a chip has a line without data.
        regions: probability that a chip has a rectangle without data.
        orbits: probability that a chip has a rectangle, perhaps all of it, in which one orbit's bands have no data.

    What is dropped is 0, as pixels without data are; labels stay, so that a network learns to do without.
    """

    flip: bool = False
    rotate90: bool = False
    crop: int | None = None
    gain: float = 0.0
    bias: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    probability: float = 1.0
    band_drop: float = 0.0
    lines: float = 0.0
    regions: float = 0.0
    orbits: float = 0.0

    def __post_init__(self) -> None:
        for name in ("gain", "bias", "gamma", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"must be a number >= 0, found {getattr(self, name)!r}", where=f"augment {name}")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"must be a share of 0 to 1, found {getattr(self, name)!r}", where=f"augment {name}")
        if self.crop is not None and self.crop < 1:
            raise ConfigError(f"must be a side in pixels or None, found {self.crop!r}", where="augment crop")


def generator(name: str, seed: int, epoch: int, step: int) -> torch.Generator:
    """A CPU generator for one kind of draw: the same for the same key on every machine, device and resumed run."""
    key = np.random.SeedSequence([zlib.crc32(name.encode()), seed % 2**64, epoch, step])
    return torch.Generator().manual_seed(int(key.generate_state(1, np.uint64)[0]))


class _Draws:
    """Every kind of draw of one step has a stream of its own, so that one option does not move another's."""

    def __init__(self, seed: int, epoch: int, step: int) -> None:
        self.key = (seed, epoch, step)

    def generator(self, name: str) -> torch.Generator:
        return generator(name, *self.key)

    def uniform(self, name: str, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator(name))


def augment(
    images: Mapping[str, Tensor],
    known: Mapping[str, Tensor],
    mask: Tensor | None,
    *,
    options: AugmentOptions,
    seed: int,
    epoch: int,
    step: int,
    orbits: Sequence[Sequence[int]] = (),
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
    """Augment a batch; geometry alike for images, known pixels and mask, intensity on known pixels only.

    Args:
        images: float32 (B, C, H, W), normalised: ``image`` and, where the model takes them, its contexts, whose centre
            and number of pixels are the image's. Gain, bias, gamma, dropped bands, lines and orbits are the same
            ground's in all of them; noise and regions are drawn for each.
        known: bool (B, H, W) or (B, C, H, W) for each image: where it has data.
        mask: (B, H, W) of any dtype, or None.
        options: which steps, how strong.
        seed, epoch, step: the key of every draw. Draws are made on the CPU, each step from a stream of its own, and
            applied on the device; data-parallel ranks need different steps to get different draws.
        orbits: channels of each orbit, for ``options.orbits``.

    Raises:
        ConfigError: a crop larger than the chip, or of a chip with context, or orbits to drop where there are none.
    """
    draws, names = _Draws(seed, epoch, step), list(images)
    planes = [*images.values(), *(known[name] for name in names), *([] if mask is None else [mask])]
    planes = _geometry(planes, options, draws, len(names) > 1)
    found = dict(zip(names, planes, strict=False))
    known = dict(zip(names, planes[len(names) :], strict=False))
    mask = None if mask is None else planes[-1]
    found = {name: _intensity(name, x, known[name], options, draws) for name, x in found.items()}
    return {name: _drop(name, x, options, draws, orbits) for name, x in found.items()}, known, mask


def _geometry(planes: list[Tensor], options: AugmentOptions, draws: _Draws, wider: bool) -> list[Tensor]:
    batch, height, width = len(planes[0]), *planes[0].shape[-2:]
    if options.crop is not None:
        side = options.crop
        if side > min(height, width):
            raise ConfigError(f"{side} is more than the chip's {height}x{width}", where="augment crop")
        if wider:
            raise ConfigError("a crop would leave its context's centre", where="augment crop", hint="set it to 0")
        scale = torch.tensor([[height - side + 1], [width - side + 1]])
        rows, columns = (draws.uniform("crop", 2, batch) * scale).int()
        windows = list(zip(rows.tolist(), columns.tolist(), strict=True))
        planes = [
            torch.stack([p[i, ..., r : r + side, c : c + side] for i, (r, c) in enumerate(windows)]) for p in planes
        ]
    if options.flip:
        for dim, chosen in zip((-1, -2), draws.uniform("flip", 2, batch) < 0.5, strict=True):
            planes = [_where_chip(chosen, plane, plane.flip(dim)) for plane in planes]
    if options.rotate90:
        turns = (draws.uniform("rotate90", batch) * 4).int()
        for count in (1, 2, 3) if planes[0].shape[-1] == planes[0].shape[-2] else (2,):
            planes = [_where_chip(turns == count, plane, torch.rot90(plane, count, (-2, -1))) for plane in planes]
    return planes


def _intensity(input_name: str, x: Tensor, known: Tensor, options: AugmentOptions, draws: _Draws) -> Tensor:
    batch, channels = x.shape[:2]
    changed = x
    own = "" if input_name == "image" else f" {input_name}"

    def symmetric(name: str) -> Tensor:
        return (draws.uniform(name, batch, channels, 1, 1) * 2 - 1).to(x.device)

    def some(name: str, after: Tensor) -> Tensor:
        if options.probability == 1:
            return after
        return _where_chip(draws.uniform(f"some {name}", batch) < options.probability, changed, after)

    if options.gamma:
        exponent = torch.exp(options.gamma * symmetric("gamma"))
        changed = some("gamma", changed.sign() * changed.abs().pow(exponent))
    if options.gain:
        changed = some("gain", changed * (1 + options.gain * symmetric("gain")))
    if options.bias:
        changed = some("bias", changed + options.bias * symmetric("bias"))
    if options.noise:
        sigma = options.noise * draws.uniform(f"sigma{own}", batch, 1, 1, 1)
        noise = torch.randn(x.shape, generator=draws.generator(f"noise{own}")) * sigma
        changed = some("noise", changed + noise.to(x.device))
    return x if changed is x else torch.where(known if known.ndim == 4 else known[:, None], changed, x)


def _drop(name: str, x: Tensor, options: AugmentOptions, draws: _Draws, orbits: Sequence[Sequence[int]]) -> Tensor:
    batch, channels, height, width = x.shape
    gone = torch.zeros((batch, channels, 1, 1), dtype=torch.bool)
    if options.band_drop:
        chance = draws.uniform("band_drop", batch, channels)
        stays = draws.uniform("band_stays", batch, channels).argmax(1, keepdim=True)
        gone = ((chance < options.band_drop) & (torch.arange(channels) != stays))[..., None, None]
    if options.lines:
        gone = gone | _line(draws, options.lines, batch, height, width, context_scale(name) or 1)[:, None]
    if options.regions:
        chosen = draws.uniform(f"regions {name}", 5, batch)
        rows, columns = (REGION_SIDE * side * chosen[i] for i, side in ((1, height), (2, width)))
        hole = _rectangle(chosen[3] * (height - rows), rows, chosen[4] * (width - columns), columns, height, width)
        gone = gone | (hole & (chosen[0] < options.regions).view(-1, 1, 1))[:, None]
    if options.orbits:
        gone = gone | _orbit(draws, options.orbits, x.shape, orbits, context_scale(name) or 1)
    return torch.where(gone.to(x.device), 0.0, x) if gone.any() else x


def _line(draws: _Draws, share: float, batch: int, height: int, width: int, scale: int) -> Tensor:
    """bool (B,H,W): a straight gap of ground, the same at every scale, at least one pixel wide in each."""
    chosen = draws.uniform("lines", 6, batch).view(6, batch, 1, 1)
    rows, columns = _ground(height, scale).view(1, -1, 1), _ground(width, scale).view(1, 1, -1)
    angle = chosen[1] * torch.pi
    down, right = rows - (chosen[2] - 0.5) * height, columns - (chosen[3] - 0.5) * width
    along = right * angle.cos() + down * angle.sin()
    across = right * angle.sin() - down * angle.cos()
    length = LINE_LENGTH_PX + chosen[4] * (max(height, width) - LINE_LENGTH_PX)
    thick = LINE_WIDTH_PX[0] + chosen[5] * (LINE_WIDTH_PX[1] - LINE_WIDTH_PX[0])
    inside = (along.abs() <= length / 2) & (across.abs() <= thick.clamp(min=scale) / 2)
    return inside & (chosen[0] < share)


def _orbit(draws: _Draws, share: float, shape: torch.Size, orbits: Sequence[Sequence[int]], scale: int) -> Tensor:
    """bool (B,C,H,W): a gap of ground in the bands of one orbit, the same at every scale."""
    if len(orbits) < 2:
        raise ConfigError("there are no bands of two orbits", where="augment orbits", hint="set it to 0")
    batch, channels, height, width = shape
    chosen = draws.uniform("orbits", 6, batch)
    sides = [min(1.0, ORBIT_GAP_PX / side) for side in (height, width)]
    spans = [
        (least + (1 - least) * chosen[2 + i]) * side
        for i, (least, side) in enumerate(zip(sides, shape[2:], strict=True))
    ]
    starts = [chosen[4 + i] * (side - span) for i, (span, side) in enumerate(zip(spans, shape[2:], strict=True))]
    # From pixels of the chip to pixels of this scale, around the common centre.
    spans_here = [span / scale for span in spans]
    starts_here = [(start - side / 2) / scale + side / 2 for start, side in zip(starts, shape[2:], strict=True)]
    hole = _rectangle(starts_here[0], spans_here[0], starts_here[1], spans_here[1], height, width)
    hole &= (chosen[0] < share).view(-1, 1, 1)
    which = (chosen[1] * len(orbits)).long().tolist()
    bands = torch.tensor([[channel in orbits[orbit] for channel in range(channels)] for orbit in which])
    return hole[:, None] & bands[:, :, None, None]


def _ground(pixels: int, scale: int) -> Tensor:
    """Distance of every pixel's middle from the centre, in pixels of the chip."""
    return scale * (torch.arange(pixels) + 0.5 - pixels / 2)


def _rectangle(top: Tensor, rows: Tensor, left: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """bool (B,H,W): pixels whose middle lies in [top, top + rows) x [left, left + columns)."""
    inside = [
        (middle >= start.view(-1, 1)) & (middle < (start + span).view(-1, 1))
        for start, span, middle in (
            (top, rows, torch.arange(height) + 0.5),
            (left, columns, torch.arange(width) + 0.5),
        )
    ]
    return inside[0][:, :, None] & inside[1][:, None, :]


def _where_chip(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Per chip: ``other`` where ``chosen`` (B,), else ``one``."""
    return torch.where(chosen.to(one.device).view(-1, *[1] * (one.ndim - 1)), other, one)
