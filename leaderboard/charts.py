"""Geometry of the page's two drawings, interval strips and Pareto plots: numbers in, positions in pixels out.

The templates draw them as inline SVG in the page's own colours, so they work without JavaScript, follow dark mode and
link to the rows. (A Vega-Lite runtime would be 84 MB to install and cannot put links into an SVG.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

STRIP_WIDTH, STRIP_HEIGHT, STRIP_MARGIN = 168, 26, 14
PLOT_WIDTH, PLOT_HEIGHT = 720, 380
PLOT_LEFT, PLOT_RIGHT, PLOT_TOP, PLOT_BOTTOM = 58, 24, 22, 50
LABEL_HEIGHT, CHARACTER_WIDTH = 15, 6.6  # of the plot's 12 px labels, on the wide side


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from ``low`` to ``high`` on the pixels from ``start`` to ``end``."""

    low: float
    high: float
    ticks: tuple[float, ...]
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value, rounded to 0.1 px; values beyond the axis are drawn at its end."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        value = math.log10(value) if self.log else value
        fraction = min(1.0, max(0.0, (value - low) / (high - low)))
        return round(self.start + fraction * (self.end - self.start), 1)


def linear_axis(values: Iterable[float], start: float, end: float, most: int = 4) -> Axis:
    """Round limits around ``values`` with at most ``most`` steps of 1, 2 or 5 times a power of ten."""
    values = list(values) or [0.0, 1.0]
    low, high = min(values), max(values)
    largest = max(abs(high), 1.0)
    if high - low <= 1e-6 * largest:  # equal but for rounding: one value
        high = low + largest / 10
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power, 2 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
        if last - first <= most:
            break
    ticks = tuple(float(f"{i * step:.10g}") for i in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks, start, end)


def log_axis(values: Sequence[float], start: float, end: float) -> Axis:
    """Limits at 1, 2 or 5 times powers of ten around positive ``values``; ticks thinned to at most eight."""
    steps = [m * 10.0**e for e in range(-9, 16) for m in (1, 2, 5)]
    low = max((s for s in steps if s <= min(values) / 1.15), default=steps[0])
    high = min((s for s in steps if s >= max(values) * 1.15), default=steps[-1])
    ticks = [s for s in steps if low <= s <= high]
    if len(ticks) > 8:
        ticks = [s for s in ticks if math.log10(s) % 1 < 1e-6 or math.log10(s) % 1 > 1 - 1e-6]
    return Axis(low, high, tuple(float(f"{t:.10g}") for t in ticks), start, end, log=True)


@dataclass(frozen=True)
class Strip:
    """One row's figure: interval bar from ``low`` to ``high``, ``dots`` for units, ``head`` for the headline."""

    low: float | None
    high: float | None
    dots: tuple[tuple[float, str], ...]
    head: float | None
    floor: float | None


def strip_axis(values: Iterable[float], span: float | None = None) -> Axis:
    """The common axis of a table's strips, never so narrow that noise looks like a difference.

    Args:
        values: what is drawn.
        span: least width of the axis; None: 0.2, for scores from 0 to 1.
    """
    values = list(values)
    least, low, high = (0.2, 0.0, 1.0) if span is None else (span, -math.inf, math.inf)
    if values and max(values) - min(values) < least / 2:
        middle = (max(values) + min(values)) / 2
        values += [max(low, middle - least / 2), min(high, middle + least / 2)]
    return linear_axis(values, STRIP_MARGIN, STRIP_WIDTH - STRIP_MARGIN)


def strip(
    axis: Axis,
    head: float | None,
    interval: tuple[float, float] | None,
    dots: Iterable[tuple[float, str]],
    floor: float | None,
) -> Strip:
    """Positions of one row on the common axis; ``floor`` is the best trivial row's headline."""
    low, high = (axis.at(v) for v in interval) if interval else (None, None)
    return Strip(
        low,
        high,
        tuple((axis.at(v), tip) for v, tip in dots),
        None if head is None else axis.at(head),
        None if floor is None else axis.at(floor),
    )


@dataclass(frozen=True)
class Point:
    """One model of a Pareto plot: throughput ``speed`` (> 0), ``score``, and its interval where there is one."""

    label: str
    target: str
    tip: str
    speed: float
    score: float
    interval: tuple[float, float] | None
    trivial: bool


