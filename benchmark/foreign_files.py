"""Arrays of foreign models by chip: GeoTIFFs on the chips' or the scenes' grids, and NumPy files.

Everything is looked at before it is read: rasters open with GDAL's GeoTIFF driver alone, NumPy files without pickles,
their declared sizes must be those of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import getitem
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError

from ..datasets import raster
from ..datasets.footprints import stated_crs
from ..datasets.reader import Shard
from ..datasets.spec import Manifest
from ..errors import FormatError, InputError
from .numpy_files import MAX_ARRAYS, map_npy, unpack_npz

RASTERS, ARRAYS = (".tif", ".tiff"), (".npy", ".npz")


@dataclass(frozen=True)
class ChipPlace:
    """Where a chip lies: scene and window in it, and the affine of its grid (None where unknown)."""

    id: str
    scene: str
    crs: str | None
    window: raster.PixelWindow
    size: tuple[int, ...]  # rows and columns of its label; () of a patch
    transform: raster.Affine6 | None
    shard: Shard
    row: int


@dataclass(frozen=True)
class Source:
    """One chip's values in one file: a window of a raster from ``offset`` (row, column), or what ``load`` gives."""

    path: Path
    place: ChipPlace
    offset: tuple[int, int] | None = None
    load: Callable[[], NDArray] | None = None  # mapped when it is read: a process may hold some 65 000 maps only


def chip_places(manifest: Manifest, shards: Sequence[Shard]) -> dict[str, ChipPlace]:
    """All chips of a split, in its order."""
    places, size = {}, manifest.label_array.shape[-2:]
    for shard in shards:
        columns = zip(shard.chip_ids, shard.scene_index, shard.window, shard.transform, strict=True)
        for row, (chip, number, window, transform) in enumerate(columns):
            scene = manifest.scenes[int(number)]
            known = tuple(map(float, transform)) if np.isfinite(transform).all() else None
            places[chip] = ChipPlace(chip, scene.id, scene.crs, tuple(map(int, window)), size, known, shard, row)
    return places


