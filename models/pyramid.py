"""Context of a scene's tiles at coarser scales, read along with them, a row of tiles at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..datasets.context import context_scale, context_window, shrink
from ..datasets.spec import Band
from ..datasets.statistics import valid_pixels

Rows = Callable[[int, int], np.ndarray]
ROWS_AT_A_TIME = 64


class PaddedScene:
    """A scene that may be read beyond its edges.

    Args:
        read_rows: (first, stop) -> stored values (C, stop - first, width) of rows inside the scene.
        height, width: of the scene in pixels.
        bands: of the stored values.
    """

    def __init__(self, read_rows: Rows, height: int, width: int, bands: Sequence[Band]) -> None:
        self.read_rows, self.height, self.width, self.bands = read_rows, height, width, bands

    def read(self, first: int, stop: int, left: int = 0, right: int | None = None) -> np.ndarray:
        """float32 (C, stop - first, right - left), NaN where there is no data and outside; ``left`` at most 0."""
        right = self.width if right is None else right
        found = np.full((len(self.bands), stop - first, right - left), np.nan, np.float32)
        top, bottom, width = max(first, 0), min(stop, self.height), min(right, self.width)
        if top < bottom:
            inside = found[:, top - first : bottom - first, -left : width - left]
            for plane, stored, band in zip(inside, self.read_rows(top, bottom), self.bands, strict=True):
                plane[:] = stored[:, :width]
                plane[~valid_pixels(stored[:, :width], band)] = np.nan
        return found


class Pyramid:
    """What lies around each tile, shrunk to the tile's own number of pixels.

    Args:
        scene: is read more than once.
        tile: (height, width) of the tiles.
        names: contexts that the model takes, such as ``image_x8``.
        method: ``bilinear`` reads every row once per scale and puts a context on whole pixels of its own grid, at most
            half of one beside the tile's centre; ``nearest`` is exact (from corner to corner, row round(i (n - 1) /
            (tile - 1)) of n) and reads the scene anew for each row of tiles.

    Memory: for ``bilinear`` as many shrunk rows as a tile has, for ``nearest`` as many of the scene's.
    """

    def __init__(self, scene: PaddedScene, tile: tuple[int, int], names: Sequence[str], method: str) -> None:
        kind = {"bilinear": _Shrunk, "nearest": _Picked}[method]
        self._levels = {name: kind(scene, context_scale(name), tile) for name in names}

    def __call__(self, top: int, lefts: Sequence[int]) -> dict[str, np.ndarray]:
        """Contexts float32 (B,C,h,w), NaN = no data, by name, of the tiles in one row; ``top`` never falls."""
        return {name: np.stack([level(top, left) for left in lefts]) for name, level in self._levels.items()}


class _Shrunk:
    """A window of the whole shrunk scene that moves down with the tiles."""

    def __init__(self, scene: PaddedScene, scale: int, tile: tuple[int, int]) -> None:
        self.scene, self.scale, self.tile = scene, scale, tile
        self.width = -(-scene.width // scale)
        self.first = None  # number of the first shrunk row in memory
        self.rows = np.empty((len(scene.bands), 0, self.width), np.float32)

    def __call__(self, top: int, left: int) -> np.ndarray:
        row, column, _, _ = context_window((top, left, *self.tile), self.scale)
        self._move(round(row / self.scale))
        first = round(column / self.scale)
        return _columns(self.rows, np.arange(first, first + self.tile[1]))

    def _move(self, first: int) -> None:
        if first == self.first:
            return
        have = 0 if self.first is None else self.first + self.rows.shape[1]
        kept = self.rows[:, first - self.first :] if self.first is not None else self.rows
        parts, at, stop = [kept], max(have, first) if self.first is not None else first, first + self.tile[0]
        step = max(1, ROWS_AT_A_TIME // self.scale)
        while at < stop:
            parts.append(self._shrink(at, min(at + step, stop)))
            at += step
        self.first, self.rows = first, np.concatenate(parts, 1)

    def _shrink(self, first: int, stop: int) -> np.ndarray:
        if stop <= 0 or first * self.scale >= self.scene.height:
            return np.full((len(self.scene.bands), stop - first, self.width), np.nan, np.float32)
        rows = self.scene.read(first * self.scale, stop * self.scale)
        rows = np.pad(rows, ((0, 0), (0, 0), (0, -rows.shape[2] % self.scale)), constant_values=np.nan)
        return shrink(rows, self.scale, None)


class _Picked:
    """Single rows and columns of the scene, as ``scipy.ndimage.zoom`` of order 0 takes them."""

    def __init__(self, scene: PaddedScene, scale: int, tile: tuple[int, int]) -> None:
        self.scene, self.scale, self.tile, self.top = scene, scale, tile, None
        # Half up, in whole numbers: round(i (n - 1) / (m - 1)) for m of n pixels.
        self.steps = [(2 * np.arange(m) * (scale * m - 1) + max(1, m - 1)) // (2 * max(1, m - 1)) for m in tile]
        self.rows = np.empty(0, np.float32)

    def __call__(self, top: int, left: int) -> np.ndarray:
        row, column, height, _ = context_window((top, left, *self.tile), self.scale)
        if top != self.top:
            self.rows = np.empty(0, np.float32)  # two of them would be the most memory of all
            self.top, self.rows = top, self._pick(row + self.steps[0])
        return _columns(self.rows, column + self.steps[1])

    def _pick(self, wanted: np.ndarray) -> np.ndarray:
        picked = np.full((len(self.scene.bands), len(wanted), self.scene.width), np.nan, np.float32)
        inside = np.flatnonzero((wanted >= 0) & (wanted < self.scene.height))
        for part in np.array_split(inside, max(1, len(inside) * self.scale // ROWS_AT_A_TIME)):
            if len(part):
                first = int(wanted[part[0]])
                picked[:, part] = self.scene.read(first, int(wanted[part[-1]]) + 1)[:, wanted[part] - first]
        return picked


def _columns(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(C, rows, len(wanted)); NaN where a column is none of the scene's."""
    found = rows[:, :, wanted.clip(0, rows.shape[2] - 1)]
    found[:, :, (wanted < 0) | (wanted >= rows.shape[2])] = np.nan
    return found
