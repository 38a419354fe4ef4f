"""Reflectance, its standard deviation and the quality bits as Cloud Optimized GeoTIFFs that appear together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.io import DatasetWriter
from rasterio.windows import Window

from ..datasets.files import atomic_path
from ..datasets.l8s2_header import BAND_NAMES, S2_UM
from ..datasets.raster import Grid
from ..errors import StorageError
from .cog import BLOCK_PX, draft_beside, draft_profile, open_draft, write_cog
from .tiling import in_blocks

SCALE, NODATA = 1e-4, -32768
MOST_STORED = 32767
QA_FILL = 1
QA_BITS = "fill 0, dilated cloud 1, cirrus 2, cloud 3, cloud shadow 4, snow 5, clear 6, water 7"


class Strip(NamedTuple):
    """Rows of a scene: ``reflectance`` float32 (6, h, W), ``sigma`` alike or None, ``valid`` bool (h, W), ``quality``
    uint16 (h, W)."""

    reflectance: np.ndarray
    sigma: np.ndarray | None
    valid: np.ndarray
    quality: np.ndarray


def beside(out: str | Path, what: str) -> Path:
    """Where the ``sigma`` or the ``qa`` of the reflectance ``out`` lies."""
    out = Path(out)
    return out.with_name(f"{out.stem}_{what}{out.suffix}")


def stored(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """float32 (C, h, W) as int16 in units of 1e-4, rounded; nodata where invalid."""
    whole = np.clip(np.rint(values / np.float32(SCALE)), -MOST_STORED, MOST_STORED)
    return np.where(valid, whole, NODATA).astype(np.int16)


def write_scene(out: Path, grid: Grid, strips: Iterator[Strip], tags: Mapping[str, str], with_sigma: bool) -> None:
    """Write ``out``, ``…_qa`` and, with sigma, ``…_sigma``: all of them, or none.

    Args:
        out: the reflectance.
        grid: of all files.
        strips: from top to bottom, of any height.
        tags: of all files.
        with_sigma: whether the strips have one.

    Raises:
        StorageError: one cannot be written; what was there before stays.
    """
    number = {"count": len(BAND_NAMES), "dtype": "int16", "nodata": NODATA, "predictor": 2}
    files = {
        "reflectance": (out, number),
        "qa": (beside(out, "qa"), {"count": 1, "dtype": "uint16", "nodata": QA_FILL}),
    }
    if with_sigma:
        files["sigma"] = (beside(out, "sigma"), number)
    # The files take their places only after all of them are complete.
    with ExitStack() as places:
        finished = {key: places.enter_context(atomic_path(path)) for key, (path, _) in files.items()}
        drafts = {key: places.enter_context(draft_beside(path)) for key, (path, _) in files.items()}
        with ExitStack() as stack:
            opened = {
                key: stack.enter_context(open_draft(drafts[key], draft_profile(grid, interleave="band", **profile)))
                for key, (_, profile) in files.items()
            }
            _describe(opened, tags)
            _fill(opened, strips, grid.width, out)
        for key, path in finished.items():
            write_cog(drafts[key], path, resampling="nearest" if key == "qa" else "average", predictor=key != "qa")


def _fill(files: Mapping[str, DatasetWriter], strips: Iterator[Strip], width: int, out: Path) -> None:
    def layers() -> Iterator[tuple[np.ndarray, ...]]:
        for strip in strips:
            planes = {"reflectance": stored(strip.reflectance, strip.valid), "qa": strip.quality[None]}
            if strip.sigma is not None:
                planes["sigma"] = stored(strip.sigma, strip.valid)
            yield tuple(planes[key] for key in files)

    for first, planes in in_blocks(layers(), BLOCK_PX):
        window = Window(0, first, width, planes[0].shape[-2])
        for file, plane in zip(files.values(), planes, strict=True):
            try:
                file.write(plane, window=window)
            except rasterio.errors.RasterioError as error:
                raise StorageError(f"cannot write ({error})", where=out, hint="is the disk full?") from error


def _describe(files: Mapping[str, DatasetWriter], tags: Mapping[str, str]) -> None:
    what = {"reflectance": "surface reflectance", "sigma": "standard deviation of the surface reflectance"}
    for key, file in files.items():
        file.update_tags(**tags)
        if key == "qa":
            file.set_band_description(1, "QA_PIXEL")
            file.update_tags(
                1, BITS="fill 0, dilated cloud 1, cirrus 2, cloud 3, cloud shadow 4, snow 5, clear 6, water 7"
            )
            continue
        file.scales, file.offsets = (SCALE,) * file.count, (0.0,) * file.count
        file.units = ("reflectance",) * file.count
        for index, (name, wavelength) in enumerate(zip(BAND_NAMES, S2_UM, strict=True), 1):
            file.set_band_description(index, name)
            file.update_tags(index, QUANTITY=what[key], CENTRAL_WAVELENGTH_UM=f"{wavelength:g}")