def list_files(paths: Iterable[str | Path]) -> list[Path]:
    """GeoTIFFs and NumPy files among files and folders; in folders other files are passed over.

    Raises:
        InputError: nothing there, a file of another kind, or too many.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in RASTERS + ARRAYS and p.is_file())
        else:
            raster.local_file(path)
            if path.suffix.lower() not in RASTERS + ARRAYS:
                hint = f"{', '.join(RASTERS + ARRAYS)} are read; pickles never"
                raise InputError("neither a GeoTIFF nor a NumPy file", where=path, hint=hint)
            found.append(path)
        if len(found) > MAX_ARRAYS:
            raise InputError(f"more than {MAX_ARRAYS} files", where=path)
    if not found:
        raise InputError("no GeoTIFF and no NumPy file", where=", ".join(map(str, paths)))
    return found


def find_sources(
    files: Sequence[Path], places: dict[str, ChipPlace], shape: tuple[int, ...], layer: str, scratch: Path
) -> dict[str, list[Source]]:
    """Which files hold which chips.

    A file is a chip's by its name, ``<chip id>.tif`` or ``.npy``. Another GeoTIFF is a map: of a scene by its name, or
    by where it lies on the ground. A ``.npz`` holds arrays named after chips, or ``chip_id`` (N,) with ``prediction``
    and, where there are any, ``probability`` or ``reflectance``, each (N, …).

    Args:
        files: from `list_files`.
        places: from `chip_places`.
        shape: of one chip's array.
        layer: ``prediction``, ``probability`` or ``reflectance``.
        scratch: folder for unpacked arrays.

    Raises:
        FormatError: a file that belongs to no chip, does not fit its grid or shape, or would need a pickle.
        SceneError: no readable GeoTIFF.
    """
    sources: dict[str, list[Source]] = {}
    scenes: dict[str, list[ChipPlace]] = {}
    for place in places.values():
        scenes.setdefault(place.scene, []).append(place)
    foreign = []
    for path in files:
        if path.suffix.lower() in RASTERS:
            found = list(_raster_sources(path, places, scenes, shape))
        elif path.suffix.lower() == ".npz":
            found = list(_npz_sources(path, places, shape, layer, scratch))
        else:
            found = [Source(path, places[path.stem], load=partial(map_npy, path))] if path.stem in places else []
        if not found:
            foreign.append(path.name)
        for source in found:
            if source.load is not None and (there := source.load().shape) != shape:
                raise FormatError(f"chip {source.place.id}: expected shape {shape}, found {there}", where=path)
            sources.setdefault(source.place.id, []).append(source)
    if foreign:
        named = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise FormatError(
            f"{len(foreign)} files belong to no chip and no scene of this split: {named}",
            hint="name them after chips or scenes, or georeference them",
        )
    return sources


def read(source: Source, bands: int) -> tuple[NDArray, NDArray[np.bool_], str]:
    """One chip's values, where there are none, and their unit.

    Args:
        source: from `find_sources`.
        bands: how many the raster must have.

    Returns:
        values: (bands, H, W) from a raster, else the array as it is.
        empty: bool of the same shape: the raster's nodata, and what lies beyond it.
        unit: of the raster's first band, in lower case; "" for arrays.

    Raises:
        FormatError: other bands, no numbers, or a map that ends where pixels still have labels.
    """
    if source.load is not None:
        values = np.array(source.load())
        return values, np.zeros(values.shape, np.bool_), ""
    (height, width), (row, column) = source.place.size, source.offset
    with raster.open_raster(source.path) as dataset:
        if dataset.count != bands:
            raise FormatError(f"expected {bands} bands, found {dataset.count}", where=source.path)
        dtype = np.dtype(dataset.dtypes[0])
        if dtype.kind not in "iuf":
            raise FormatError(f"expected numbers, found {dtype}", where=source.path)
        values = raster.read_window(dataset, (row, column, height, width), range(1, bands + 1))
        inside = np.zeros((height, width), np.bool_)
        inside[max(-row, 0) : max(dataset.height - row, 0), max(-column, 0) : max(dataset.width - column, 0)] = True
        nodata, unit = dataset.nodata, (dataset.units[0] or "").lower()
    empty = np.zeros(values.shape, np.bool_) if nodata is None else values == nodata
    if nodata is not None and np.isnan(nodata):
        empty = np.isnan(values)
    if not inside.all():
        _check_unlabelled(source, ~inside)
    return values, empty | ~inside, unit


def _check_unlabelled(source: Source, beyond: NDArray[np.bool_]) -> None:
    """A map may end inside a chip only where the scene does: there no pixel has a label."""
    manifest, place = source.place.shard.manifest, source.place
    label = place.shard.read(manifest.label_array.name, place.row)
    if label.ndim == 2 and (label[beyond] != manifest.task.ignore_index).any():
        missing = int(np.count_nonzero(label[beyond] != manifest.task.ignore_index))
        raise FormatError(
            f"the map ends inside chip {place.id}: {missing} labelled pixels are not in it", where=source.path
        )


def _raster_sources(
    path: Path, places: dict[str, ChipPlace], scenes: dict[str, list[ChipPlace]], shape: tuple[int, ...]
) -> Iterator[Source]:
    with raster.open_raster(path) as dataset:
        grid = raster.grid_of(dataset)
    if not shape:
        raise FormatError("a raster, but every patch needs one class", where=path, hint="give a .npz")
    if path.stem in places:
        place = places[path.stem]
        if (grid.height, grid.width) != shape[-2:]:
            found = f"{grid.height}x{grid.width}"
            raise FormatError(f"expected {shape[-2]}x{shape[-1]} pixels as the chip has, found {found}", where=path)
        if grid.transform is not None and place.transform is not None and _offset(path, grid, place) != (0, 0):
            raise FormatError(f"not on the grid of chip {place.id}", where=path)
        yield Source(path, place, (0, 0))
        return
    named = scenes.get(path.stem)
    for place in named or places.values():
        if grid.transform is None or place.transform is None:
            whole = place.window[2:] == place.size
            offset = place.window[:2] if named and whole else None  # only the name tells where it lies
        else:
            offset = _offset(path, grid, place, strict=named is not None)
        if offset is not None and _touches(offset, place, grid):
            yield Source(path, place, offset)


def _offset(path: Path, grid: raster.Grid, place: ChipPlace, strict: bool = True) -> tuple[int, int] | None:
    """Row and column of the chip's first pixel in a raster. Where that is not in its CRS or between its pixels: None,
    or with ``strict`` FormatError."""
    if place.crs and grid.crs and not _same_crs(place.crs, grid.crs):
        if strict:
            raise FormatError(f"another CRS than chip {place.id}", where=path, hint="warp it to the scene's grid")
        return None
    a, b, c, d, e, f = grid.transform
    theirs = place.transform
    if b or d or not a or not e or not np.allclose((a, b, d, e), (theirs[0], theirs[1], theirs[3], theirs[4]), 1e-6, 0):
        if strict:
            raise FormatError(
                f"other pixels than chip {place.id} ({a} x {e}, not {theirs[0]} x {theirs[4]})", where=path
            )
        return None
    column, row = (theirs[2] - c) / a, (theirs[5] - f) / e
    if abs(column - round(column)) > raster.GRID_TOLERANCE_PX or abs(row - round(row)) > raster.GRID_TOLERANCE_PX:
        if strict:
            raise FormatError(f"its pixels lie between those of chip {place.id}", where=path)
        return None
    return round(row), round(column)


@lru_cache(maxsize=256)
def _same_crs(stated: str, found: str) -> bool:
    """Whether a manifest's CRS, WKT or an EPSG code, is that of a raster. Raises FormatError where it is none."""
    try:
        own = stated_crs(stated)
    except CRSError as error:
        raise FormatError(f"the data set states a CRS that is none ({error})"[:300], where=stated[:80]) from None
    return own == CRS.from_wkt(found)


def _touches(offset: tuple[int, int], place: ChipPlace, grid: raster.Grid) -> bool:
    (row, column), (height, width) = offset, place.size
    return -height < row < grid.height and -width < column < grid.width


def _npz_sources(
    path: Path, places: dict[str, ChipPlace], shape: tuple[int, ...], layer: str, scratch: Path
) -> Iterator[Source]:
    files = unpack_npz(path, scratch)
    if "chip_id" not in files:
        unknown = [name for name in files if name not in places]
        if unknown:
            raise FormatError(f"{len(unknown)} arrays are named after no chip: {', '.join(unknown[:3])}", where=path)
        for name, file in files.items():
            yield Source(path, places[name], load=partial(map_npy, file, f"{path}, array {name}"))
        return
    if layer not in files:
        raise FormatError(f"no array {layer!r}, there is {', '.join(list(files)[:5])}", where=path)
    stated, values = (map_npy(files[name], f"{path}, array {name}") for name in ("chip_id", layer))
    ids = [i.decode("ascii", "replace") if isinstance(i, bytes) else str(i) for i in stated.ravel().tolist()]
    if values.shape != (len(ids), *shape):
        raise FormatError(f"{layer}: expected {(len(ids), *shape)}, found {values.shape}", where=path)
    unknown = [i for i in ids if i not in places]
    if unknown:
        raise FormatError(f"{len(unknown)} chip ids are not of this split: {', '.join(unknown[:3])}", where=path)
    for number, chip in enumerate(ids):
        yield Source(path, places[chip], load=partial(getitem, values, number))
