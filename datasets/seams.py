"""Neighbours in disguise: chips of two splits whose edges continue each other, found without any georeference.

Where two chips were cut side by side from one image, the last line of one and the first line of the other show the
same texture. Their correlation is compared with that of edges which cannot be neighbours (almost all pairs):

1. an edge's slow part (Gaussian, sd 4 px) goes, and so do runs of equal values, which are fill and not texture;
2. values are clipped at 2.5 sd, so that no single step (a coast, a swath edge) makes the correlation;
3. a pair is a seam when Fisher's z of its mean correlation over the bands exceeds 1.6 times the largest deviation
   that as many normal draws would show, and the edge's fourth best partner by at least 2 sd. The sd is that of the
   data's own pairs. Real textures have heavier tails than normal draws, hence 1.6.

On OMBRIA's 756 chips (256 px edges, two bands) this puts the limit at 0.60; no false pair of the ones looked at is
above 0.52 and no true one below 0.66. Of 65 million pairs of polar-patch edges (64 px), none of which are neighbours,
none is found; there the limit is above 0.9, so short edges show only nearly identical texture.
The method needs neighbouring lines to correlate: images at full resolution whose speckle is independent from line to
line pass unseen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DETREND_SD_PX = 4.0
FILL_RUN_PX = 6
CLIP_SD = 2.5
MIN_VALID = 0.5  # of an edge, and of the line two edges share
TAIL = 1.6
MARGIN_SD = 2.0
MAX_PARTNERS = 3
MIN_CORRELATION = 0.4
MAX_LIMIT = 0.95  # a limit above this cannot be reached by real neighbours
MAX_COMPARISONS = 4_000_000_000
SIDES = (("bottom", "top"), ("top", "bottom"), ("right", "left"), ("left", "right"))
OPPOSITE = dict(SIDES)


@dataclass(frozen=True)
class EdgeFeatures:
    """Edges of N chips: ``texture`` float32 (N, B, L), each band of unit norm, 0 where ``valid`` bool is False."""

    texture: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.texture)

    def take(self, rows: np.ndarray) -> EdgeFeatures:
        """The edges of some chips."""
        return EdgeFeatures(self.texture[rows], self.valid[rows])


@dataclass(frozen=True)
class SeamLimit:
    """``sd`` of Fisher's z among unrelated edges, and the correlation above which a pair is a seam."""

    sd: float
    correlation: float


def edge_features(edges: np.ndarray) -> EdgeFeatures:
    """Texture of edges (N, B, L) in any numeric type; NaN marks pixels without data."""
    values = np.asarray(edges, np.float32)
    valid = np.isfinite(values) & ~_fill(values)
    weight = valid.astype(np.float32)
    kernel = np.exp(
        -0.5 * (np.arange(-3 * int(DETREND_SD_PX), 3 * int(DETREND_SD_PX) + 1) / DETREND_SD_PX) ** 2
    ).astype(np.float32)
    values = np.where(valid, values, 0)
    slow = _smooth(values, kernel) / np.maximum(_smooth(weight, kernel), 1e-3)
    texture = (values - slow) * weight
    count = weight.sum(-1, keepdims=True)
    sd = np.sqrt((texture**2).sum(-1, keepdims=True) / np.maximum(count, 1))
    scale = np.abs(values).max(-1, keepdims=True)
    usable = (count >= MIN_VALID * values.shape[-1]) & (sd > 1e-6 * scale) & (sd > 0)
    texture = np.clip(texture / np.where(usable, sd, 1), -CLIP_SD, CLIP_SD) * usable
    norm = np.sqrt((texture**2).sum(-1, keepdims=True))
    return EdgeFeatures(texture / np.where(norm > 0, norm, 1), valid & usable)


def _fill(values: np.ndarray) -> np.ndarray:
    """True where a pixel belongs to a run of at least ``FILL_RUN_PX`` equal values."""
    fill = np.zeros(values.shape, bool)
    if values.shape[-1] >= FILL_RUN_PX:
        same = values[..., 1:] == values[..., :-1]
        runs = np.lib.stride_tricks.sliding_window_view(same, FILL_RUN_PX - 1, axis=-1).all(-1)
        for shift in range(FILL_RUN_PX):
            fill[..., shift : shift + runs.shape[-1]] |= runs
    return fill


