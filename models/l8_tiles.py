"""What a harmonization network needs of a Landsat-8 scene for one tile of Sentinel-2's grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..datasets import raster
from ..datasets.grids import grid_between
from ..datasets.l8_scene import OpenScene, fill_gaps
from .tiling import Tiling

MARGIN_PX = 2  # Landsat pixels around a tile, as far as a cubic kernel reaches
TIE_PX = 1e-6


class TileReader:
    """What a network needs of a scene for one tile: Landsat's own pixels around it, and where they lie.

    Args:
        scene: open.
        own: affine of the target's grid in the scene's CRS.
        tiling: of the target.
    """

    def __init__(self, scene: OpenScene, own: raster.Affine6, tiling: Tiling) -> None:
        self.scene, self.target, self.tiling = scene, raster.Grid(1, 1, own), tiling
        # whole pixels that cover a tile wherever it begins, and some around them
        self.size = tuple(-(-side // 3) + 1 + 2 * MARGIN_PX for side in (tiling.height, tiling.width))
        self._at = None

    def _start(self, first: int, axis: int) -> tuple[int, int]:
        """First row or column of the image and of the panchromatic band around the tile that begins at ``first``."""
        image, step, origin = self.scene.grid.transform, (4, 0)[axis], (5, 2)[axis]
        place = self.target.transform[origin] + first * self.target.transform[step]
        start = math.floor((place - image[origin]) / image[step] + TIE_PX) - MARGIN_PX
        if self.scene.pan_grid is None:
            return start, 0
        pan = self.scene.pan_grid.transform
        return start, round((image[origin] + start * image[step] - pan[origin]) / pan[step])

    def _load(self, top: int) -> None:
        """Read what all tiles of a row of tiles need."""
        if top == self._at:
            return
        (row, pan_row), (column, pan_column) = self._start(top, 0), self._start(0, 1)
        last, pan_last = self._start(self.tiling.lefts[-1], 1)
        height, width = self.size
        self._image = fill_gaps(self.scene.bands((row, column, height, last + width - column)))
        if self.scene.pan_grid is not None:
            self._pan = fill_gaps(self.scene.pan((pan_row, pan_column, 2 * height, pan_last + 2 * width - pan_column)))
        self._at, self._row, self._column, self._pan_row, self._pan_column = top, row, column, pan_row, pan_column

    def tiles(self, top: int, lefts: Sequence[int]) -> dict[str, np.ndarray]:
        """``image`` (B,6,h,w), ``pan`` (B,1,2h,2w) float32, and their ``grid_…`` (B,4), of the tiles at ``lefts``."""
        self._load(top)
        width, parts = self.size[1], []
        for left in lefts:
            to = self.target.window_transform((top, left, 1, 1))
            column, pan_column = self._start(left, 1)
            at = column - self._column
            part = {
                "image": self._image[:, :, at : at + width],
                "grid_image": grid_between(self.scene.grid.window_transform((self._row, column, 1, 1)), to),
            }
            if self.scene.pan_grid is not None:
                at = pan_column - self._pan_column
                part["pan"] = self._pan[:, :, at : at + 2 * width]
                part["grid_pan"] = grid_between(
                    self.scene.pan_grid.window_transform((self._pan_row, pan_column, 1, 1)), to
                )
            parts.append(part)
        return {key: np.stack([part[key] for part in parts]) for key in parts[0]}

    def quality(self, first: int, stop: int) -> np.ndarray:
        """QA_PIXEL uint16 (rows, W) of the Landsat pixel that holds each pixel's centre."""
        return self._nearest(self.scene.grid, (first, stop), self.scene.quality)

    def valid(self, first: int, stop: int) -> np.ndarray:
        """bool (rows, W): whether the pixels of Landsat that hold each pixel's centre have data."""
        rows = first, stop
        known = self._nearest(self.scene.grid, rows, lambda window: self.scene.bands(window).valid)
        if self.scene.pan_grid is not None:
            known &= self._nearest(self.scene.pan_grid, rows, lambda window: self.scene.pan(window).valid)
        return known

    def _nearest(self, grid: raster.Grid, rows: tuple[int, int], read) -> np.ndarray:
        scale_x, offset_x, scale_y, offset_y = grid_between(grid.transform, self.target.transform)
        # every third centre lies on the edge between two Landsat pixels: it counts to the one south and east
        down = np.floor(scale_y * (np.arange(*rows) + 0.5) + offset_y + TIE_PX).astype(int)
        across = np.floor(scale_x * (np.arange(self.tiling.grid_width) + 0.5) + offset_x + TIE_PX).astype(int)
        window = (down[0], across[0], down[-1] - down[0] + 1, across[-1] - across[0] + 1)
        return read(tuple(int(v) for v in window))[down[:, None] - down[0], across - across[0]]
