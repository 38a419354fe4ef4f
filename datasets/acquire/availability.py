"""Dates on which an area is seen without clouds, by Landsat-8, by Sentinel-2 and by either.

A date (UTC) is cloud-free for a sensor when its scenes of that day whose own cloud cover, as the catalogue tells it for
the whole scene, is at most a limit together cover at least a share of the area. No pixel is read: a cloud over the area
in an otherwise clear scene is not noticed, and a clear area in a cloudy scene is lost. United are the dates of either
sensor, a day that both have counted once.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from shapely import union_all
from shapely.geometry.base import BaseGeometry

from ..files import atomic_path, write_atomic
from .l8s2 import landsat_name, product_name
from .stac import Scene

SENSORS = ("landsat8", "sentinel2")
NAMES = {"landsat8": "Landsat-8", "sentinel2": "Sentinel-2", "united": "either"}
COLORS = {"landsat8": "#c2703d", "sentinel2": "#3b7d5a", "united": "#1f6fb4"}


@dataclass(frozen=True)
class Availability:
    """Cloud-free dates of a year.

    Attributes:
        year: of the dates.
        dates: sensor -> dates, sorted; ``united`` among the sensors.
    """

    year: int
    dates: dict[str, tuple[datetime.date, ...]]

    def monthly(self) -> np.ndarray:
        """(12, 3) int64: dates in each month of Landsat-8, Sentinel-2 and either."""
        kinds = (*SENSORS, "united")
        return np.array([[sum(d.month == m for d in self.dates[k]) for k in kinds] for m in range(1, 13)])

    def gain(self, sensor: str) -> float | None:
        """By which share the united dates are more than a sensor's own, None where it has none."""
        own = len(self.dates[sensor])
        return len(self.dates["united"]) / own - 1 if own else None


def clear_dates(
    scenes: Sequence[Scene], area: BaseGeometry, max_cloud_percent: float, min_share: float
) -> tuple[datetime.date, ...]:
    """The dates whose clear scenes together cover the share of the area."""
    days: dict[datetime.date, list[BaseGeometry]] = {}
    for scene in scenes:
        if scene.cloud_percent is not None and scene.cloud_percent <= max_cloud_percent:
            days.setdefault(scene.day, []).append(scene.footprint.intersection(area))
    covered = {day: union_all(parts).area / area.area for day, parts in days.items()}
    # footprints are drawn with a few digits: what is whole on the ground may lack a millionth here
    return tuple(sorted(day for day, share in covered.items() if share >= min_share - 1e-6))


def availability(
    year: int,
    landsat: Sequence[Scene],
    sentinel2: Sequence[Scene],
    area: BaseGeometry,
    max_cloud_percent: float,
    min_share: float,
) -> Availability:
    """Count from what the catalogues have over the area in a year; other satellites' scenes are left out."""
    own = {
        "landsat8": [s for s in landsat if landsat_name(s)],
        "sentinel2": [s for s in sentinel2 if product_name(s)],
    }
    dates = {sensor: clear_dates(own[sensor], area, max_cloud_percent, min_share) for sensor in SENSORS}
    return Availability(year, {**dates, "united": tuple(sorted({*dates["landsat8"], *dates["sentinel2"]}))})


def write_csv(path: Path, found: Availability) -> None:
    """One line a month, then the year."""
    text = io.StringIO()
    months = found.monthly()
    text.write(f"month,{','.join((*SENSORS, 'united'))}\n")
    for number, row in enumerate(months, 1):
        text.write(f"{found.year}-{number:02d},{','.join(map(str, row))}\n")
    text.write(f"{found.year},{','.join(map(str, months.sum(0)))}\n")
    write_atomic(path, text.getvalue())


def write_plot(path: Path, found: Availability, title: str) -> None:
    """Bars of cloud-free dates a month, PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(title=title, ylabel="cloud-free dates")
    months = found.monthly()
    for index, kind in enumerate((*SENSORS, "united")):
        label = f"{NAMES[kind]} ({months[:, index].sum()})"
        axes.bar(np.arange(12) + (index - 1) * 0.27, months[:, index], 0.27, color=COLORS[kind], label=label)
    axes.set_xticks(range(12), ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"])
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)


def words(found: Availability) -> str:
    """Dates of each and the gain, a line each."""
    lines = [f"{NAMES[k]}: {len(found.dates[k])} cloud-free dates in {found.year}" for k in (*SENSORS, "united")]
    for sensor in SENSORS:
        gain = found.gain(sensor)
        lines.append(f"gain over {NAMES[sensor]} alone: " + ("no own date" if gain is None else f"{gain:+.0%}"))
    return "\n".join(lines)