@dataclass(frozen=True)
class Mark:
    """A drawn point; ``label`` is (x, y, SVG text-anchor), or None where no room was left for one."""

    point: Point
    x: float
    y: float
    low: float | None
    high: float | None
    front: bool
    label: tuple[float, float, str] | None


@dataclass(frozen=True)
class Pareto:
    """Marks and axes of one device class; ``steps`` is the SVG path of the front."""

    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    steps: str


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the (speed, score) pairs that no other pair reaches in both and beats in one, fastest first."""
    order = sorted(range(len(points)), key=lambda i: (-points[i][0], -points[i][1]))
    front: list[int] = []
    for i in order:
        if not front or points[i][1] > points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return front


def pareto(points: Sequence[Point], *, lower: bool = False) -> Pareto:
    """Lay out accuracy (upwards, linear) against throughput (to the right, logarithmic).

    Args:
        points: one device class's.
        lower: lower scores are better, and are drawn higher up.
    """
    scores = [p.score for p in points] + [v for p in points for v in p.interval or ()]
    x = log_axis([p.speed for p in points], PLOT_LEFT, PLOT_WIDTH - PLOT_RIGHT)
    ends = (PLOT_TOP, PLOT_HEIGHT - PLOT_BOTTOM) if lower else (PLOT_HEIGHT - PLOT_BOTTOM, PLOT_TOP)
    y = linear_axis(scores, *ends, most=6)
    front = pareto_front([(p.speed, -p.score if lower else p.score) for p in points])
    places = [(x.at(p.speed), y.at(p.score)) for p in points]
    taken = [(px - 6, py - 6, px + 6, py + 6) for px, py in places]
    taken += [
        (px - 3, min(map(y.at, p.interval)), px + 3, max(map(y.at, p.interval)))
        for p, (px, _) in zip(points, places, strict=True)
        if p.interval
    ]
    line = _steps([places[i] for i in front], x.start, PLOT_HEIGHT - PLOT_BOTTOM)
    taken += [(min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1) for (a, b), (c, d) in pairwise(line)]
    labels: dict[int, tuple[float, float, str]] = {}
    for i in [*front, *(i for i in range(len(points)) if i not in front)]:
        if (found := _place(points[i].label, *places[i], taken)) is not None:
            labels[i], box = found
            taken.append(box)
    marks = tuple(
        Mark(
            p,
            *places[i],
            *((y.at(p.interval[0]), y.at(p.interval[1])) if p.interval else (None, None)),
            i in front,
            labels.get(i),
        )
        for i, p in enumerate(points)
    )
    return Pareto(x, y, marks, "M" + "L".join(f"{px} {py}" for px, py in line))


def short(text: str, most: int = 28) -> str:
    """A label that fits into the plot: its middle is cut, since names of one family differ at the end."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[most // 2 + 1 - most :]}"


def _place(text: str, x: float, y: float, taken: Sequence[tuple[float, float, float, float]]):
    """Where a label fits beside its point, with the box that it takes; None where it would cover something."""
    width = CHARACTER_WIDTH * len(short(text))
    for dx, dy, anchor in (
        (11, 0, "start"),
        (-11, 0, "end"),
        (0, -15, "middle"),
        (0, 16, "middle"),
        (9, -12, "start"),
        (9, 13, "start"),
        (-9, -12, "end"),
        (-9, 13, "end"),
    ):
        left = x + dx - {"start": 0, "middle": width / 2, "end": width}[anchor]
        box = (left, y + dy - LABEL_HEIGHT / 2, left + width, y + dy + LABEL_HEIGHT / 2)
        inside = box[0] >= PLOT_LEFT and box[2] <= PLOT_WIDTH and box[1] >= 0 and box[3] <= PLOT_HEIGHT - PLOT_BOTTOM
        if inside and not any(box[0] < t[2] and t[0] < box[2] and box[1] < t[3] and t[1] < box[3] for t in taken):
            return (round(x + dx, 1), round(y + dy + 4, 1), anchor), box
    return None


def _steps(places: Sequence[tuple[float, float]], left: float, bottom: float) -> list[tuple[float, float]]:
    """Corners of the front, from the axis below the fastest model to the axis left of the most accurate one."""
    corners = [(places[0][0], bottom), places[0]]
    for x, y in places[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return [*corners, (left, corners[-1][1])]
