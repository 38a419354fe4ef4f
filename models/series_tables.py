"""A series as tables and as a figure."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from ..datasets.files import write_atomic
from .series import Series

AREA_NAME, TREND_NAME, FIGURE_NAME = "area.csv", "trend.csv", "area.png"
AREA_COLUMNS = (
    "region", "month", "maps", "region_km2", "seen_share", "mapped_km2", "area_km2", "low_km2", "high_km2",
)  # fmt: skip
TREND_COLUMNS = (
    "region", "months", "slope_km2_per_year", "low", "high", "mann_kendall_p", "seasonal_slope_km2_per_year",
    "seasonal_p",
)  # fmt: skip
MAX_PANELS = 12


def write_tables(out: Path, series: Series, min_seen: float) -> None:
    """Write ``area.csv``, ``trend.csv`` and ``area.png``; numbers that are not defined are empty.

    Raises:
        StorageError: a file cannot be written.
    """
    areas = [
        (m.region, m.month, m.maps, m.region_km2, m.seen_share, m.mapped_km2, m.area.value, m.area.low, m.area.high)
        for m in series.months
    ]
    trends = [
        (region, t.months, t.slope, t.low, t.high, t.p, t.seasonal_slope, t.seasonal_p)
        for region, t in series.trends.items()
    ]
    figure = _figure(series, min_seen)
    write_atomic(out / AREA_NAME, _csv(AREA_COLUMNS, areas))
    write_atomic(out / TREND_NAME, _csv(TREND_COLUMNS, trends))
    write_atomic(out / FIGURE_NAME, figure)


def _csv(columns: tuple[str, ...], rows: list[tuple]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, str) and value[:1] in "=+-@\t\r":
        return f"'{value}"  # a spreadsheet would run a region's name as a formula
    if isinstance(value, float):
        return f"{value:.9g}" if math.isfinite(value) else ""
    return value


def _figure(series: Series, min_seen: float) -> bytes:
    """PNG: area by month of each region, with interval and trend; months that were hardly seen are hollow."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    regions = list(series.trends)[:MAX_PANELS]
    figure = Figure(figsize=(8, 2.4 * len(regions) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    for number, region in enumerate(regions, 1):
        axes = figure.add_subplot(len(regions), 1, number)
        months = [m for m in series.months if m.region == region]
        years, values = [m.year for m in months], [m.area.value for m in months]
        axes.fill_between(years, [m.area.low for m in months], [m.area.high for m in months], alpha=0.25, linewidth=0)
        axes.plot(years, values, linewidth=0.8)
        for seen, face in ((True, "C0"), (False, "none")):
            own = [m for m in months if (m.seen_share >= min_seen) == seen]
            axes.scatter([m.year for m in own], [m.area.value for m in own], s=14, edgecolors="C0", facecolors=face)
        found, used = series.trends[region], [m for m in months if m.seen_share >= min_seen]
        title = region.replace("$", r"\$")  # no TeX from a file's attributes
        if math.isfinite(found.slope):
            middle = sorted(m.year for m in used)[len(used) // 2]
            level = sorted(m.area.value - found.slope * (m.year - middle) for m in used)[len(used) // 2]
            ends = [min(m.year for m in used), max(m.year for m in used)]
            axes.plot(ends, [level + found.slope * (year - middle) for year in ends], "--", color="C1", linewidth=1)
            title += f"   {found.slope:+.3g} km² a year, p = {found.p:.2g}"
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_ylabel("km²")
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="x", useOffset=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
