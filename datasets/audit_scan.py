"""One pass over all chips of a data set that keeps the little an audit compares: edges, hashes, label counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .overlaps import Fingerprints, fingerprint, perceptual_hash
from .reader import Shard
from .spec import Array, Manifest, load_manifest

BLOCK_BYTES = 32 << 20
EDGE_BUDGET_BYTES = 1 << 30
MAX_EDGE_BANDS = 3
BLANK_SHARE = 0.01  # of a band's 2nd to 98th percentile span: a smaller span of values shows nothing


@dataclass(frozen=True)
class Chips:
    """Every chip of a data set by one number, over all splits and shards.

    ``split``, ``shard``, ``row`` and ``scene`` are int64 (N,): number of the split, of the shard in ``shards``, of the
    chip in its shard, and of the manifest's scene.
    """

    manifest: Manifest
    shards: list[Shard]
    ids: list[str]
    split: np.ndarray
    shard: np.ndarray
    row: np.ndarray
    scene: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def image(self) -> Array:
        """The array that is compared: the first image."""
        return next(a for a in self.manifest.arrays if a.role == "image")

    def name(self, chip: int) -> str:
        """``split/id``."""
        return f"{self.manifest.splits[self.split[chip]].name}/{self.ids[chip]}"

    def read(self, chip: int) -> np.ndarray:
        """One chip's image (C, H, W) in its native dtype."""
        return self.shards[self.shard[chip]].read(self.image.name, int(self.row[chip]))

    def missing(self, chip: int, stored: np.ndarray) -> np.ndarray:
        """bool (H, W): where any band of a chip that was read has no data."""
        rows, shard = [int(self.row[chip])], self.shards[self.shard[chip]]
        return np.isnan(_with_nan(stored[None], shard, rows, self.manifest, self.image)[0]).any(axis=0)

    def column(self, what: str) -> np.ndarray:
        """A per-chip property of the shards (``transform``, ``checksum_image``, …), over all chips."""
        parts = [s.open().rows[what] for s in self.shards]
        return np.concatenate(parts) if parts else np.zeros(0)


@dataclass(frozen=True)
class Scan:
    """What one pass keeps.

    Attributes:
        edges: side -> float32 (N, B, L), NaN without data; None when they would not fit in memory.
        prints: fingerprints of all chips.
        looks: uint64 (N,), perceptual hash.
        blank: bool (N,), the image shows nothing.
        labelled: bool (N,), at least one label that is not to be ignored.
        counts: int64 (splits, 256), label values by split.
    """

    edges: dict[str, np.ndarray] | None
    prints: Fingerprints
    looks: np.ndarray
    blank: np.ndarray
    labelled: np.ndarray
    counts: np.ndarray


def open_chips(folder: str | Path) -> Chips:
    """Open all shards of a data set through the guard."""
    manifest = load_manifest(folder)
    numbers = {split.name: number for number, split in enumerate(manifest.splits)}
    shards = [Shard(folder, manifest, entry) for entry in manifest.shards]
    sizes = [shard.n for shard in shards]
    return Chips(
        manifest=manifest,
        shards=shards,
        ids=[chip for shard in shards for chip in shard.chip_ids],
        split=np.repeat([numbers[s.entry.split] for s in shards], sizes).astype(np.int64),
        shard=np.repeat(np.arange(len(shards)), sizes),
        row=np.concatenate([np.arange(n) for n in sizes]) if sizes else np.zeros(0, np.int64),
        scene=np.concatenate([s.scene_index for s in shards]).astype(np.int64) if sizes else np.zeros(0, np.int64),
    )


def scan(chips: Chips, progress=None) -> Scan:
    """Read every chip once, in blocks.

    Args:
        chips: of ``open_chips``.
        progress: called with chips done, chips in all and the shard's path after each block.
    """
    manifest, image, n = chips.manifest, chips.image, len(chips)
    bands, height, width = image.shape
    kept = min(bands, MAX_EDGE_BANDS, EDGE_BUDGET_BYTES // max(1, 8 * n * (height + width)))
    lengths = {"top": width, "bottom": width, "left": height, "right": height}
    edges = {side: np.empty((n, kept, length), np.float32) for side, length in lengths.items()} if kept else None
    looks, blank, labelled = np.zeros(n, np.uint64), np.zeros(n, bool), np.zeros(n, bool)
    counts, parts = np.zeros((len(manifest.splits), 256), np.int64), []
    smallest, label = _smallest_spans(manifest, image), manifest.label_array
    step, start = max(1, BLOCK_BYTES // image.chip_bytes), 0
    for shard in chips.shards:
        for first in range(0, shard.n, step):
            rows = range(first, min(first + step, shard.n))
            at = slice(start + first, start + first + len(rows))
            stored = shard.read_many(image.name, rows)
            values = _with_nan(stored, shard, rows, manifest, image)
            blank[at] = _blank(values, smallest)
            looks[at] = perceptual_hash(values[:, 0])
            if edges is not None:
                edges["top"][at], edges["bottom"][at] = values[:, :kept, 0], values[:, :kept, -1]
                edges["left"][at], edges["right"][at] = values[:, :kept, :, 0], values[:, :kept, :, -1]
            parts += [(start + i, *fingerprint(chip)) for i, chip in zip(rows, stored, strict=True)]
            labels = shard.read_many(label.name, rows)
            if label.role == "target":
                known = np.isfinite(_with_nan(labels, shard, rows, manifest, label))
                labelled[at] = known.reshape(len(rows), -1).any(axis=1)
            else:
                labelled[at] = (labels != manifest.task.ignore_index).reshape(len(rows), -1).any(axis=1)
                counts[chips.split[start]] += np.bincount(labels.reshape(-1), minlength=256)
            if progress is not None:
                progress(at.stop, n, shard.entry.path)
        start += shard.n
    return Scan(edges, Fingerprints.join(parts), looks, blank, labelled, counts)


def _with_nan(stored: np.ndarray, shard: Shard, rows: Sequence[int], manifest: Manifest, image: Array) -> np.ndarray:
    """float32 (N, C, H, W) in stored units, NaN where nodata or not valid."""
    values = stored.astype(np.float32)
    for b, band in enumerate(image.bands):
        if band.nodata is not None:
            values[:, b][stored[:, b] == np.asarray(band.nodata).astype(stored.dtype)] = np.nan
    values[~np.isfinite(values)] = np.nan
    for array in manifest.arrays:
        if array.role == "valid" and array.shape == image.shape[1:]:
            values[np.broadcast_to(shard.read_many(array.name, rows)[:, None] == 0, values.shape)] = np.nan
    return values


def _smallest_spans(manifest: Manifest, image: Array) -> np.ndarray:
    """float32 (C,): span of stored values, per band, up to which a chip counts as blank."""
    spans = np.zeros(len(image.bands), np.float32)
    known = {s.band: s for s in manifest.statistics if s.array == image.name}
    for b, band in enumerate(image.bands):
        statistics = known.get(band.name)
        if statistics is not None and statistics.p02 is not None and band.scale:
            spans[b] = BLANK_SHARE * (statistics.p98 - statistics.p02) / abs(band.scale)
    return spans


def _blank(values: np.ndarray, smallest: np.ndarray) -> np.ndarray:
    """bool (N,): no band of the chip spans more than its smallest span, or there is no data at all."""
    finite = np.isfinite(values)
    high = np.where(finite, values, -np.inf).max(axis=(2, 3))
    low = np.where(finite, values, np.inf).min(axis=(2, 3))
    return ~(high - low > smallest).any(axis=1)
