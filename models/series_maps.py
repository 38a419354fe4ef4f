"""Dated class maps: when each was seen, whether it fits the others, and the regions that areas are asked of."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from ..datasets.mosaic import Mosaic, overlap
from ..datasets.polygons import read_frame
from ..datasets.products import walk
from ..datasets.raster import Grid, PixelWindow, check_georeferenced, open_raster, read_window
from ..errors import ConfigError, InputError, SceneError
from .predictions import NODATA

# 20200131, 2020-01-31, 2020_01, 202001; not a part of a longer number.
DATE = (
    r"(?<!\d)(?P<year>(?:19|20)\d\d)[-_.]?(?P<month>0[1-9]|1[0-2])"
    r"(?:[-_.]?(?P<day>0[1-9]|[12]\d|3[01]))?(?!\d)"
)
GEOTIFFS = (".tif", ".tiff")
PROBABILITY = "probability"
MAX_CSV_BYTES = 16 << 20
MAX_REGIONS = 10_000
WATER = "water"


@dataclass(frozen=True)
class ClassMap:
    """A class map: ``number`` is the class whose area is wanted, ``nodata`` what stands for not seen."""

    path: Path
    date: datetime.date
    grid: Grid
    number: int
    nodata: int

    @property
    def month(self) -> str:
        """Year and month, such as 2020-07."""
        return f"{self.date:%Y-%m}"

    def read(self, grid: Grid, window: PixelWindow) -> np.ndarray:
        """uint8 (h, w) of a window of ``grid``: 1 the class, 0 another one, 255 not seen; nearest pixel elsewhere.

        Raises:
            SceneError: a block cannot be read.
        """
        if self.grid == grid:
            with open_raster(self.path) as file:
                stored = read_window(file, window, (1,))[0]
        else:
            with Mosaic([self.path], grid, nodata=self.nodata, source_nodata=self.nodata) as mosaic:
                stored = mosaic.read(window)[0]
        return np.where(stored == self.nodata, np.uint8(NODATA), (stored == self.number).astype(np.uint8))


@dataclass(frozen=True)
class Region:
    """A named piece of ground; without geometry all of the grid."""

    name: str
    geometry: shapely.Geometry | None = None

    def mask(self, grid: Grid, first: int, stop: int) -> tuple[slice, slice, np.ndarray] | None:
        """Rows, columns (of a strip of the grid) and bool (rows, columns): pixels whose centre lies in the region."""
        if self.geometry is None:
            return slice(0, stop - first), slice(0, grid.width), np.ones((stop - first, grid.width), bool)
        from rasterio import Affine, features

        a, _, c, _, e, f = grid.transform
        west, south, east, north = self.geometry.bounds
        top, bottom = max(first, int((north - f) / e) - 1), min(stop, int((south - f) / e) + 2)
        left, right = max(0, int((west - c) / a) - 1), min(grid.width, int((east - c) / a) + 2)
        if top >= bottom or left >= right:
            return None
        place = Affine(*grid.window_transform((top, left, bottom - top, right - left)))
        shape = (bottom - top, right - left)
        inside = features.rasterize([self.geometry], shape, transform=place, dtype="uint8") == 1
        return slice(top - first, bottom - first), slice(left, right), inside


def find_maps(sources: Iterable[str | Path]) -> list[Path]:
    """GeoTIFFs among files and below folders; maps of probability beside class maps are left out of folders."""
    found: dict[Path, None] = {}
    for source in map(Path, sources):
        if not source.is_dir():
            found[source] = None
            continue
        for name in walk(source):
            if name.lower().endswith(GEOTIFFS) and not Path(name).stem.endswith(f"_{PROBABILITY}"):
                found[source / name] = None
    if not found:
        raise InputError("no class map", hint="give GeoTIFFs that predict wrote, or a folder of them")
    return list(found)


def date_pattern(text: str | None) -> re.Pattern:
    """A regular expression with the groups year, month and perhaps day; None: the usual ways to write dates."""
    try:
        pattern = re.compile(text or DATE)
    except re.error as error:
        raise ConfigError(f"no regular expression ({error})", where=text) from None
    if not {"year", "month"} <= set(pattern.groupindex):
        raise ConfigError("a date pattern has the groups (?P<year>…) and (?P<month>…), perhaps day", where=text)
    return pattern


def date_in_name(path: Path, pattern: re.Pattern) -> datetime.date:
    """The first date in a file's name; the 1st where there is no day. Raises SceneError where there is none."""
    for match in pattern.finditer(path.stem):
        parts = match.groupdict()
        try:
            return datetime.date(int(parts["year"]), int(parts["month"]), int(parts.get("day") or 1))
        except (ValueError, TypeError):
            continue
    raise SceneError("no date in its name", where=path, hint="give --date-pattern or --dates")


