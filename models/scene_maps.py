"""The maps of a scene as files: classes and probability as Cloud Optimized GeoTIFF, polygons as GeoPackage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from ..datasets.files import atomic_path
from ..datasets.raster import Grid
from .cog import BLOCK_PX, draft_beside, draft_profile, open_draft, write_cog
from .predictions import NODATA
from .tiling import in_blocks
from .weights import Pretrained

PERCENT = 100
# Overviews of classes take what most pixels are; those of percent their mean.
RESAMPLING = {"class": "mode", "probability": "average"}


def probability_path(out: str | Path) -> Path:
    """Where the probability of the class map ``out`` lies."""
    out = Path(out)
    return out.with_name(f"{out.stem}_probability{out.suffix or '.tif'}")


def write_maps(
    out: Path,
    grid: Grid,
    strips: Iterator[tuple[int, np.ndarray, np.ndarray]],
    pretrained: Pretrained,
    *,
    probability: bool,
    polygons: Path | None,
) -> None:
    """Write the files of one scene; they take their places only after all of them are complete.

    Args:
        out: class map, uint8, nodata 255, the classes' colours.
        grid: of the scene.
        strips: (first row, classes uint8 (rows, width), probabilities float32 (rows, width)) from top to bottom.
        pretrained: whose classes they are.
        probability: also write ``<out>_probability.tif``, percent as uint8, nodata 255.
        polygons: GeoPackage to write.

    Raises:
        StorageError: a file cannot be written; what was there before stays.
    """
    paths = {"class": out} | ({"probability": probability_path(out)} if probability else {})
    with ExitStack() as stack:
        finished = {key: stack.enter_context(atomic_path(path)) for key, path in paths.items()}
        drafts = {key: stack.enter_context(draft_beside(path)) for key, path in paths.items()}
        _fill(drafts, grid, strips, pretrained)
        if polygons is not None:
            from .vector import write_polygons

            write_polygons(drafts["class"], stack.enter_context(atomic_path(polygons)), pretrained.classes)
        for key, draft in drafts.items():
            write_cog(draft, finished[key], resampling=RESAMPLING[key])


def _fill(drafts: dict[str, Path], grid: Grid, strips: Iterator[tuple], pretrained: Pretrained) -> None:
    with ExitStack() as stack:
        profile = draft_profile(grid, nodata=NODATA)
        files = {
            key: stack.enter_context(
                open_draft(draft, profile | ({"photometric": "palette"} if key == "class" else {}))
            )
            for key, draft in drafts.items()
        }
        _describe(files, pretrained)
        for first, (classes, chances) in in_blocks(((c, p) for _, c, p in strips), BLOCK_PX):
            window = Window(0, first, grid.width, len(classes))
            files["class"].write(classes, 1, window=window)
            if "probability" in files:
                percent = np.full(chances.shape, NODATA, np.uint8)
                known = classes != NODATA
                percent[known] = np.round(PERCENT * chances[known])
                files["probability"].write(percent, 1, window=window)


def _describe(files: dict[str, DatasetWriter], pretrained: Pretrained) -> None:
    colors = {c["id"]: tuple(int(c["color"][i : i + 2], 16) for i in (1, 3, 5)) + (255,) for c in pretrained.classes}
    files["class"].write_colormap(1, {**colors, NODATA: (0, 0, 0, 0)})
    names = ", ".join(f"{c['id']} = {c['name']}" for c in pretrained.classes)
    files["class"].set_band_description(1, f"class: {names}")
    tags = {"TIDEMARK_MODEL": pretrained.name, "TIDEMARK_WEIGHTS_SHA256": pretrained.weights_sha256}
    for file in files.values():
        file.update_tags(**tags)
    if "probability" in files:
        binary = pretrained.spec.out_channels == 1
        what = pretrained.classes[1]["name"] if binary else "the most probable class"
        files["probability"].set_band_description(1, f"probability of {what}, percent")
        files["probability"].set_band_unit(1, "%")
