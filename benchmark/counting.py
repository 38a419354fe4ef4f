"""What one chip adds to its unit: integers of class maps and patches, float64 sums of reflectance.

Chips are streamed from the shards in batches of bounded size; nothing here grows with the data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..datasets.reader import Shard
from ..datasets.spec import Array, Manifest
from . import metrics, reflectance
from .boundary import boundary_counts
from .records import Kind

BATCH_BYTES = 32 << 20


@dataclass
class UnitCounts:
    """What is added up for one unit (scene, event, block, location), or for one chip of it."""

    confusion: NDArray[np.int64]  # (n, n); (0, 0) for a harmonization
    boundary: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))
    abstained: int = 0  # valid pixels without an answer
    sums: reflectance.Sums = field(default_factory=dict)  # of a harmonization

    @property
    def pixels(self) -> int:
        """Valid pixels (patches, for classification)."""
        return int(self.sums["pixels"][0]) if self.sums else int(self.confusion.sum())

    def add(self, other: UnitCounts) -> None:
        """Add another one's counts to these."""
        self.confusion += other.confusion
        self.boundary += other.boundary
        self.abstained += other.abstained
        for key, values in other.sums.items():
            self.sums[key] = self.sums.get(key, 0) + values


def labelled_chips(shard: Shard) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
    """Chip id, scene number and label ((H,W) uint8, or () for patches) of every chip; invalid input is 255."""
    manifest, label = shard.manifest, shard.manifest.label_array
    inputs, ids, scenes = _validity(manifest), shard.chip_ids, shard.scene_index
    for numbers in _batches(shard, (label, *inputs)):
        truth = shard.read_many(label.name, numbers)
        truth[truth == manifest.task.ignore_index] = metrics.IGNORE
        for array in inputs:
            truth[_invalid(shard, array, numbers)] = metrics.IGNORE
        for row, i in enumerate(numbers):
            yield ids[i], int(scenes[i]), truth[row]


def target_chips(shard: Shard) -> Iterator[tuple[str, int, NDArray[np.float64], NDArray[np.bool_]]]:
    """Chip id, scene number, reflectance (C,H,W) and validity in both images (H,W) of every chip."""
    target, inputs = shard.manifest.label_array, _validity(shard.manifest)
    ids, scenes = shard.chip_ids, shard.scene_index
    scale, offset = (np.array([getattr(b, k) for b in target.bands])[:, None, None] for k in ("scale", "offset"))
    for numbers in _batches(shard, (target, *inputs)):
        stored = shard.read_many(target.name, numbers)
        valid = ~invalid_pixels(stored, [band.nodata for band in target.bands])
        for array in inputs:
            valid &= ~_invalid(shard, array, numbers)
        for row, i in enumerate(numbers):
            yield ids[i], int(scenes[i]), stored[row] * scale + offset, valid[row]


def _validity(manifest: Manifest) -> list[Array]:
    """The arrays on the label's grid that say where the input is valid.

    A ``valid`` array, where there is one, says so alone: its builder knows which bands a pixel can do without.
    Otherwise an image says so by its nodata values, if it can hold any.
    """
    grid = manifest.label_array.shape[-2:]
    here = [a for a in manifest.arrays if grid and a.shape[-2:] == grid]
    return [a for a in here if a.role == "valid"] or [
        a
        for a in here
        if a.role == "image" and (a.dtype.startswith("float") or any(band.nodata is not None for band in a.bands))
    ]


def _batches(shard: Shard, arrays: tuple[Array, ...]) -> Iterator[range]:
    step = max(1, BATCH_BYTES // sum(array.chip_bytes for array in arrays))
    return (range(start, min(start + step, shard.n)) for start in range(0, shard.n, step))


def _invalid(shard: Shard, array: Array, numbers: range) -> NDArray[np.bool_]:
    values = shard.read_many(array.name, numbers)
    return values == 0 if array.role == "valid" else invalid_pixels(values, [band.nodata for band in array.bands])


def invalid_pixels(image: NDArray, nodata: list[float | None]) -> NDArray[np.bool_]:
    """(B, H, W): any band is not finite or holds its nodata value. ``image`` is (B, C, H, W) as stored."""
    invalid = np.zeros((image.shape[0], *image.shape[2:]), np.bool_)
    for band, value in enumerate(nodata):
        if image.dtype.kind == "f":
            invalid |= ~np.isfinite(image[:, band])
        if value is not None:
            invalid |= image[:, band] == value
    return invalid


def count_chip(truth: NDArray, prediction: NDArray, n: int, boundary: bool) -> UnitCounts:
    """The integers of one chip of a class map, or of one patch."""
    counts = UnitCounts(metrics.confusion(truth, prediction, n))
    counts.abstained = int(np.count_nonzero((prediction == metrics.IGNORE) & (truth != metrics.IGNORE)))
    if boundary:
        counts.boundary = boundary_counts(truth, prediction)
    return counts


def sum_chip(
    truth: NDArray, prediction: NDArray, valid: NDArray[np.bool_], indices: Mapping[str, tuple[int, int]]
) -> UnitCounts:
    """The sums of one chip of a harmonization."""
    sums = reflectance.chip_sums(truth, prediction, valid, indices)
    return UnitCounts(np.zeros((0, 0), np.int64), abstained=reflectance.abstained(prediction, valid), sums=sums)


def probability_counts(
    task: Kind, truth: NDArray, prediction: NDArray, probability: NDArray
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One chip's part of the histograms of calibration and of confidence, (256, 2) each.

    Binary maps: the probability of class 1 by whether it is class 1; the probability of the answer by whether it is
    right. Patches: both are the probability of the answer. Without an answer the highest probability counts, and the
    answer as wrong.
    """
    known = truth != metrics.IGNORE
    if task == "binary-segmentation":
        truth, prediction, probability = truth[known], prediction[known], probability[known]
        opposite = np.uint8(255) - probability
        confidence = np.where(prediction == 1, probability, opposite)
        silent = prediction == metrics.IGNORE
        if silent.any():
            confidence[silent] = np.maximum(probability, opposite)[silent]
        return (
            metrics.calibration_counts(probability, truth == 1),
            metrics.calibration_counts(confidence, truth == prediction),
        )
    answer = int(prediction)
    level = probability[answer] if answer < len(probability) else probability.max()
    counts = metrics.calibration_counts(
        np.atleast_1d(level)[np.atleast_1d(known)], np.atleast_1d(truth == prediction)[np.atleast_1d(known)]
    )
    return counts, counts
