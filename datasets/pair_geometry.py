"""Cropping, turning, mirroring and shifting of pairs of images whose grids differ, on their device, keyed by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from .. import _compat  # noqa: F401
from ..errors import ConfigError
from .augmentation import generator

PAN = "pan"
# Pixels of the image beyond the crop on each side: Keys' kernel reads two, the panchromatic grid may start one apart.
MARGIN_PX = 3
# OLI's reflectance is known to 3 % (Markham et al. 2014, doi 10.3390/rs61212275): no recipe should claim more.
CALIBRATION_ERROR = 0.03


@dataclass(frozen=True)
class PairOptions:
    """How training batches vary; 0, False or None leaves a step out. All of it keeps reflectance what it is.

    Attributes:
        flip: mirror the ground along rows and columns, each with probability 1/2.
        rotate90: turn the ground by a multiple of 90 degrees.
        crop: side in target pixels of a random square window.
        gain: factor in [1 - gain, 1 + gain] on the image and the panchromatic band alike, at most the sensor's
            calibration error of 0.03 (Markham et al. 2014, doi 10.3390/rs61212275).
        shift: up to so many target pixels the registration of both inputs is moved, in x and y.
    """

    flip: bool = False
    rotate90: bool = False
    crop: int | None = None
    gain: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.gain <= CALIBRATION_ERROR:
            raise ConfigError(
                f"must be 0 to the calibration error of {CALIBRATION_ERROR:g}, found {self.gain!r}",
                where="AUGMENT.GAIN",
            )
        if not 0 <= self.shift < math.inf:
            raise ConfigError(f"must be a number of pixels >= 0, found {self.shift!r}", where="AUGMENT.SHIFT")
        if self.crop is not None and self.crop < 1:
            raise ConfigError(f"must be a side in pixels or None, found {self.crop!r}", where="AUGMENT.CROP")

    @classmethod
    def from_config(cls, augment: Mapping[str, Any]) -> PairOptions:
        """From the AUGMENT node of a recipe. Raises ConfigError for a step that would change what reflectance means."""
        known = {field.name for field in fields(cls)}
        wanted = {key.lower(): value for key, value in augment.items() if value}
        if wanted.get("probability") == 1:
            del wanted["probability"]
        if unknown := sorted(set(wanted) - known):
            raise ConfigError(
                "pairs of reflectance are not changed like this",
                where=f"AUGMENT.{unknown[0].upper()}",
                hint=f"there is {', '.join(sorted(known)).upper()}",
            )
        return cls(**wanted)


def nearest_pixels(values: Tensor, grid: Tensor, size: tuple[int, int]) -> Tensor:
    """(B,H,W): for each target pixel the one of ``values`` (B,h,w) that holds its centre; the edges go on."""
    places = []
    for (scale, offset), count, side in (((2, 3), size[0], values.shape[1]), ((0, 1), size[1], values.shape[2])):
        centres = torch.arange(count, dtype=torch.float64, device=grid.device) + 0.5
        places.append((grid[:, scale, None] * centres + grid[:, offset, None]).floor().long().clamp(0, side - 1))
    batch = torch.arange(len(values), device=values.device)[:, None, None]
    return values[batch, places[0][:, :, None], places[1][:, None, :]]


def vary(batch: dict[str, Tensor], options: PairOptions, *, seed: int, epoch: int, step: int) -> dict[str, Tensor]:
    """Crop, turn, mirror, shift and scale a batch of pairs; what belongs together stays together.

    Args:
        batch: ``image``, ``pan`` (or none), ``target``, ``valid`` and the grids, see `PairDataModule`.
        options: which steps, how strong.
        seed, epoch, step: the key of every draw; draws are made on the CPU.

    Returns:
        The same entries; the grids fit what was done.
    """
    batch, count = dict(batch), len(batch["target"])

    def uniform(name: str, *shape: int) -> Tensor:
        return torch.rand((*shape, count), generator=generator(f"pair {name}", seed, epoch, step), dtype=torch.float64)

    if options.crop is not None:
        sides = torch.tensor(batch["target"].shape[-2:])
        if options.crop > sides.min():
            raise ConfigError(f"{options.crop} is more than the chip's {sides.min()}", where="AUGMENT.CROP")
        batch = crop(batch, (uniform("crop", 2) * (sides[:, None] - options.crop + 1)).long(), options.crop)
    columns, rows = uniform("flip", 2) < 0.5 if options.flip else torch.zeros(2, count, dtype=torch.bool)
    if options.rotate90:
        turns = (uniform("rotate90") * 4).int()
        batch = transpose(batch, turns % 2 == 1)
        # A quarter turn is a transposition and a mirror image: of the rows for 90, of the columns for 270 degrees.
        rows, columns = rows ^ ((turns == 1) | (turns == 2)), columns ^ (turns >= 2)
    batch = mirror(mirror(batch, columns, "x"), rows, "y")
    if options.shift:
        moved = (options.shift * (2 * uniform("shift", 2) - 1)).T.to(batch["target"].device)
        for key in grid_keys(batch):
            scale = batch[key][:, [0, 2]]
            batch[key] = _with_offsets(batch[key], batch[key][:, [1, 3]] + scale * moved)
    if options.gain:
        factor = (1 + options.gain * (2 * uniform("gain") - 1)).float().view(-1, 1, 1, 1).to(batch["target"].device)
        batch |= {name: batch[name] * factor for name in ("image", PAN) if name in batch}
    return batch


def crop(batch: dict[str, Tensor], corners: Tensor, side: int) -> dict[str, Tensor]:
    """Cut windows of ``side`` target pixels at ``corners`` (2,B) (rows, columns), with the inputs' pixels around them.

    The window of the image has the same size in every batch: what covers the target and 3 pixels more on each side, an
    even number, as far as the image reaches. The panchromatic window is twice as large and starts at twice the pixel.
    """
    out = dict(batch)
    windows = [(r, c) for r, c in corners.T.tolist()]
    for name in ("target", "valid"):
        out[name] = torch.stack(
            [values[..., r : r + side, c : c + side] for values, (r, c) in zip(batch[name], windows, strict=True)]
        )
    grid, full = batch["grid_image"].cpu(), torch.tensor(batch["image"].shape[-2:]).flip(0)
    covered = math.ceil(float(grid[:, [0, 2]].max()) * side - 1e-9) + 1 + 2 * MARGIN_PX
    width = min(covered + covered % 2, int(full.min()))
    # (B,2): columns, rows
    at = corners.T.flip(1).double()
    start = (grid[:, [0, 2]] * at + grid[:, [1, 3]]).floor().long() - MARGIN_PX
    start = torch.minimum(start.clamp_min(0), full - width)
    for name, key, factor in (("image", "grid_image", 1), (PAN, "grid_pan", 2)):
        if name not in batch:
            continue
        first, wide = factor * start, factor * width
        out[name] = torch.stack(
            [values[:, r : r + wide, c : c + wide] for values, (c, r) in zip(batch[name], first.tolist(), strict=True)]
        )
        own = batch[key]
        moved = own[:, [1, 3]] + own[:, [0, 2]] * at.to(own.device) - first.to(own.device)
        out[key] = _with_offsets(own, moved)
    return out


def transpose(batch: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    """Exchange rows and columns of the chosen (B,) chips."""
    out = {name: _choose(chosen, values, values.mT) for name, values in _planes(batch)}
    grids = {key: _choose(chosen, batch[key], batch[key][:, [2, 3, 0, 1]]) for key in grid_keys(batch)}
    return batch | out | grids


def mirror(batch: dict[str, Tensor], chosen: Tensor, axis: str) -> dict[str, Tensor]:
    """Mirror the chosen (B,) chips: ``x`` turns the columns round, ``y`` the rows."""
    dim, scale, offset = (-1, 0, 1) if axis == "x" else (-2, 2, 3)
    out = {name: _choose(chosen, values, values.flip(dim)) for name, values in _planes(batch)}
    side = batch["target"].shape[dim]
    for key in grid_keys(batch):
        # s' = w - s and t' = W - t turn s = scale t + offset into s' = scale t' + (w - scale W - offset)
        turned = batch[key].clone()
        turned[:, offset] = batch[key.removeprefix("grid_")].shape[dim] - turned[:, scale] * side - turned[:, offset]
        out[key] = _choose(chosen, batch[key], turned)
    return batch | out


def grid_keys(batch: Mapping[str, Tensor]) -> list[str]:
    """Names of the grids in a batch."""
    return [key for key in batch if key.startswith("grid_")]


def _planes(batch: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [(name, batch[name]) for name in ("image", PAN, "target", "valid") if name in batch]


def _with_offsets(grid: Tensor, offsets: Tensor) -> Tensor:
    return torch.stack([grid[:, 0], offsets[:, 0], grid[:, 2], offsets[:, 1]], 1)


def _choose(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(chosen.to(one.device).view(-1, *[1] * (one.ndim - 1)), other, one)
