"""What was found and decided, for people: a CSV of accepted and refused pairs, a map, the bytes to come."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shapely.geometry.base import BaseGeometry

from ..files import atomic_path, write_atomic

COLORS = {True: "#1f6fb4", False: "#b0a48a"}
MAX_CELL = 500  # characters


@dataclass(frozen=True)
class Decision:
    """One pair (or scene) that was looked at.

    Attributes:
        names: column -> name or number, the same columns in every decision of a report.
        accepted: whether it is taken.
        reason: why not; empty where it is taken.
        footprint: in degrees, for the map.
        size: bytes to fetch, None where that is not known before.
    """

    names: dict[str, str | int | float | None]
    accepted: bool
    reason: str = ""
    footprint: BaseGeometry | None = field(default=None, compare=False)
    size: int | None = None


def write_csv(path: Path, decisions: Sequence[Decision]) -> None:
    """Write one line a decision, accepted ones first; the order within is kept."""
    columns = list(dict.fromkeys(name for d in decisions for name in d.names))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "accepted", "reason", "bytes"])
    for d in sorted(decisions, key=lambda d: not d.accepted):
        cells = [*(d.names.get(c) for c in columns), "yes" if d.accepted else "no", d.reason, d.size]
        writer.writerow([_cell(value) for value in cells])
    write_atomic(path, text.getvalue())


def _cell(value: str | int | float | None) -> str:
    """Text of a value; names come from strangers, and a spreadsheet would run one that begins with ``=``."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(str(value).split())[:MAX_CELL]
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@") else text


def write_map(path: Path, decisions: Sequence[Decision], area: BaseGeometry, title: str) -> None:
    """Write a PNG of the footprints (degrees) around the area that was asked for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="longitude", ylabel="latitude")
    counts = {True: 0, False: 0}
    for d in sorted(decisions, key=lambda d: d.accepted):
        counts[d.accepted] += 1
        label = ("accepted" if d.accepted else "refused") if counts[d.accepted] == 1 else None
        for ring in _rings(d.footprint):
            axes.fill(*ring.xy, facecolor=COLORS[d.accepted] + "30", edgecolor=COLORS[d.accepted], label=label)
            label = None
    for ring in _rings(area):
        axes.plot(*ring.xy, color="black", linewidth=1.2)
    if any(counts.values()):
        axes.legend(loc="upper right")
    axes.set_aspect(1 / _cosine(area))
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)


def _rings(geometry: BaseGeometry | None) -> list:
    parts = getattr(geometry, "geoms", [geometry])
    return [part.exterior for part in parts if part is not None and hasattr(part, "exterior")]


def _cosine(area: BaseGeometry) -> float:
    from math import cos, radians

    return max(cos(radians(area.centroid.y)), 0.05)


def summary(decisions: Sequence[Decision]) -> str:
    """``3 of 12 accepted, 1.2 GB``, then the reasons of refusal with their numbers, one a line."""
    taken = [d for d in decisions if d.accepted]
    known = [d.size for d in taken if d.size is not None]
    size = f", {human_bytes(sum(known))}" if known else ""
    unknown = f" and {len(taken) - len(known)} of unknown size" if known and len(known) < len(taken) else ""
    reasons: dict[str, int] = {}
    for d in decisions:
        if not d.accepted:
            kind = d.reason.partition(":")[0]
            reasons[kind] = reasons.get(kind, 0) + 1
    lines = [f"{len(taken)} of {len(decisions)} accepted{size}{unknown}"]
    return "\n".join([*lines, *(f"  {n} refused: {why}" for why, n in sorted(reasons.items(), key=lambda r: -r[1]))])


def human_bytes(count: int) -> str:
    """``1.5 GB``, decimal units."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
