"""Chips that show the same ground: bit-exact overlaps and near-duplicates, found without any georeference.

Overlaps are found by content-defined fingerprints: every 8 x 8 window of a chip gets a rolling hash over all bands,
and the windows whose hash is small enough are kept. Two chips that share pixels keep the same windows there, whatever
their offset, so equal hashes give candidates and the offset; the pixels themselves decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

WINDOW = 8
KEPT_WINDOWS = 200  # fingerprints a chip, about
MIN_OVERLAP_PX = 128
MAX_FLAT = 0.75
MAX_GROUP = 64  # a window in more chips than this is a pattern, not a place
MAX_HAMMING = 3
_COLUMN, _ROW, _BAND, _MIX = (
    np.uint64(k) for k in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xFF51AFD7ED558CCD)
)


@dataclass(frozen=True)
class Fingerprints:
    """Kept windows of many chips: ``hash`` uint64 (M,), ``chip`` int32 (M,), ``row`` and ``column`` int32 (M,)."""

    hash: np.ndarray
    chip: np.ndarray
    row: np.ndarray
    column: np.ndarray

    @classmethod
    def join(cls, parts: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]) -> Fingerprints:
        """Join ``(chip, hash, row, column)`` of single chips."""
        if not parts:
            empty = np.zeros(0, np.int32)
            return cls(np.zeros(0, np.uint64), empty, empty, empty)
        chips, hashes, rows, columns = zip(*parts, strict=True)
        owner = np.repeat(np.array(chips, np.int32), [len(h) for h in hashes])
        return cls(np.concatenate(hashes), owner, np.concatenate(rows), np.concatenate(columns))


def fingerprint(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hash uint64 (M,), row and column int32 (M,) of the kept 8 x 8 windows of one chip (C, H, W) of any dtype.

    Windows of one constant value are never kept.
    """
    bands, height, width = image.shape
    empty = np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.int32)
    if height < WINDOW or width < WINDOW:
        return empty
    bits = np.ascontiguousarray(image).view(f"u{image.dtype.itemsize}")
    value, factor = np.zeros((height, width), np.uint64), _BAND
    for band in bits:
        value = (value + band.astype(np.uint64)) * factor  # uint64 arithmetic wraps around
    hashes = value
    for factor, axis in ((_COLUMN, 1), (_ROW, 0)):
        for step in (1, 2, 4):
            power = np.array([pow(int(factor), step, 1 << 64)], np.uint64)
            ahead = hashes[:, step:] if axis else hashes[step:]
            behind = hashes[:, :-step] if axis else hashes[:-step]
            hashes = behind + power * ahead
    hashes = (hashes ^ (hashes >> np.uint64(32))) * _MIX
    hashes ^= hashes >> np.uint64(29)
    threshold = np.uint64(min(2**64 - 1, KEPT_WINDOWS * 2**64 // hashes.size))
    rows, columns = (at.astype(np.int32) for at in np.nonzero(hashes <= threshold))
    span = np.arange(WINDOW)
    windows = value[rows[:, None, None] + span[:, None], columns[:, None, None] + span]
    textured = (windows != windows[:, :1, :1]).any(axis=(1, 2))
    rows, columns = rows[textured][: 4 * KEPT_WINDOWS], columns[textured][: 4 * KEPT_WINDOWS]
    return hashes[rows, columns], rows, columns


def overlap_candidates(prints: Fingerprints, split: np.ndarray) -> list[tuple[int, int, int, int, int]]:
    """Pairs of chips of two splits that share fingerprints, most shared first.

    Args:
        prints: of all chips.
        split: integer (N,), the split of each chip.

    Returns:
        (chip a, chip b, row offset, column offset, shared fingerprints): pixel (r, c) of b is (r + row offset,
        c + column offset) of a.
    """
    order = np.argsort(prints.hash, kind="stable")
    ordered = prints.hash[order]
    votes: Counter[tuple[int, int, int, int]] = Counter()
    for start, stop in equal_runs(ordered):
        if not 2 <= stop - start <= MAX_GROUP:
            continue
        members = order[start:stop]
        chips = prints.chip[members]
        if len(np.unique(split[chips])) < 2:
            continue
        for k, a in enumerate(members):
            for b in members[k + 1 :]:
                if split[prints.chip[a]] != split[prints.chip[b]]:
                    one, two = (a, b) if prints.chip[a] < prints.chip[b] else (b, a)
                    offset = prints.row[one] - prints.row[two], prints.column[one] - prints.column[two]
                    votes[int(prints.chip[one]), int(prints.chip[two]), int(offset[0]), int(offset[1])] += 1
    return [(*key, n) for key, n in sorted(votes.items(), key=lambda item: (-item[1], item[0]))]


def equal_runs(ordered: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and past-the-last place of every run of equal values."""
    if len(ordered):
        yield from pairwise([0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(ordered)])


def exact_overlap(
    a: np.ndarray,
    b: np.ndarray,
    row_offset: int,
    column_offset: int,
    missing: tuple[np.ndarray, np.ndarray] | None = None,
) -> int:
    """Pixels that chips a and b (C, H, W) share at this offset; 0 when they differ or are too few to be evidence.

    Where one value fills more than three quarters of every band (saturated), equality is chance. ``missing``: bool
    (H, W) of either chip, True where it has no data; such pixels neither agree nor differ.
    """
    height, width = a.shape[1:]
    top, left = max(row_offset, 0), max(column_offset, 0)
    bottom, right = min(height, height + row_offset), min(width, width + column_offset)
    here = np.s_[..., top:bottom, left:right]
    there = np.s_[..., top - row_offset : bottom - row_offset, left - column_offset : right - column_offset]
    one, two = a[here], b[there]
    if missing is not None:
        both = ~(missing[0][here] | missing[1][there])
        one, two = one[:, both], two[:, both]
    size = one[0].size
    if size < MIN_OVERLAP_PX or not np.array_equal(one, two, equal_nan=one.dtype.kind == "f"):
        return 0
    commonest = [np.unique(band, return_counts=True)[1].max() for band in one]
    return size if min(commonest) <= MAX_FLAT * size else 0


def perceptual_hash(images: np.ndarray) -> np.ndarray:
    """uint64 (N,): signs of the 64 lowest cosine coefficients (without the mean) of single-band images (N, H, W)."""
    images = np.asarray(images, np.float32)
    size = 32
    rows, columns = (np.minimum(np.arange(size + 1) * n // size, n - 1) for n in images.shape[1:])
    finite = np.isfinite(images)
    filled = np.where(finite, images, np.where(finite, images, 0).mean(axis=(1, 2), keepdims=True))
    small = np.add.reduceat(np.add.reduceat(filled, rows[:-1], axis=1), columns[:-1], axis=2)
    ones = np.ones(images.shape[1:], np.float32)
    small /= np.add.reduceat(np.add.reduceat(ones, rows[:-1], axis=0), columns[:-1], axis=1)
    basis = np.cos(np.pi * (np.arange(size) + 0.5) * np.arange(9)[:, None] / size).astype(np.float32)
    coefficients = (basis @ small @ basis.T).reshape(len(images), 81)[:, 1:65]
    bits = coefficients > np.median(coefficients, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").astype(np.uint64).reshape(-1)


def near_hashes(hashes: np.ndarray) -> np.ndarray:
    """int64 (K, 2): pairs of hashes that differ in at most three bits, each found by one of four 16-bit quarters."""
    found: set[tuple[int, int]] = set()
    for shift in (0, 16, 32, 48):
        key = (hashes >> np.uint64(shift)) & np.uint64(0xFFFF)
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        for start, stop in equal_runs(ordered):
            members = order[start:stop]
            for k, one in enumerate(members[: 50 * MAX_GROUP]):
                others = members[k + 1 : 50 * MAX_GROUP]
                near = others[np.bitwise_count(hashes[others] ^ hashes[one]) <= MAX_HAMMING]
                found.update((int(min(one, two)), int(max(one, two))) for two in near)
    return np.array(sorted(found), np.int64).reshape(-1, 2)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """Least correlation over the bands of two chips (C, H, W), over pixels finite in both.

    A band that is constant in both says nothing; one that is constant in one of them counts as 0.
    """
    result = []
    for one, two in zip(np.asarray(a, np.float64), np.asarray(b, np.float64), strict=True):
        both = np.isfinite(one) & np.isfinite(two)
        one, two = one[both] - one[both].mean() if both.any() else one[both], two[both]
        two = two - two.mean() if two.size else two
        first, second = one @ one, two @ two
        if first > 0 or second > 0:
            result.append(float(one @ two / np.sqrt(first * second)) if first > 0 and second > 0 else 0.0)
    return min(result, default=0.0)