def read_dates(path: Path) -> dict[str, datetime.date]:
    """File name -> date, from a CSV with the columns file and date (2020-07-31 or 2020-07).

    Raises:
        ConfigError: no such CSV, or a line is wrong, which is named.
    """
    rows = _read_csv(path, ("file", "date"))
    found: dict[str, datetime.date] = {}
    for number, row in rows:
        name, text = Path(row["file"].strip()).name, row["date"].strip()
        try:
            date = datetime.date.fromisoformat(text if len(text) > 7 else f"{text}-01")
        except ValueError:
            raise ConfigError(f"line {number}: no date {text!r}", where=path, hint="write 2020-07-31") from None
        if found.setdefault(name, date) != date:
            raise ConfigError(f"line {number}: a second date for {name}", where=path)
    return found


def read_sample(path: Path) -> np.ndarray:
    """Sample points as integers (2, 2), map in rows, truth in columns, from a CSV with columns map, truth and count.

    ``map`` and ``truth`` are 1 for the class and 0 for everything else.
    """
    table = np.zeros((2, 2), np.int64)
    for number, row in _read_csv(path, ("map", "truth", "count")):
        try:
            mapped, truth, count = (int(row[key]) for key in ("map", "truth", "count"))
        except ValueError:
            raise ConfigError(f"line {number}: not whole numbers", where=path) from None
        if mapped not in (0, 1) or truth not in (0, 1) or not 0 <= count <= 2**53:
            raise ConfigError(f"line {number}: map and truth are 0 or 1, a count is not negative", where=path)
        table[mapped, truth] += count
    return table


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_CSV_BYTES + 1)
        if len(data) > MAX_CSV_BYTES:
            raise ConfigError(f"over {MAX_CSV_BYTES} bytes", where=path)
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True)
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise ConfigError(f"no column {', '.join(missing)}", where=path, hint=f"columns: {', '.join(columns)}")
        rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=path) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"not a CSV in UTF-8 ({error})", where=path) from None
    if any(row[name] is None for _, row in rows for name in columns):
        raise ConfigError("a line has too few columns", where=path)
    return rows


def open_map(path: Path, date: datetime.date, wanted: str | None) -> ClassMap:
    """Check a class map.

    Args:
        path: GeoTIFF of class ids uint8; 255 (or its nodata value) = not seen.
        date: when it was seen.
        wanted: name or number of the class; None: water where the map names its classes, else 1.

    Raises:
        SceneError: no class map, or not georeferenced, or without that class.
    """
    with open_raster(path) as file:
        grid = check_georeferenced(file)
        description = (file.descriptions[0] or "").strip()
        if file.dtypes[0] != "uint8" or description.startswith(PROBABILITY):
            what = description or f"{file.count} bands of {file.dtypes[0]}"
            raise SceneError(f"no class map ({what})", where=path, hint="give the class maps that predict writes")
        nodata = NODATA if file.nodata is None else int(file.nodata)
    names = {name: int(number) for number, name in re.findall(r"(\d+) = ([^,]+)", description)}
    if wanted is not None and wanted.isdecimal():
        number = int(wanted)
        known = not names or number in names.values()
    else:
        number = names.get(wanted or WATER, None if wanted or names else 1)
        known = number is not None
    if not known or number == nodata or number > NODATA:
        named = ", ".join(names) or "numbers alone"
        raise SceneError(f"no class {wanted or WATER!r}, there is {named}", where=path, hint="give --class")
    return ClassMap(path, date, grid, number, nodata)


def check_reaches(found: ClassMap, grid: Grid, first: Path) -> None:
    """SceneError where a map on another grid shares no ground with the series'."""
    if found.grid != grid and not overlap(found.grid, grid):
        raise SceneError(f"shares no ground with {first.name}", where=found.path)


def read_regions(path: Path, grid: Grid, attribute: str | None) -> list[Region]:
    """Regions in the grid's CRS, in order of their names; polygons of one name are one region.

    Args:
        path: GeoPackage, GeoJSON or shapefile.
        grid: of the series.
        attribute: that names them; None: ``name`` where there is one, else they are numbered.

    Raises:
        SceneError: unreadable, no polygons, or without the attribute.
    """
    frame = read_frame(path, grid)
    if attribute is None and "name" in frame.columns:
        attribute = "name"
    if attribute is not None and attribute not in frame.columns:
        fields = ", ".join(str(c) for c in frame.columns if c != frame.geometry.name) or "none"
        raise SceneError(f"no attribute {attribute!r}, there is {fields}", where=path)
    if len(frame) == 0:
        raise SceneError("no polygon meets the maps", where=path)
    names = [str(v) for v in frame[attribute]] if attribute else [str(i) for i in range(1, len(frame) + 1)]
    parts: dict[str, list] = {}
    for name, geometry in zip(names, frame.geometry, strict=True):
        parts.setdefault(name, []).append(geometry)
    if len(parts) > MAX_REGIONS:
        raise SceneError(f"{len(parts)} regions, over {MAX_REGIONS}", where=path)
    order = parts if attribute is None else sorted(parts)
    return [Region(name, shapely.union_all(parts[name])) for name in order]
