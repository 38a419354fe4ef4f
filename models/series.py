"""Dated class maps to occurrence, monthly area by region with its uncertainty, and trend; strip by strip."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from ..datasets.raster import Grid
from ..errors import InputError, PartialResultError, SceneError
from .cog import BLOCK_PX, cog_writer, draft_profile
from .ground_area import ground_area_km2
from .predictions import NODATA
from .series_area import Area, ErrorRates, Trend, corrected_area, sampled_area, trend
from .series_maps import (
    ClassMap,
    Region,
    check_reaches,
    date_in_name,
    date_pattern,
    find_maps,
    open_map,
    read_dates,
    read_regions,
)

OCCURRENCE_NAME, OBSERVATIONS_NAME = "occurrence.tif", "observations.tif"
PERCENT = 100
MAX_MAPS = 60_000  # observations of a pixel are counted in 16 bits
MIN_SEEN = 0.95
EVERYWHERE = "all"


@dataclass(frozen=True)
class Month:
    """One region in one month, areas in km².

    Attributes:
        region, month: such as "lake", "2020-07".
        maps: number of maps of the month.
        region_km2, seen_km2, mapped_km2: ground of the region on the grid; of that what any map saw; of that what is
            mapped as the class (by at least half of the month's observations of a pixel).
        area: with the errors of the maps taken out, of the ground that was seen; the mapped area where these are not
            known.
    """

    region: str
    month: str
    maps: int
    region_km2: float
    seen_km2: float
    mapped_km2: float
    area: Area

    @property
    def seen_share(self) -> float:
        """Share of the region that was seen, 0…1; NaN for a region without a pixel."""
        return self.seen_km2 / self.region_km2 if self.region_km2 else float("nan")

    @property
    def year(self) -> float:
        """The month's middle as a decimal year."""
        return int(self.month[:4]) + (int(self.month[5:]) - 0.5) / 12


@dataclass(frozen=True)
class Series:
    """What ``series`` found: months by region and date, trends by region, and the maps that could not be used."""

    months: list[Month]
    trends: dict[str, Trend]
    skipped: dict[str, str]


class _BadMap(Exception):
    def __init__(self, found: ClassMap, error: SceneError) -> None:
        super().__init__(str(error))
        self.map, self.error = found, error


def series(
    maps: Sequence[str | Path],
    out: str | Path,
    *,
    dates: str | Path | None = None,
    pattern: str | None = None,
    class_name: str | None = None,
    regions: str | Path | None = None,
    region_name: str | None = None,
    errors: ErrorRates | np.ndarray | None = None,
    min_seen: float = MIN_SEEN,
    strict: bool = False,
) -> Series:
    """Occurrence, monthly area and trend of a class from dated maps.

    Args:
        maps: class maps as ``predict`` writes them (uint8, 255 = not seen), or folders of them. The first by date gives
            the grid; maps on other grids are brought to it by their nearest pixel.
        out: folder for ``occurrence.tif`` (percent of a pixel's observations that show the class, uint8, 255 = never
            seen), ``observations.tif`` (their number, uint16), ``area.csv``, ``trend.csv`` and ``area.png``.
        dates: CSV with the columns file and date, instead of dates in file names.
        pattern: regular expression for dates in file names, with the groups year, month and perhaps day.
        class_name: name or number of the class; by default water.
        regions: polygons to report by; by default all of the grid.
        region_name: attribute that names them.
        errors: ``ErrorRates``, or integers (2, 2) of a sample, see ``series_area``; None: areas as mapped.
        min_seen: a month counts for the trend where this share of the region was seen.
        strict: stop at the first map that cannot be used.

    Returns:
        What is in the tables.

    Raises:
        InputError: no map can be used, or an argument is wrong.
        PartialResultError: some maps could not be used (each named); everything is written from the others.
        StorageError: a result cannot be written; files that were there before stay.
    """
    if not 0 <= min_seen <= 1:
        raise InputError(f"min_seen is a share from 0 to 1, found {min_seen}")
    paths = find_maps(maps)
    if len(paths) > MAX_MAPS:
        raise InputError(f"{len(paths)} maps, over {MAX_MAPS}")
    skipped: dict[str, str] = {}

    def skip(path: Path, error: InputError) -> None:
        if strict:
            raise error
        skipped[str(path)] = str(error)
        print(f"tidemark: {error}", file=sys.stderr)

    used = _check(paths, _dating(dates, pattern), class_name, skip)
    while True:
        if not used:
            raise InputError(f"none of {len(paths)} maps can be used", hint=next(iter(skipped.values())))
        grid = used[0].grid
        places = [Region(EVERYWHERE)] if regions is None else read_regions(Path(regions), grid, region_name)
        try:
            sums = _write_rasters(used, grid, places, Path(out))
            break
        except _BadMap as bad:  # its rows are in the sums already, so all begin anew without it
            skip(bad.map.path, bad.error)
            used = [one for one in used if one != bad.map]
    found = Series(_months(used, places, sums, errors), {}, skipped)
    for region in places:
        own = [m for m in found.months if m.region == region.name and m.seen_share >= min_seen]
        found.trends[region.name] = trend([m.year for m in own], [m.area.value for m in own])
    from .series_tables import write_tables

    write_tables(Path(out), found, min_seen)
    if skipped:
        raise PartialResultError(
            f"{len(used)} of {len(paths)} maps used; not {', '.join(Path(p).name for p in list(skipped)[:20])}"
        )
    return found


def _dating(dates: str | Path | None, pattern: str | None) -> Callable:
    if dates is None:
        compiled = date_pattern(pattern)
        return lambda path: date_in_name(path, compiled)
    if pattern is not None:
        raise InputError("dates come from a CSV or from names, not both")
    table = read_dates(Path(dates))

    def listed(path: Path):
        if path.name not in table:
            raise SceneError(f"not in {Path(dates).name}", where=path)
        return table[path.name]

    return listed


def _check(paths: Sequence[Path], dating: Callable, class_name: str | None, skip: Callable) -> list[ClassMap]:
    """The maps that can be used, by date; the others are given to ``skip``."""
    opened, used = [], []
    for path in paths:
        try:
            opened.append(open_map(path, dating(path), class_name))
        except InputError as error:
            skip(path, error)
    for found in sorted(opened, key=lambda m: (m.date, m.path.name)):
        try:
            if used:
                check_reaches(found, used[0].grid, used[0].path)
            used.append(found)
        except SceneError as error:
            skip(found.path, error)
    return used


def _write_rasters(maps: list[ClassMap], grid: Grid, regions: list[Region], out: Path) -> np.ndarray:
    """Write occurrence and observations; km² (months, regions, 3): of the region, seen, mapped.

    Memory: a few arrays of 256 rows, whatever the number of maps and months.
    """
    months = [list(group) for _, group in groupby(maps, key=lambda m: m.month)]
    sums = np.zeros((len(months), len(regions), 3))
    with ExitStack() as stack:
        profile = draft_profile(grid, nodata=NODATA)
        occurrence = stack.enter_context(cog_writer(out / OCCURRENCE_NAME, profile))
        counted = draft_profile(grid, dtype="uint16")
        observations = stack.enter_context(cog_writer(out / OBSERVATIONS_NAME, counted, resampling="nearest"))
        occurrence.set_band_description(1, "share of observations, percent")
        occurrence.set_band_unit(1, "%")
        observations.set_band_description(1, "number of observations")
        for first, stop in _progress(range(0, grid.height, BLOCK_PX), grid):
            km2 = ground_area_km2(grid, first, stop)
            masks = [region.mask(grid, first, stop) for region in regions]
            seen, shown = (np.zeros((stop - first, grid.width), np.uint16) for _ in range(2))
            for number, group in enumerate(months):
                month_seen, month_shown = _observe(group, grid, first, stop)
                seen += month_seen
                shown += month_shown
                known = month_seen > 0
                mapped = known & (2 * month_shown >= month_seen)
                for place, mask in enumerate(masks):
                    if mask is not None:
                        rows, columns, inside = mask
                        area = km2[rows, columns] * inside
                        whole = (area.sum(), area[known[rows, columns]].sum(), area[mapped[rows, columns]].sum())
                        sums[number, place] += whole
            window = Window(0, first, grid.width, stop - first)
            share = np.full(seen.shape, NODATA, np.uint8)
            np.rint(PERCENT * shown / np.maximum(seen, 1), out=share, where=seen > 0, casting="unsafe")
            occurrence.write(share, 1, window=window)
            observations.write(seen, 1, window=window)
    return sums


def _observe(maps: list[ClassMap], grid: Grid, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """uint16 (rows, width) twice: how many maps saw a pixel, and how many show the class."""
    seen, shown = (np.zeros((stop - first, grid.width), np.uint16) for _ in range(2))
    for found in maps:
        try:
            values = found.read(grid, (first, 0, stop - first, grid.width))
        except SceneError as error:
            raise _BadMap(found, error) from None
        seen += values != NODATA
        shown += values == 1
    return seen, shown


def _progress(rows: range, grid: Grid) -> Iterator[tuple[int, int]]:
    from rich.progress import track

    for first in track(rows, "series", transient=True, disable=not sys.stderr.isatty()):
        yield first, min(first + BLOCK_PX, grid.height)


def _months(maps: list[ClassMap], regions: list[Region], sums: np.ndarray, errors) -> list[Month]:
    groups = [(month, len(list(group))) for month, group in groupby(maps, key=lambda m: m.month)]
    found = []
    for place, region in enumerate(regions):
        for number, (month, count) in enumerate(groups):
            whole, seen, mapped = (float(v) for v in sums[number, place])
            found.append(Month(region.name, month, count, whole, seen, mapped, _area(mapped, seen, errors)))
    return found


def _area(mapped: float, seen: float, errors: ErrorRates | np.ndarray | None) -> Area:
    if errors is None or not seen:
        return Area(mapped, float("nan"), float("nan"))
    if isinstance(errors, ErrorRates):
        return corrected_area(mapped, seen, errors)
    try:
        return sampled_area(mapped, seen, errors)
    except ValueError as error:
        raise InputError(f"the sample does not do ({error})", hint="draw points in both classes of the map") from None
