"""Band statistics and label counts of a build: exact integers per shard, merged in shard order.

Every valid value is counted in a histogram of fixed bins: one bin per value for 8- and 16-bit integers (so mean, sd
and percentiles are exact), and for floats the 65 536 bins of the upper 16 bits of the ordered float32 pattern (each
0.4 to 0.8 % of the value wide), with float64 sums beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import FormatError
from .spec import Array, Band, BandStatistics, Header, holds

TRAIN = "train"  # the split whose bands are counted
BINS = 1 << 16
NARROW = 1e-6  # variance / mean²: below it, too few digits are left of the difference between two large sums
_DIGITS = 8  # of float statistics: below what the order of a vectorised sum can change


def valid_pixels(stored: np.ndarray, band: Band) -> np.ndarray:
    """bool, same shape: finite and not the band's nodata value."""
    valid = np.isfinite(stored) if stored.dtype.kind == "f" else np.ones(stored.shape, bool)
    if band.nodata is not None and holds(stored.dtype, band.nodata):
        valid &= stored != np.asarray(band.nodata, np.float64).astype(stored.dtype)
    return valid


def _exact(dtype: np.dtype) -> bool:
    return dtype.kind in "iu" and dtype.itemsize <= 2


def _patterns(values: np.ndarray, out: np.ndarray) -> None:
    """Write the number of each value's pattern: its own for small integers, of floats the upper 16 bits."""
    if _exact(values.dtype):
        np.subtract(values, np.iinfo(values.dtype).min, out=out, dtype=np.intp)
    else:
        np.right_shift(values.astype(np.float32, copy=False).view(np.uint32), np.uint32(16), out=out)


def _pattern_of(dtype: np.dtype) -> np.ndarray:
    """The pattern of every bin, in the order of the values. Negative floats run backwards: all their bits are flipped,
    of the others the sign alone."""
    bins = np.arange(BINS)
    return bins if _exact(dtype) else bins ^ np.where(bins >> 15, 1 << 15, BINS - 1)


def _bin_values(dtype: np.dtype) -> np.ndarray:
    """The stored value that each bin stands for (its middle, for floats)."""
    if _exact(dtype):
        return np.arange(BINS, dtype=np.float64) + np.iinfo(dtype).min
    ordered = (np.arange(BINS, dtype=np.uint32) << 16) | np.uint32(0x8000)
    bits = np.where(ordered >> 31, ordered & np.uint32(0x7FFFFFFF), ~ordered)
    with np.errstate(invalid="ignore"):  # the NaN patterns stand for bins that stay empty
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)


