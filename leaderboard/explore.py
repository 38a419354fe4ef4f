"""Which units (scenes, events, blocks) separate the models of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import charts
from .view import Entry, Table

MAX_MODELS = 12  # drawn per unit
MAX_LINES = 40
MAX_UNITS_COMPARED = 500


@dataclass(frozen=True)
class UnitLine:
    """One unit: the models that are best and worst on it, how far apart they are, and every model's place."""

    id: str
    pixels: int
    best: str
    high: float
    worst: str
    low: float
    dots: tuple[tuple[float, str, bool], ...]  # pixel, words, whether it is the table's first model

    @property
    def spread(self) -> float:
        """Distance between the best and the worst model."""
        return abs(self.high - self.low)


@dataclass(frozen=True)
class Separation:
    """The units of a table, the most separating first, on a common axis."""

    axis: charts.Axis
    models: int
    first: str
    units: int
    lines: tuple[UnitLine, ...]


def separation(table: Table) -> Separation | None:
    """Units by the distance between the models; None where there are too few models, or a column shows every unit.

    Trivial rows are left out where two others remain: what separates a model from a constant is no news.
    """
    if table.unit_columns:
        return None
    others = [e for e in table.entries if not e.trivial]
    entries = (others if len(others) > 1 else list(table.entries))[:MAX_MODELS]
    head, found = table.headline, []
    for unit in table.units:
        scores = [(s, e) for e in entries if (s := _scores(e, head.key).get(unit)) is not None]
        if len(scores) > 1:
            found.append((unit, sorted(scores, key=lambda item: item[0], reverse=head.better != "lower")))
    if len(entries) < 2 or not found:
        return None
    values = [score for _, scores in found for score, _ in scores]
    axis = charts.linear_axis(values, charts.STRIP_MARGIN, charts.STRIP_WIDTH - charts.STRIP_MARGIN)
    pixels = {u.id: u.pixels for e in entries for u in e.row.units}
    lines = [
        UnitLine(
            unit,
            pixels[unit],
            scores[0][1].row.label,
            scores[0][0],
            scores[-1][1].row.label,
            scores[-1][0],
            tuple((axis.at(s), f"{e.row.label}: {s:.{head.decimals}f}", e is entries[0]) for s, e in reversed(scores)),
        )
        for unit, scores in found
    ]
    lines.sort(key=lambda line: (-line.spread, line.id))
    return Separation(axis, len(entries), entries[0].row.label, len(lines), tuple(lines[:MAX_LINES]))


def compared(table: Table) -> dict[str, Any] | None:
    """The units' scores for the page's comparison of two rows; None where there are no two rows."""
    head, units = table.headline, table.units[:MAX_UNITS_COMPARED]
    if len(table.all_entries) < 2:
        return None

    def figures(entry: Entry) -> list[float | None]:
        scores = _scores(entry, head.key)
        return [None if scores.get(u) is None else round(scores[u], head.decimals + 1) for u in units]

    return {
        "metric": head.title,
        "lower": head.better == "lower",
        "decimals": head.decimals,
        "units": list(units),
        "left_out": len(table.units) - len(units),
        "rows": [{"id": e.anchor, "scores": figures(e)} for e in table.all_entries],
    }


def _scores(entry: Entry, key: str) -> dict[str, float | None]:
    return {u.id: u.scores.get(key) for u in entry.row.units}
