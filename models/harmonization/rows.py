"""The trivial rows of a harmonization: interpolation alone, and with each band's values mapped to the target's.

All of them resample by the grids' transforms, as the networks do; what is fitted is fitted on the training split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ... import _compat  # noqa: F401
from ...datasets.grids import grid_between
from ...datasets.pairs import nearest_pixels, pair_arrays
from ...datasets.reader import open_split
from ...errors import ConfigError, InputError
from ..chip_arrays import to_physical
from ..registry import register
from .resample import resample

BINS = 4000  # of the histograms over reflectance 0…1
QUANTILES = 2001


@dataclass(frozen=True)
class Pair:
    """``image`` float32 (C,h,w) reflectance, 0 where there is none; ``grid`` float64 (4,) to the target, see
    ``grids.grid_between``; ``target`` float32 (C',H,W); ``valid`` bool (H,W): where both have data."""

    id: str
    image: np.ndarray
    grid: np.ndarray
    target: np.ndarray
    valid: np.ndarray


Answer = tuple[np.ndarray, None]
Harmonize = Callable[[Pair], Answer]


class PairArrays:
    """Iterates the pairs of one split in its order, one at a time; a second pass reads again.

    Args:
        folder: the data set's folder, ``<root>/<name>/<version>``.
        split: name of the split.
        bands: must be empty, as for every harmonization.

    Raises:
        InputError: the data set holds no pairs.
    """

    def __init__(self, folder: str | Path, split: str, bands: Sequence[str] = ()) -> None:
        if bands:
            raise ConfigError("pairs of reflectance are taken as they are", where="DATA.BANDS", hint="leave it out")
        self.split = split
        self.manifest, self.shards = open_split(folder, split)
        self.image, self.target, _ = pair_arrays(self.manifest)
        if len(self.image.bands) != len(self.target.bands):
            raise InputError("the trivial rows need the same bands in image and target", where=self.manifest.name)
        self._masks = [a for a in self.manifest.arrays if a.role == "valid" and a.shape == self.target.shape[1:]]

    def __len__(self) -> int:
        return sum(shard.n for shard in self.shards)

    @property
    def chip_ids(self) -> list[str]:
        """The split's chip ids, in its order."""
        return [chip_id for shard in self.shards for chip_id in shard.chip_ids]

    def __iter__(self) -> Iterator[Pair]:
        for shard in self.shards:
            grids = grid_between(shard.array_transform(self.image.name), shard.transform)
            for i, (chip_id, grid) in enumerate(zip(shard.chip_ids, grids, strict=True)):
                image, known = to_physical(shard.read(self.image.name, i), self.image.bands)
                target, valid = to_physical(shard.read(self.target.name, i), self.target.bands)
                for array in self._masks:
                    valid &= shard.read(array.name, i) != 0
                seen = nearest_pixels(torch.from_numpy(known)[None], torch.from_numpy(grid)[None], valid.shape)
                yield Pair(chip_id, image, grid, target, valid & seen[0].numpy())


def interpolate(pair: Pair, mode: str) -> np.ndarray:
    """float32 (C,H,W): the image on the target's grid."""
    image, grid = torch.from_numpy(pair.image)[None], torch.from_numpy(pair.grid)[None]
    return resample(image, grid, pair.target.shape[1:], mode)[0].numpy()


@register("nearest", label="nearest pixel", tasks=("regression",), trained=False)
def fit_nearest(training: PairArrays, seed: int) -> Harmonize:
    """The pixel that holds the target pixel's centre."""
    return lambda pair: (interpolate(pair, "nearest"), None)


@register("bilinear", label="bilinear", tasks=("regression",), trained=False)
def fit_bilinear(training: PairArrays, seed: int) -> Harmonize:
    """Bilinear interpolation."""
    return lambda pair: (interpolate(pair, "bilinear"), None)


@register("bicubic", label="bicubic", tasks=("regression",), trained=False)
def fit_bicubic(training: PairArrays, seed: int) -> Harmonize:
    """Bicubic interpolation (Keys' kernel): the zero of the task's skill."""
    return lambda pair: (interpolate(pair, "bicubic"), None)


@register("band-linear", label="bicubic, linear per band", tasks=("regression",), trained=False)
def fit_band_linear(training: PairArrays, seed: int) -> Harmonize:
    """Least squares for each band of the training split: target = slope · bicubic + offset."""
    sums = np.zeros((5, len(training.target.bands)))
    for pair in training:
        x, y = (v[:, pair.valid].astype(np.float64) for v in (interpolate(pair, "bicubic"), pair.target))
        sums += [np.full(len(x), x.shape[1]), x.sum(1), y.sum(1), (x * x).sum(1), (x * y).sum(1)]
    slope, offset = line(*sums)
    slope, offset = (v.astype(np.float32)[:, None, None] for v in (slope, offset))
    return lambda pair: (interpolate(pair, "bicubic") * slope + offset, None)


def line(n: np.ndarray, x: np.ndarray, y: np.ndarray, xx: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset of least squares from the sums of each band; slope 1, offset 0 where x does not vary."""
    variance = n * xx - x * x
    varies = variance > 1e-12 * n * xx
    slope = np.where(varies, (n * xy - x * y) / np.where(varies, variance, 1), 1.0)
    return slope, np.where(varies, (y - slope * x) / np.maximum(n, 1), 0.0)


@register("histogram-matching", label="bicubic, histograms matched", tasks=("regression",), trained=False)
def fit_histogram_matching(training: PairArrays, seed: int) -> Harmonize:
    """The quantiles of each band's bicubic values, over the training split, become the target's quantiles."""
    edges = np.linspace(0, 1, BINS + 1)
    counts = np.zeros((2, len(training.target.bands), BINS), np.int64)
    for pair in training:
        for which, values in enumerate((interpolate(pair, "bicubic"), pair.target)):
            for band, plane in enumerate(values[:, pair.valid]):
                counts[which, band] += np.histogram(plane.clip(0, 1), edges)[0]
    curves = [tuple(quantiles(counts[which, band], edges) for which in (0, 1)) for band in range(counts.shape[1])]

    def harmonize(pair: Pair) -> Answer:
        image = interpolate(pair, "bicubic")
        return np.stack([np.interp(x, *curve) for x, curve in zip(image, curves, strict=True)]).astype(np.float32), None

    return harmonize


def quantiles(counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(2001,) quantiles, evenly spaced, of a histogram whose values lie evenly in each bin and the gap before it.

    Of an empty histogram 0…1.
    """
    total = counts.sum()
    if not total:
        return np.linspace(edges[0], edges[-1], QUANTILES)
    some = np.flatnonzero(counts)  # empty bins would make the curve step where there is no value
    reached = np.concatenate([[0], np.cumsum(counts[some])]) / total
    return np.interp(np.linspace(0, 1, QUANTILES), reached, np.concatenate([edges[some[:1]], edges[some + 1]]))
