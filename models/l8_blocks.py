"""How far harmonized maps keep Landsat's means over 300 m: ``python -m tidemark.models.l8_blocks SOURCE MAPS…``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from .. import _compat  # noqa: F401
from ..datasets import raster
from ..datasets.grids import grid_between
from ..datasets.l8_scene import LandsatScene, OpenScene, find_scenes
from ..datasets.l8s2_header import BAND_NAMES
from ..datasets.l8s2_products import in_zone
from ..errors import SceneError
from .harmonization.consistency import average
from .reflectance_cog import NODATA, SCALE

BLOCK_PX = 10  # Landsat pixels a side: 300 m
LEAST_VALID = 50  # of a block's 100 pixels


def block_errors(scene: LandsatScene, path: Path) -> np.ndarray:
    """Relative differences of the means over 300 m blocks, (6, blocks), of a whole map in memory.

    A block counts the Landsat pixels that have data and lie wholly (to four fifths at the map's edge) in the map.
    Raises SceneError for a map in another zone.
    """
    with OpenScene(scene, with_pan=False) as opened:
        grid = opened.grid
        image, valid = opened.bands((0, 0, grid.height, grid.width))
    with raster.open_raster(path) as file:
        values, place = file.read(), raster.check_georeferenced(file)
    grid = in_zone(grid, place.crs)
    if grid is None:
        raise SceneError("the map is in another zone than its scene", where=path)
    known = (values != NODATA).all(0)
    layers = torch.from_numpy(np.concatenate([values * SCALE, known[None]]))[None]
    between = torch.from_numpy(grid_between(grid.transform, place.transform))[None]
    means, cover = average(layers, between, (grid.height, grid.width))
    valid = valid & (cover[0].numpy() > 0.8) & (means[0, 6].numpy() > 0.999)
    rows, columns = grid.height // BLOCK_PX, grid.width // BLOCK_PX

    def blocks(pixels: np.ndarray) -> np.ndarray:
        cut = pixels[..., : rows * BLOCK_PX, : columns * BLOCK_PX]
        return cut.reshape(*cut.shape[:-2], rows, BLOCK_PX, columns, BLOCK_PX)

    used = blocks(valid)
    number = used.sum((-3, -1))
    found, given = ((blocks(x) * used).sum((-3, -1)) / number.clip(1) for x in (means[0, :6].numpy(), image))
    return (np.abs(found - given) / given)[:, number >= LEAST_VALID]


def main() -> None:
    """Print the largest and the mean difference of each folder of maps in percent, over all scenes."""
    parser = argparse.ArgumentParser(prog="python -m tidemark.models.l8_blocks", description=__doc__)
    parser.add_argument("source", type=Path, help="folder of Landsat-8 products")
    parser.add_argument("maps", nargs="+", type=Path, help="folder that predict wrote")
    given = parser.parse_args()
    print(f"| largest (mean) difference, % | {' | '.join(BAND_NAMES)} |")
    print("|---" * 7 + "|")
    for folder in given.maps:
        errors = [block_errors(scene, folder / f"{scene.id}_10m.tif") for scene in find_scenes(given.source)]
        of_band = 100 * np.concatenate(errors, 1)
        cells = (f"{largest:.2f} ({mean:.2f})" for largest, mean in zip(of_band.max(1), of_band.mean(1), strict=True))
        print(f"| {folder.name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
