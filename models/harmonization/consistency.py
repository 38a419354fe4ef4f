"""Back-projection: a prediction at 10 m that keeps the level which Landsat measured.

The consistency step of super-resolution (Irani and Peleg 1991, doi 10.1016/1049-9652(91)90045-L): average the
prediction over each coarse pixel, take the difference to what was measured there, bring it back to the fine grid and
add it. Here the difference is smoothed over some 30 m pixels first: held pixel by pixel, the map shows the 30 m grid
again. Means over 300 m are kept within 1 %. So is Landsat's radiometry: what the network has learned of the change from
one sensor to the other is taken back.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ... import _compat  # noqa: F401
from .resample import resample

ROUNDS = 3
SMOOTHING = (1, 4, 6, 4, 1)  # binomial: no frequency is turned around, so that rounds never diverge
LEAST_COVER = 0.3  # share of a coarse pixel that the fine image must cover for its mean to count


def average(fine: Tensor, grid: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Means of a fine image over the pixels of a coarse grid, by the areas that they share.

    Args:
        fine: float (B,C,H,W).
        grid: (B,4) of ``grid_between``: where the fine image's pixels lie in the coarse one, as for ``resample``.
        size: (h,w) of the coarse grid.

    Returns:
        (B,C,h,w), 0 where nothing is shared; and (B,h,w), the share of each coarse pixel that the fine image covers.
    """
    grid = torch.as_tensor(grid, device=fine.device).double().reshape(-1, 4).expand(len(fine), 4)
    across, down = (
        _shares(line, coarse, count, fine.dtype)
        for line, coarse, count in ((grid[:, :2], size[1], fine.shape[3]), (grid[:, 2:], size[0], fine.shape[2]))
    )
    total = down[:, None] @ fine @ across[:, None].mT
    cover = down.sum(-1)[:, :, None] * across.sum(-1)[:, None]
    return torch.where(cover[:, None] > 0, total / cover[:, None].clamp_min(1e-12), 0), cover


def _shares(line: Tensor, coarse: int, fine: int, dtype: torch.dtype) -> Tensor:
    """(B, coarse, fine): the part of each coarse pixel that each fine one covers, along one axis."""
    edges = line[:, :1] * torch.arange(fine + 1, device=line.device) + line[:, 1:]
    first = torch.arange(coarse, device=line.device, dtype=edges.dtype)[:, None]
    shared = torch.minimum(edges[:, None, 1:], first + 1) - torch.maximum(edges[:, None, :-1], first)
    return shared.clamp_min(0).to(dtype)


def back_project(fine: Tensor, image: Tensor, grid: Tensor, rounds: int = ROUNDS) -> Tensor:
    """``fine`` (B,C,H,W) at the level of ``image`` (B,C,h,w); ``grid`` (B,4) as for ``average``.

    Coarse pixels that ``fine`` hardly covers are treated like their neighbours further inside.
    """
    size = fine.shape[-2:]
    for _ in range(rounds):
        means, cover = average(fine, grid, image.shape[-2:])
        difference = _smooth(_held(image - means, cover > LEAST_COVER))
        fine = fine + resample(difference, grid, size, "bilinear")
    return fine


def _smooth(values: Tensor) -> Tensor:
    weights = values.new_tensor(SMOOTHING) / sum(SMOOTHING)
    kernel = (weights[:, None] * weights).expand(values.shape[1], 1, -1, -1)
    padded = functional.pad(values, (len(SMOOTHING) // 2,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel, groups=values.shape[1])


def _held(values: Tensor, known: Tensor) -> Tensor:
    """(B,C,h,w) with rows and columns outside the rectangle that ``known`` (B,h,w) marks repeating its edge."""
    for axis, other in ((-1, -2), (-2, -1)):
        there = known.any(other).to(torch.int64)  # (B,n)
        n = there.shape[1]
        first, last = there.argmax(1), n - 1 - there.flip(1).argmax(1)
        index = torch.arange(n, device=values.device).expand(len(values), n)
        index = torch.minimum(torch.maximum(index, first[:, None]), last[:, None])
        shape = (-1, 1, 1, n) if axis == -1 else (-1, 1, n, 1)
        values = values.gather(axis, index.reshape(shape).expand_as(values))
    return values