class Tally:
    """Counts of one shard (or of several of one split, after ``merge``): labels, and in the training split bands.

    ``counts`` holds per array and band how often each pattern occurs, int64 (bands, 65536).
    """

    def __init__(self, header: Header, split: str) -> None:
        self.header = header
        self.arrays = [a for a in header.arrays if a.bands and split == TRAIN]
        self.counts = {a.name: np.zeros((len(a.bands), BINS), np.int64) for a in self.arrays}
        self.sums = {a.name: np.zeros((len(a.bands), 4)) for a in self.arrays}  # sum, sum of squares, min, max
        for sums in self.sums.values():
            sums[:, 2:] = np.inf, -np.inf
        self.spread = {a.name: [(0, 0.0, 0.0)] * len(a.bands) for a in self.arrays}  # of floats, see ``joined_spread``
        self.classes = np.zeros(256, np.int64)
        largest = max((int(np.prod(a.shape[1:])) for a in self.arrays), default=0)
        self._pattern, self._wide = np.empty(largest, np.intp), np.empty(largest)  # fresh pages cost more than sums

    def observe(self, chip: dict[str, np.ndarray]) -> None:
        """Count one chip."""
        invalid = next((chip[a.name] == 0 for a in self.header.arrays if a.role == "valid"), None)
        for array in self.arrays:
            for b, band in enumerate(array.bands):
                stored = chip[array.name][b]
                valid = valid_pixels(stored, band)
                if invalid is not None and invalid.shape == valid.shape:
                    valid &= ~invalid
                values = stored.reshape(-1) if valid.all() else stored[valid]
                if not values.size:
                    continue
                pattern, wide = self._pattern[: values.size], self._wide[: values.size]
                _patterns(values, pattern)
                found = np.bincount(pattern)
                self.counts[array.name][b][: len(found)] += found
                sums = self.sums[array.name][b]
                if not _exact(values.dtype):
                    total, squares, around = _moments(values, wide)
                    sums[:2] += total, squares
                    own = values.size, total / values.size, around
                    self.spread[array.name][b] = joined_spread(self.spread[array.name][b], own)
                sums[2:] = min(sums[2], values.min()), max(sums[3], values.max())
        label = self.header.label_array
        if label.role in ("mask", "label"):
            self.classes += np.bincount(chip[label.name].reshape(-1), minlength=256)

    def to_json(self) -> dict:
        """Sparse histograms, sums and class counts as JSON values. Raises FormatError where a sum has overflown."""
        bands = {}
        for array in self.arrays:
            bands[array.name] = []
            for b, band in enumerate(array.bands):
                counts, sums = self.counts[array.name][b], self.sums[array.name][b]
                if not np.isfinite(sums[:2]).all():
                    what = f"the squares of values up to {max(-sums[2], sums[3]):.3g} are beyond float64"
                    raise FormatError(what, where=f"array {array.name}, band {band.name}", hint="store them scaled")
                counts = counts[_pattern_of(np.dtype(array.dtype))]
                at = np.flatnonzero(counts)
                finite = [float(s) if np.isfinite(s) else None for s in sums]
                entry = {"at": at.tolist(), "n": counts[at].tolist(), "sums": finite}
                bands[array.name].append(entry | {"spread": self.spread[array.name][b]})
        return {"bands": bands, "classes": self.classes.tolist()}

    def merge(self, stored: dict) -> None:
        """Add the counts of another shard, as ``to_json`` gave them."""
        for array in self.arrays:
            patterns = _pattern_of(np.dtype(array.dtype))
            for b, band in enumerate(stored["bands"][array.name]):
                self.counts[array.name][b][patterns[band["at"]]] += np.array(band["n"], np.int64)
                sums, (total, squares, low, high) = self.sums[array.name][b], band["sums"]
                sums[:2] += total, squares
                if "spread" in band:  # a journal of an older version has none
                    self.spread[array.name][b] = joined_spread(self.spread[array.name][b], band["spread"])
                if low is not None:
                    sums[2:] = min(sums[2], low), max(sums[3], high)
        self.classes += np.array(stored["classes"], np.int64)

    def statistics(self) -> tuple[BandStatistics, ...]:
        """Mean, sd, min, max, 2nd and 98th percentile of every band, in physical units."""
        return tuple(self._band(array, b, band) for array in self.arrays for b, band in enumerate(array.bands))

    def class_counts(self) -> tuple[dict[str, int], int]:
        """Label pixels (or chips) by class name, and those to ignore."""
        named = {c.name: int(self.classes[c.id]) for c in self.header.task.classes}
        return named, int(self.classes[self.header.task.ignore_index])

    def unknown_labels(self) -> list[int]:
        """Label values that are neither a class nor the ignore index."""
        known = {c.id for c in self.header.task.classes} | {self.header.task.ignore_index}
        return [int(v) for v in np.flatnonzero(self.classes) if v not in known]

    def _band(self, array: Array, b: int, band: Band) -> BandStatistics:
        counts = self.counts[array.name][b][_pattern_of(np.dtype(array.dtype))]
        total, squares, low, high = self.sums[array.name][b]
        n, values = int(counts.sum()), _bin_values(np.dtype(array.dtype))
        if n == 0:
            empty = dict.fromkeys(("mean", "std", "min", "max", "p02", "p98"))
            return BandStatistics(array=array.name, band=band.name, pixels=0, **empty)
        if _exact(np.dtype(array.dtype)):
            at = np.flatnonzero(counts)
            whole = [(int(values[i]), int(counts[i])) for i in at]
            total, squares = sum(v * c for v, c in whole), sum(v * v * c for v, c in whole)
        mean = total / n
        variance = squares / n - mean * mean
        counted, _, around = self.spread[array.name][b]
        if counted == n and variance < NARROW * mean * mean:
            variance = around / n
        std = max(variance, 0.0) ** 0.5
        ranks = np.searchsorted(np.cumsum(counts), (0.02 * n, 0.98 * n), side="left")
        p02, p98 = np.clip(values[ranks], low, high)
        ends = sorted(v * band.scale + band.offset for v in (low, high))
        percentiles = sorted(v * band.scale + band.offset for v in (p02, p98))
        return BandStatistics(
            array=array.name,
            band=band.name,
            pixels=n,
            mean=_rounded(mean * band.scale + band.offset),
            std=_rounded(std * abs(band.scale)),
            min=_rounded(ends[0]),
            max=_rounded(ends[1]),
            p02=_rounded(percentiles[0]),
            p98=_rounded(percentiles[1]),
        )


def joined_spread(one: Sequence[float], other: Sequence[float]) -> tuple[int, float, float]:
    """Number, mean and sum of squared distances from the mean of two sets of values together (Chan et al. 1979)."""
    (n, mean, around), (more, its_mean, its_around) = one, other
    if not more:
        return one
    apart = its_mean - mean
    return n + more, mean + apart * (more / (n + more)), around + its_around + apart * apart * (n * more / (n + more))


def _moments(values: np.ndarray, wide: np.ndarray) -> tuple[float, float, float]:
    """Sum, sum of squares and of squared distances from the mean; ``wide`` is room for the values as float64."""
    np.copyto(wide, values)
    total = float(wide.sum())
    with np.errstate(over="ignore"):
        wide *= wide
        squares = float(wide.sum())
    mean = total / len(values)
    around = squares - mean * total
    if around < NARROW * squares:
        np.subtract(values, mean, out=wide, dtype=np.float64)
        wide *= wide
        around = float(wide.sum())
    return total, squares, around


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
