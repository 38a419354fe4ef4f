"""Overlapping tiles over a scene of any size, blended row of tiles by row of tiles in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError

BLENDS = ("hann", "crop", "published")
MAX_TILE_PX = 1 << 12
# Of GMNet's authors (imgPatch.py of Tibet-Water-2020): padding at the top and left, cut from every side of a tile.
MARGIN_PX = 60
CUT_PX = 30


@dataclass(frozen=True)
class Tiling:
    """A grid of tiles of ``height`` x ``width`` pixels; the last of a row or column ends with the scene.

    Attributes:
        tops, lefts: first row and column of the tiles, ascending.
        weight_y, weight_x: float32 (len(tops), height) and (len(lefts), width); a pixel of tile (i, j) counts
            weight_y[i] * weight_x[j], and over all tiles that cover a pixel of the scene these sum to 1.
        margin: rows above and columns left of the scene that the tiles cover as well; tops and lefts count from there.
    """

    height: int
    width: int
    tops: list[int]
    lefts: list[int]
    weight_y: np.ndarray
    weight_x: np.ndarray
    margin: int = 0

    @property
    def grid_width(self) -> int:
        """Columns from the first tile's left to the last one's right."""
        return self.lefts[-1] + self.width


def make_tiling(height: int, width: int, tile: int, overlap: float, blend: str) -> Tiling:
    """Cover a scene.

    Args:
        height, width: of the scene in pixels; a side shorter than ``tile`` is one shorter tile.
        tile: side of a tile in pixels.
        overlap: share of a tile that it has in common with the next one, 0 up to (not including) 1.
        blend: ``hann`` fades each tile with a Hann window; ``crop`` takes every pixel from the tile in whose middle
            it lies most nearly; ``published`` lays full tiles as GMNet's authors do, whatever the overlap: the first
            starts 60 px outside the scene, tiles share 60 px, and 30 px are cut from all of their sides.

    Raises:
        InputError: a number out of range, or an unknown blend.
    """
    if not 1 <= tile <= MAX_TILE_PX:
        raise InputError(f"a tile has 1 to {MAX_TILE_PX} pixels, found {tile}")
    if not 0 <= overlap < 1:
        raise InputError(f"overlap is a share of 0 up to (not including) 1, found {overlap}")
    if blend not in BLENDS:
        raise InputError(f"no blend {blend!r}, there is {', '.join(BLENDS)}")
    if blend == "published":
        if tile <= MARGIN_PX:
            raise InputError(f"tiles of {tile} px cannot share {MARGIN_PX}", hint="the authors take 256")
        weight = ((np.arange(tile) >= CUT_PX) & (np.arange(tile) < tile - CUT_PX)).astype(np.float32)
        starts = [_published(length, tile) for length in (height, width)]
        return Tiling(tile, tile, *starts, *(np.tile(weight, (len(s), 1)) for s in starts), margin=MARGIN_PX)
    sides = [_side(length, min(tile, length), overlap, blend) for length in (height, width)]
    (tops, weight_y), (lefts, weight_x) = sides
    return Tiling(min(tile, height), min(tile, width), tops, lefts, weight_y, weight_x)


def _published(length: int, tile: int) -> list[int]:
    step = tile - MARGIN_PX
    return [step * i for i in range((length + tile) // step)]


def _side(length: int, tile: int, overlap: float, blend: str) -> tuple[list[int], np.ndarray]:
    step = max(1, round(tile * (1 - overlap)))
    starts = sorted({*range(0, length - tile, step), length - tile})
    if blend == "hann":
        weights = np.tile(np.sin(np.pi * (np.arange(tile) + 0.5) / tile) ** 2, (len(starts), 1))
    else:
        # Neighbours meet in the middle of what they share.
        cuts = [0, *((a + tile + b + 1) // 2 for a, b in zip(starts, starts[1:], strict=False)), length]
        pixels = np.array(starts)[:, None] + np.arange(tile)
        weights = ((pixels >= np.array(cuts[:-1])[:, None]) & (pixels < np.array(cuts[1:])[:, None])).astype(float)
    total = np.zeros(length)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    shares = [weight / total[start : start + tile] for start, weight in zip(starts, weights, strict=True)]
    return starts, np.array(shares, np.float32)


def blend_strips(
    tiling: Tiling,
    read_rows: Callable[[int, int], np.ndarray],
    predict: Callable[..., tuple[np.ndarray, np.ndarray]],
    batch_size: int,
    context: Callable[[int, list[int]], Mapping[str, np.ndarray]] | None = None,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Predict all tiles and yield finished strips from top to bottom.

    At any time only one row of tiles of the scene and of the result is in memory.

    Args:
        tiling: of the scene.
        read_rows: (first, stop) -> (C, stop - first, grid width); called once per row of pixels, in order.
        predict: (B,C,h,w), and the contexts by name -> float32 probabilities (B,K,h,w) and bool (B,h,w), where the
            input is valid.
        batch_size: tiles per call of ``predict``.
        context: (top, lefts) -> (B,C,h,w) by name, of the tiles there.

    Yields:
        (first row, float32 (K, rows, width), bool (rows, width)).
    """
    h, w = tiling.height, tiling.width
    stops = [*tiling.tops[1:], tiling.tops[-1] + h]
    pixels, total, valid = np.array(read_rows(0, h)), None, None
    for row, (top, stop) in enumerate(zip(tiling.tops, stops, strict=True)):
        for first in range(0, len(tiling.lefts), batch_size):
            columns = range(first, min(first + batch_size, len(tiling.lefts)))
            lefts = [tiling.lefts[i] for i in columns]
            more = {} if context is None else context(top, lefts)
            probabilities, known = predict(np.stack([pixels[:, :, left : left + w] for left in lefts]), **more)
            if total is None:
                total = np.zeros((probabilities.shape[1], h, pixels.shape[2]), np.float32)
                valid = np.zeros((h, pixels.shape[2]), bool)
            for i, left, probability, good in zip(columns, lefts, probabilities, known, strict=True):
                weight = tiling.weight_y[row][:, None] * tiling.weight_x[i]
                total[:, :, left : left + w] += probability * weight
                valid[:, left : left + w] |= good
        done = stop - top
        yield top, total[:, :done].copy(), valid[:done].copy()
        if row + 1 < len(tiling.tops):
            keep = h - done
            for planes in (total, valid[None], pixels):
                for plane in planes:  # shifted in place: copies of whole strips would double the memory
                    plane[:keep] = plane[done:].copy()
            total[:, keep:], valid[keep:] = 0, False
            pixels[:, keep:] = read_rows(top + h, tiling.tops[row + 1] + h)


