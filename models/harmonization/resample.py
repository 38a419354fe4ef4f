"""One resampling for every row and network: by the grids' transforms, never by stretching one size to another."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _compat  # noqa: F401
from ...errors import InputError

MODES = ("nearest", "bilinear", "bicubic")
KEYS_A = -0.5  # of the cubic kernel; with it quadratics are reproduced (Keys 1981, doi 10.1109/TASSP.1981.1163711)


def resample(x: Tensor, grid: Tensor, size: tuple[int, int], mode: str = "bicubic") -> Tensor:
    """The values of an image at the pixel centres of another grid.

    The kernel is that of the source's pixels and is not widened when the target's are larger: shrinking samples, it
    does not average. Beyond the source the values of its edge go on.

    Args:
        x: float (B,C,h,w).
        grid: (B,4) or (4,) scale_x, offset_x, scale_y, offset_y of ``datasets.grids.grid_between``.
        size: (H,W) of the target.
        mode: ``nearest``, ``bilinear`` or ``bicubic`` (Keys' kernel with a = -0.5; Torch's ``interpolate`` has -0.75
            unless it antialiases).

    Returns:
        (B,C,H,W) of the same dtype; gradients pass to ``x``.

    Raises:
        InputError: unknown mode, a grid of another shape or not finite, or an empty image.
    """
    if mode not in MODES:
        raise InputError(f"no resampling {mode!r}", hint=f"there is {', '.join(MODES)}")
    if x.ndim != 4 or 0 in x.shape[2:]:
        raise InputError(f"cannot resample an image of shape {tuple(x.shape)}, expected (B,C,h,w)")
    grid = torch.as_tensor(grid, device=x.device).double().reshape(-1, 4)
    if len(grid) not in (1, len(x)) or not grid.isfinite().all():
        raise InputError(f"{len(grid)} grids for {len(x)} images, or one that is not finite")
    grid = grid.expand(len(x), 4)
    x = _along_columns(x, grid[:, :2], size[1], mode)
    return _along_columns(x.mT, grid[:, 2:], size[0], mode).mT


def _along_columns(x: Tensor, line: Tensor, width: int, mode: str) -> Tensor:
    """Resample the last axis; ``line`` (B,2) is scale and offset of each image."""
    centres = torch.arange(width, device=x.device, dtype=torch.float64) + 0.5
    edges = line[:, :1] * centres + line[:, 1:]  # (B,W), from the left edge of the source's first pixel
    if mode == "nearest":
        return _gather(x, edges.floor().long())
    left = (edges - 0.5).floor()
    fraction = edges - 0.5 - left
    if mode == "bilinear":
        weights = (1 - fraction, fraction)
    else:
        weights = tuple(_cubic(abs(fraction - tap)) for tap in (-1, 0, 1, 2))
    first = left.long() - (len(weights) // 2 - 1)
    shape = (len(x), 1, 1, width)
    taps = (_gather(x, first + i) * weight.to(x.dtype).view(shape) for i, weight in enumerate(weights))
    return sum(taps, start=x.new_zeros(()))


def _cubic(distance: Tensor) -> Tensor:
    near = ((KEYS_A + 2) * distance - (KEYS_A + 3)) * distance**2 + 1
    far = KEYS_A * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, far)


def _gather(x: Tensor, columns: Tensor) -> Tensor:
    """Columns (B,W) of each image, those beyond its edges being its first or last."""
    columns = columns.clamp(0, x.shape[-1] - 1)
    return x.gather(-1, columns[:, None, None].expand(-1, x.shape[1], x.shape[2], -1))
