"""Whole Landsat-8 scenes: six bands, quality bits and the panchromatic band, found by name and read window by window.

Two forms of a folder are taken: the archive's own (``LC08_L2SP_…_SR_B2.TIF`` to ``_SR_B7.TIF`` and ``_QA_PIXEL.TIF``,
with ``LC08_L1TP_…_B8.TIF`` and its ``_MTL.json`` or ``.txt`` there or in a folder beside it), and that of the authors'
inference data (one stack ``…_SR.tif`` of the six bands and QA_PIXEL, one ``LC08_L1TP_….tif`` and ``….json``). The
stacks were brought to multiples of the pixel size by taking the nearest pixel, halfway between two: ``_archive_grid``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.io import DatasetReader
from scipy import ndimage

from ..errors import InputError, SceneError
from . import optical, raster
from .l8s2_products import FALSE_NORTHING_M, L8_BANDS, PATTERNS
from .products import find, read_text

S2_PIXEL_M = 10.0
_NAME = r"LC08_{}_(?P<place>\d{{6}})_(?P<date>\d{{8}})_\d{{8}}_02_T[12]"
NAMES = {
    "l8": PATTERNS["l8"],
    "pan": PATTERNS["pan"],
    "stack": _NAME.format("L2S[PR]") + r"_SR\.tiff?",
    "pan stack": _NAME.format("L1T[PS]") + r"\.(?P<what>tiff?|json|txt)",
}
_PRODUCT = re.compile(r"LC08_L2S[PR]_\d{6}_\d{8}_\d{8}_02_T[12]", re.IGNORECASE)
FILL_QA = 1  # QA_PIXEL of a pixel without data


@dataclass
class LandsatScene:
    """The files of one scene.

    Attributes:
        id: the Level-2 product's name.
        place, date: path and row, date of acquisition (YYYYMMDD).
        bands: file and band number of ``SR_B2`` … ``SR_B7`` and ``QA_PIXEL``.
        pan: ``B8`` and ``MTL``; empty where there is none.
    """

    id: str
    place: str
    date: str
    bands: dict[str, tuple[Path, int]] = field(default_factory=dict)
    pan: dict[str, Path] = field(default_factory=dict)


def find_scenes(folder: str | Path, pan: str | Path | None = None) -> list[LandsatScene]:
    """The scenes below a folder, by name.

    Args:
        folder: of one product, or of many (what ``tidemark acquire`` wrote); other files may lie there.
        pan: where the Level-1 products lie. By default here or, for the folder of one product, beside it.

    Raises:
        InputError: no such folder, or no Landsat-8 Level-2 product in it.
    """
    folder = Path(folder).absolute()
    scenes, panchromatic = _group(folder)
    if not scenes:
        raise InputError("no Landsat-8 Level-2 product (LC08_L2SP_…_SR_B2.TIF)", where=folder)
    if pan is not None:
        panchromatic = _group(Path(pan).absolute())[1]
    elif any(key not in panchromatic for key in scenes) and _PRODUCT.fullmatch(folder.name):
        for beside in sorted(folder.parent.glob("LC08_L1T*")):
            if beside.is_dir():
                panchromatic = _group(beside)[1] | panchromatic
    for key, scene in scenes.items():
        scene.pan = panchromatic.get(key, {})
    return [scenes[key] for key in sorted(scenes)]


def _group(folder: Path) -> tuple[dict[tuple[str, str], LandsatScene], dict[tuple[str, str], dict[str, Path]]]:
    scenes: dict[tuple[str, str], LandsatScene] = {}
    pan: dict[tuple[str, str], dict[str, Path]] = {}
    try:
        found = find(folder, NAMES)
    except InputError:
        if folder.is_dir():  # nothing of that name in it
            return {}, {}
        raise
    for kind, path, groups in found:
        key = groups["place"], groups["date"]
        if kind in ("pan", "pan stack"):
            raster_file = groups["what"].upper().startswith(("B8", "TIF"))
            pan.setdefault(key, {})["B8" if raster_file else "MTL"] = folder / path
            continue
        product = _PRODUCT.search(path.rsplit("/", 1)[-1])[0].upper()
        scene = scenes.setdefault(key, LandsatScene(product, *key))
        if scene.id != product:
            raise InputError(f"two products of one scene: {scene.id} and {product}", where=folder, hint="keep one")
        if kind == "l8":
            scene.bands[groups["band"].upper()] = folder / path, 1
        else:
            scene.bands |= {band: (folder / path, n) for n, band in enumerate((*L8_BANDS, "QA_PIXEL"), 1)}
    return scenes, pan


class Pixels(NamedTuple):
    """A window of a scene: ``image`` float32 (C, h, w) reflectance, finite everywhere, and ``valid`` bool (h, w)."""

    image: np.ndarray
    valid: np.ndarray


class OpenScene:
    """A scene, open while used as a context manager.

    Attributes:
        grid: of the six bands, 30 m; ``pan_grid``: of the panchromatic band, 15 m, None where none is asked for.

    Raises:
        SceneError: a file is missing, corrupt, of another type, not in UTM, or not on the grid of the others.
    """

    def __init__(self, scene: LandsatScene, with_pan: bool = True) -> None:
        self.scene, self._with_pan, self._stack = scene, with_pan, ExitStack()
        self.grid: raster.Grid | None = None
        self.pan_grid: raster.Grid | None = None

    def __enter__(self) -> OpenScene:
        scene = self.scene
        if missing := [band for band in (*L8_BANDS, "QA_PIXEL") if band not in scene.bands]:
            raise SceneError(f"{', '.join(missing)} missing", where=scene.id)
        with self._stack as stack:
            opened: dict[Path, DatasetReader] = {}
            for path, _ in scene.bands.values():
                if path not in opened:
                    opened[path] = stack.enter_context(raster.open_raster(path, num_threads=2))
            self._bands = {band: (opened[path], number) for band, (path, number) in scene.bands.items()}
            first = self._bands["QA_PIXEL"][0]
            self.grid = raster.check_georeferenced(first)
            utm_zone(self.grid, first.name)
            for dataset, number in self._bands.values():
                raster.check_same_grid(dataset, self.grid)
                _check_numbers(dataset, number)
            if first.count > 1:
                self.grid = _archive_grid(self.grid)
            if self._with_pan:
                self._open_pan(stack)
            self._stack = stack.pop_all()
        return self

    def _open_pan(self, stack: ExitStack) -> None:
        if missing := [name for name in ("B8", "MTL") if name not in self.scene.pan]:
            raise SceneError(
                f"no panchromatic {' or '.join(missing)} of path and row {self.scene.place} on {self.scene.date}",
                where=self.scene.id,
                hint="put the L1TP product beside it, or name its folder with --pan",
            )
        self._pan = stack.enter_context(raster.open_raster(self.scene.pan["B8"], num_threads=2))
        self.pan_grid = raster.check_georeferenced(self._pan)
        _check_numbers(self._pan, 1)
        if self.pan_grid.crs != self.grid.crs and self._pan.crs != self._bands["QA_PIXEL"][0].crs:
            raise SceneError("the panchromatic band is in another zone", where=self.scene.pan["B8"])
        if "_B8." not in self.scene.pan["B8"].name.upper():
            self.pan_grid = _archive_grid(self.pan_grid)
        self._gains = optical.pan_gains(read_text(self.scene.pan["MTL"]), self.scene.pan["MTL"])

    def __exit__(self, kind, error, traceback) -> None:
        self._stack.close()

    def bands(self, window: raster.PixelWindow) -> Pixels:
        """Reflectance of the six bands; negative ones are 0. Beyond the scene nothing is valid."""
        dn = np.concatenate([_whole_numbers(*self._bands[band], window, optical.L8_FILL) for band in L8_BANDS])
        valid = (dn != optical.L8_FILL).all(0) & (self.quality(window) & FILL_QA == 0)
        scaled = optical.l8_not_negative(dn).astype(np.float32) * np.float32(optical.L8_SCALE)
        return Pixels(scaled + np.float32(optical.L8_OFFSET), valid)

    def pan(self, window: raster.PixelWindow) -> Pixels:
        """Top-of-atmosphere reflectance of the panchromatic band, (1, h, w)."""
        dn = _whole_numbers(self._pan, 1, window, 0)
        stored = optical.pan_reflectance(dn, self._gains)
        return Pixels(stored.astype(np.float32) * np.float32(optical.PAN_SCALE), dn[0] != 0)

    def quality(self, window: raster.PixelWindow) -> np.ndarray:
        """QA_PIXEL, uint16 (h, w); ``FILL_QA`` beyond the scene."""
        return _whole_numbers(*self._bands["QA_PIXEL"], window, FILL_QA)[0]


def _archive_grid(grid: raster.Grid) -> raster.Grid:
    """Where the pixels of a stack lay in the archive's file.

    There edges lie half a pixel off the multiples of the pixel size (30 m: odd multiples of 15 m; 15 m: of 7.5 m). A
    stack whose edges lie on them holds the archive's pixels, each said to be half a pixel further south and east than
    it is: in the authors' three scenes the bands lie 7.5 m off the panchromatic band, and on it once this is undone.
    """
    a, b, west, d, e, north = grid.transform
    if west % a or north % a:
        return grid
    return replace(grid, transform=(a, b, west - a / 2, d, e, north + a / 2))


def _check_numbers(dataset: DatasetReader, number: int) -> None:
    if number > dataset.count:
        raise SceneError(f"expected at least {number} bands, found {dataset.count}", where=dataset.name)
    if dataset.dtypes[number - 1] not in ("uint16", "float32"):  # the authors' stacks hold DN as floats
        raise SceneError(
            f"band {number}: expected digital numbers as uint16 or float32, found {dataset.dtypes[number - 1]}",
            where=dataset.name,
        )


def _whole_numbers(dataset: DatasetReader, number: int, window: raster.PixelWindow, fill: int) -> np.ndarray:
    values = raster.read_window(dataset, window, (number,), fill)
    if values.dtype == np.uint16:
        return values
    return np.where(np.isfinite(values), np.clip(np.rint(values), 0, 65535), fill).astype(np.uint16)


def fill_gaps(pixels: Pixels) -> np.ndarray:
    """The image with each invalid pixel replaced by the nearest valid one, so that nothing is mixed with fill."""
    if pixels.valid.all() or not pixels.valid.any():
        return pixels.image
    nearest = ndimage.distance_transform_edt(~pixels.valid, return_distances=False, return_indices=True)
    return pixels.image[:, *nearest]


def utm_zone(grid: raster.Grid, where: object) -> int:
    """EPSG code of a grid in UTM on WGS 84. Raises SceneError for any other CRS."""
    code = rasterio.CRS.from_wkt(grid.crs).to_epsg()
    if code is None or not (32601 <= code <= 32660 or 32701 <= code <= 32760):
        raise SceneError("not in UTM: Sentinel-2 has no grid there", where=where)
    return code


def sentinel2_grid(grid: raster.Grid, where: object = None) -> tuple[raster.Grid, raster.Affine6]:
    """The pixels of Sentinel-2's 10 m grid that lie wholly inside a Landsat scene.

    The origins of all MGRS tiles of a zone are multiples of 60 m, hence their 10 m pixels are one grid: edges at
    multiples of 10 m. South of the equator they count from the false northing of 10 000 km, Landsat below zero.

    Returns:
        The grid in Sentinel-2's CRS, and the same grid's affine in the scene's CRS.
    """
    code, (west, south, east, north) = utm_zone(grid, where), grid.bounds()
    west, south = (np.ceil(v / S2_PIXEL_M - 1e-6) * S2_PIXEL_M for v in (west, south))
    east, north = (np.floor(v / S2_PIXEL_M + 1e-6) * S2_PIXEL_M for v in (east, north))
    height, width = (round((b - a) / S2_PIXEL_M) for a, b in ((south, north), (west, east)))
    if min(height, width) < 1:
        raise SceneError("smaller than a pixel of Sentinel-2", where=where)
    own = (S2_PIXEL_M, 0.0, float(west), 0.0, -S2_PIXEL_M, float(north))
    crs, moved = grid.crs, own
    if code < 32700 and south + north < 0:
        crs = rasterio.CRS.from_epsg(code + 100).to_wkt()
        moved = (*own[:5], own[5] + FALSE_NORTHING_M)
    return raster.Grid(height, width, moved, crs), own


def scene_products(folders: Sequence[str | Path], pan: str | Path | None = None) -> Iterator[LandsatScene | InputError]:
    """Every scene of several folders; a folder that cannot be used gives its error in place of scenes."""
    for folder in folders:
        try:
            yield from find_scenes(folder, pan)
        except InputError as error:
            yield error