def _smooth(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolution along the last axis, zeros outside."""
    half = len(kernel) // 2
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)])
    result = np.zeros_like(values)
    for k, factor in enumerate(kernel):
        result += factor * padded[..., k : k + values.shape[-1]]
    return result


def correlation(first: EdgeFeatures, second: EdgeFeatures) -> np.ndarray:
    """float32 (N,): mean over the bands of the correlation of edge n with edge n, over the pixels that both have.

    A band in which less than half of the line is valid in both is left out. Fisher's z of the mean of k of B bands is
    multiplied by sqrt(k / B): fewer bands agree more easily by chance, and one limit holds for all.
    """
    both = first.valid & second.valid
    product = (first.texture * second.texture).sum(-1)
    norm = np.sqrt((first.texture**2 * both).sum(-1) * (second.texture**2 * both).sum(-1))
    usable = (both.mean(-1) >= MIN_VALID) & (norm > 0)
    bands = usable.sum(-1)
    mean = np.where(usable, product / np.where(usable, norm, 1), 0).sum(-1) / np.maximum(bands, 1).astype(np.float32)
    share = np.sqrt(bands / usable.shape[-1]).astype(np.float32)
    return np.where(share < 1, np.tanh(np.arctanh(np.clip(mean, -0.9999, 0.9999)) * share), mean)


def seam_limit(sides: dict[str, EdgeFeatures], comparisons: int, seed: int = 0) -> SeamLimit | None:
    """The limit for so many comparisons, from a sample of the pairs themselves; None without usable edges."""
    rng, found = np.random.Generator(np.random.PCG64(seed)), []
    for side, other in (("bottom", "top"), ("right", "left")):
        n = len(sides[side])
        rows, columns = rng.integers(0, n, (2, 60_000))
        apart = rows != columns
        for at in np.array_split(np.arange(len(rows))[apart], 12):
            r = correlation(sides[side].take(rows[at]), sides[other].take(columns[at]))
            found.append(r[r != 0])
    r = np.concatenate(found)
    if r.size < 100:
        return None
    low, high = np.percentile(np.arctanh(np.clip(r, -0.9999, 0.9999)), [15.87, 84.13])
    sd = float(high - low) / 2
    z = TAIL * np.sqrt(2 * np.log(max(comparisons, 1000))) * sd
    return SeamLimit(sd, max(MIN_CORRELATION, float(np.tanh(z))))


def seams(first: EdgeFeatures, second: EdgeFeatures, limit: SeamLimit) -> tuple[list[tuple[int, int, float]], int]:
    """Pairs (i, j, correlation) of edges that continue each other, i from ``first`` and j from ``second``.

    One matrix product over blocks of edges finds candidates; only they are compared pixel by valid pixel. An edge with
    more than three partners is a pattern, or one place on many dates: such pairs are only counted.

    Returns:
        The pairs, and the number of pairs above the limit that were left out.
    """
    n, m, bands = len(first), len(second), first.texture.shape[1]
    flat = second.texture.reshape(m, -1).T / bands
    found, dropped = [], 0
    # A band that an edge lacks is 0 in its texture, and lowers the rough value more than the true one.
    lacking = np.sqrt(min(_share_of_bands(first), _share_of_bands(second)))
    for rows in np.array_split(np.arange(n), max(1, n * m // 8_000_000)):
        rough = first.texture[rows].reshape(len(rows), -1) @ flat
        # Where half of one edge is fill, the rough value is at least about two thirds of the true one.
        i, j = np.nonzero(rough >= 0.6 * lacking * limit.correlation)
        for part in np.array_split(np.arange(len(i)), max(1, len(i) // 20_000)):
            r = correlation(first.take(rows[i[part]]), second.take(j[part]))
            for at in np.flatnonzero(r >= limit.correlation):
                row, column = int(i[part[at]]), int(j[part[at]])
                others = np.delete(rough[row], column)
                if len(others) > MAX_PARTNERS:
                    runner_up = np.partition(others, -MAX_PARTNERS)[-MAX_PARTNERS]
                    if np.arctanh(min(r[at], 0.9999)) - np.arctanh(min(runner_up, 0.9999)) < MARGIN_SD * limit.sd:
                        dropped += 1
                        continue
                found.append((int(rows[row]), column, float(r[at])))
    partners = [np.bincount([pair[side] for pair in found], minlength=max(n, m)) for side in (0, 1)] if found else []
    kept = [(i, j, r) for i, j, r in found if partners[0][i] <= MAX_PARTNERS and partners[1][j] <= MAX_PARTNERS]
    return kept, dropped + len(found) - len(kept)


def _share_of_bands(edges: EdgeFeatures) -> float:
    """Least share of bands that an edge with texture has; 1 where every edge has all or none."""
    bands = edges.valid.any(-1).sum(-1)
    return float(bands[bands > 0].min(initial=edges.texture.shape[1])) / edges.texture.shape[1]