def inside(
    strips: Iterator[tuple[int, np.ndarray, np.ndarray]], margin: int, height: int, width: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Cut strips of a grid that starts ``margin`` rows and columns before the scene down to the scene."""
    for first, *planes in strips:
        top, bottom = max(margin, first), min(margin + height, first + planes[0].shape[-2])
        if top < bottom:
            rows, columns = slice(top - first, bottom - first), slice(margin, margin + width)
            yield top - margin, *(plane[..., rows, columns] for plane in planes)


def in_blocks(strips: Iterator[tuple[np.ndarray, ...]], rows: int) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Regroup strips (arrays whose second last axis is rows) into strips of exactly ``rows``, the last one excepted.

    A compressed block of a GeoTIFF that is written in two goes leaves dead bytes in the file.
    """
    waiting: list[tuple[np.ndarray, ...]] = []
    first, height = 0, 0
    for strip in strips:
        waiting.append(strip)
        height += strip[0].shape[-2]
        while height >= rows:
            merged = tuple(np.concatenate(parts, axis=-2) for parts in zip(*waiting, strict=True))
            yield first, tuple(part[..., :rows, :] for part in merged)
            waiting = [tuple(part[..., rows:, :] for part in merged)]
            first, height = first + rows, height - rows
    if height:
        yield first, tuple(np.concatenate(parts, axis=-2) for parts in zip(*waiting, strict=True))
