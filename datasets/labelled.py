"""One image of a custom data set together with its labels, read window by window on the image's grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SceneError
from . import raster
from .polygons import read_polygons
from .spec import Band
from .statistics import valid_pixels

IGNORE = 255


class LabelledScene:
    """An image and its mask or polygons, open while used as a context manager.

    Args:
        folder: where the files lie.
        image, label: their names relative to it.
        settings: the parts ``images``, ``bands``, ``classes``, ``labels`` of a specification, as JSON values.

    Raises:
        SceneError: a file is not as specified; the message names it relative to the folder.
    """

    def __init__(self, folder: Path, image: str, label: str, settings: Mapping[str, Any]) -> None:
        self.folder, self.names, self.settings = folder, (image, label), settings
        self.bands = [Band(**{k: v for k, v in b.items() if k != "index"}) for b in settings["bands"]]
        self.indexes = [b["index"] or at for at, b in enumerate(settings["bands"], start=1)]
        self.values = label_values(settings)
        self._open: list = []

    def __enter__(self) -> LabelledScene:
        labels = self.settings["labels"]
        try:
            self.image = self._enter(self.names[0], self.settings["images"]["format"])
            self.grid = raster.grid_of(self.image)
            self.fill = [_fill(band, np.dtype(self.settings["images"]["dtype"])) for band in self.bands]
            if labels["kind"] == "mask":
                self.label = self._enter(self.names[1], labels["format"])
            else:
                ids = {c["name"]: at for at, c in enumerate(self.settings["classes"])} | {"ignore": IGNORE}
                self.label, self.outside = None, ids[labels["outside"]]
                self.polygons = read_polygons(
                    self.folder / self.names[1],
                    self.grid,
                    value=None if labels["inside"] is None else ids[labels["inside"]],
                    attribute=labels["attribute"],
                    values={str(value): class_id for value, class_id in self.values.items()},
                    layer=labels["layer"],
                )
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind, error, traceback) -> None:
        while self._open:
            self._open.pop().__exit__(None, None, None)
        if isinstance(error, SceneError):
            raise relative_error(error, self.folder) from None

    def _enter(self, name: str, format_: str):
        opened = raster.open_raster(self.folder / name, (format_,), num_threads=2)
        dataset = opened.__enter__()
        self._open.append(opened)
        return dataset

    def read(self, window: raster.PixelWindow) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stored pixels, classes and validity of a window, which may reach beyond the image.

        Returns:
            (C, H, W) in the file's dtype, nodata beyond the image; (H, W) uint8, 255 where the label says so and where
            not valid; and bool (H, W), valid: inside of the image, with data in every band.
        """
        image = raster.read_window(self.image, window, self.indexes, self.fill)
        inside = _inside(window, self.grid)
        if self.label is None:
            mask = self.polygons.rasterise(self.grid, window, self.outside)
        else:
            mask = to_classes(raster.read_window(self.label, window, [1])[0], self.values, inside, self.label.name)
        valid = inside.copy()
        for band, stored in zip(self.bands, image, strict=True):
            valid &= valid_pixels(stored, band)
        mask[~valid] = IGNORE
        return image, mask, valid

    def is_blank(self, image: np.ndarray) -> bool:
        """Whether no band varies over its pixels with data."""
        known = [stored[valid_pixels(stored, band)] for band, stored in zip(self.bands, image, strict=True)]
        return all(not len(values) or values.min() == values.max() for values in known)


def relative_error(error: SceneError, folder: Path) -> SceneError:
    """The same error without the folder: what is recorded must not depend on where the source lies."""
    where, hint = (None if t is None else str(t).replace(f"{folder}/", "") for t in (error.where, error.hint))
    return SceneError(error.what.replace(f"{folder}/", ""), where=where, hint=hint)


def label_values(settings: Mapping[str, Any]) -> dict[int | str, int]:
    """Class id by what the labels hold, 255 for values to ignore."""
    listed = enumerate(settings["classes"])
    values = {v: at for at, c in listed for v in ([at] if c["values"] is None else c["values"])}
    return values | dict.fromkeys(settings["labels"]["ignore"], IGNORE)


def to_classes(raw: np.ndarray, values: Mapping[int, int], inside: np.ndarray, where: object) -> np.ndarray:
    """Class ids (uint8) of stored label values; SceneError names values inside the image that have no class."""
    out, known = np.full(raw.shape, IGNORE, np.uint8), ~inside
    for value, class_id in values.items():
        here = raw == value
        out[here] = class_id
        known |= here
    if not known.all():
        found = sorted({value.item() for value in np.unique(raw[~known])})[:5]
        raise SceneError(f"label values {found} belong to no class", where=where, hint="name them in the spec")
    return out


def _fill(band: Band, dtype: np.dtype) -> float:
    if band.nodata is not None:
        return band.nodata
    return np.nan if dtype.kind == "f" else 0


def _inside(window: raster.PixelWindow, grid: raster.Grid) -> np.ndarray:
    row, column, height, width = window
    rows, columns = np.arange(row, row + height) < grid.height, np.arange(column, column + width) < grid.width
    return rows[:, None] & columns[None]
