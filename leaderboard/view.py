"""What the page shows, in plain values: table rows become sections, tables and entries; no files, no HTML."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..benchmark.records import HEADLINE, Speed
from ..benchmark.tables import Cell, Column, Row, columns, seeds_in_words
from ..benchmark.uncertainty import MIN_UNITS as MIN_UNITS_FOR_INTERVAL
from . import charts

MIN_UNITS_FOR_RANK = 9
KEY_METRICS = {"scene_mean_iou", "precision", "recall", "balanced_accuracy", "accuracy"}  # the others on request
MAX_UNITS_SHOWN = 60  # per row of evidence; the JSON file holds them all
MAX_UNITS_COMPARED = 500
TRIVIAL = frozenset({"all-dry", "all-wet", "otsu", "pixel-forest", "majority", "band-forest"})
SPLIT_ORDER = ("test", "val", "train")
TASKS = {
    "binary-segmentation": "Binary water segmentation",
    "segmentation": "Scene segmentation",
    "classification": "Patch classification",
}
OPEN_LICENCE = re.compile(
    r"\s*(cc0|cc[- ]by(?!.*\b(nc|nd)\b)|creative commons attribution(?!.*(non-?commercial|no-?deriv))|public domain"
    r"|pddl|odc-by|odbl|mit|apache|bsd|copernicus)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Entry:
    """One row of a table with all that its evidence shows."""

    anchor: str
    row: Row
    order: int
    trivial: bool
    tier: str
    strip: charts.Strip
    val: Cell | None
    seeds: str
    notes: tuple[str, ...]
    worst_units: tuple
    packages: Mapping[str, str]
    packages_differ: bool


@dataclass(frozen=True)
class Table:
    """One split of one data set version."""

    anchor: str
    split: str
    leaky: bool
    task: str
    columns: tuple[Column, ...]
    axis: charts.Axis
    floor: float | None
    floor_label: str
    units: tuple[str, ...]
    entries: tuple[Entry, ...]
    has_val: bool
    paretos: tuple[tuple[str, charts.Pareto], ...]
    devices: tuple[str, ...]

    @property
    def headline(self) -> Column:
        """The metric that orders the table."""
        return self.columns[0]

    @property
    def unit_columns(self) -> tuple[str, ...]:
        """Ids of the units that get a column each: all, when there are too few for an interval."""
        return self.units if len(self.units) < MIN_UNITS_FOR_INTERVAL else ()

    @property
    def key_metrics(self) -> tuple[str, ...]:
        """The metrics beside the headline that are always shown, also with JavaScript; the others on request."""
        shown = KEY_METRICS - ({"scene_mean_iou"} if self.unit_columns else set())  # the units' columns say more
        return tuple(c.key for c in self.columns if c.key in shown or c.key.startswith("iou:"))


@dataclass(frozen=True)
class Section:
    """One data set version: its main table first."""

    anchor: str
    name: str
    version: str
    title: str
    simulated: bool
    licence: str | None
    shows_maps: bool
    leaky: bool
    tables: tuple[Table, ...]


def sections(rows: Sequence[Row]) -> list[Section]:
    """One section per data set name and version, simulated ones last, versions newest first."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset.name, row.dataset.version), []).append(row)
    found = [_section(name, version, members) for (name, version), members in groups.items()]
    return sorted(found, key=lambda s: (s.simulated, s.leaky, s.name, [-int(part) for part in s.version.split(".")]))


def _section(name: str, version: str, rows: Sequence[Row]) -> Section:
    anchor = f"{name}-{version}"
    by_split: dict[str, list[Row]] = {}
    for row in rows:
        by_split.setdefault(row.dataset.split, []).append(row)
    order = sorted(by_split, key=lambda s: (SPLIT_ORDER.index(s) if s in SPLIT_ORDER else 0.5, s))
    val = {_configuration(row): row.headline for row in by_split.get("val", ())}
    tables = tuple(_table(f"{anchor}-{s}", s, by_split[s], {} if s in ("val", "train") else val) for s in order)
    first = rows[0].dataset
    return Section(
        anchor,
        name,
        version,
        first.title,
        any(r.dataset.simulated for r in rows),
        first.licence,
        all(may_show_maps(r.dataset.simulated, r.dataset.licence) for r in rows),
        any(t.leaky for t in tables if t.split not in ("val", "train")),
        tables,
    )


def may_show_maps(simulated: bool, licence: str | None) -> bool:
    """Whether pixels of a data set may be shown: it is simulated, or its licence is known to be open."""
    return simulated or bool(licence and OPEN_LICENCE.match(licence))


def is_trivial(row: Row) -> bool:
    """A compulsory row of the protocol, or one that learnt nothing."""
    return row.model.name in TRIVIAL or not row.model.trained


def is_leaky(row: Row) -> bool:
    """A split known to share ground with training: a published one kept for comparison, or a note that says so."""
    named = row.dataset.name.endswith("-official") or row.dataset.split.startswith("official")
    return named or any(re.search(r"\bleak", r.note, re.IGNORECASE) for r in row.results)


def _table(anchor: str, split: str, rows: Sequence[Row], val: Mapping[tuple, Cell]) -> Table:
    head = HEADLINE[rows[0].task]
    present = {key for row in rows for key, cell in row.metrics.items() if cell.mean is not None}
    present -= {"abstained"} if not any(_mean(row, "abstained") for row in rows) else set()
    listed = [c for c in columns(rows[0].task, rows[0].classes) if c.key == head or c.key in present]
    units = tuple(dict.fromkeys(u.id for row in rows for u in row.units))
    floors = [(row.headline.mean, row.model.label) for row in rows if is_trivial(row) and row.headline.mean is not None]
    floor, floor_label = max(floors, default=(None, ""))
    drawn = [v for row in rows for v in _drawn(row, head)]
    axis = charts.strip_axis(drawn)
    ordered = sorted(rows, key=lambda r: (r.headline.mean is None, -(r.headline.mean or 0.0), r.model.label, r.key))
    anchors = _anchors(anchor, ordered)
    entries = tuple(
        _entry(a, i, row, head, axis, floor, val.get(_configuration(row)))
        for i, (a, row) in enumerate(zip(anchors, ordered, strict=True), 1)
    )
    classes: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.row.speed and entry.row.headline.mean is not None:
            classes.setdefault(device_class(entry.row.speed), []).append(entry)
    paretos = tuple(
        (device, charts.pareto([_point(e) for e in members]))
        for device, members in sorted(classes.items())
        if len(members) > 1
    )
    return Table(
        anchor,
        split,
        any(map(is_leaky, rows)),
        rows[0].task,
        tuple(listed),
        axis,
        floor,
        floor_label,
        units,
        entries,
        any(e.val is not None for e in entries),
        paretos,
        tuple(sorted(classes)),
    )


def _mean(row: Row, key: str) -> float | None:
    return row.metrics[key].mean if key in row.metrics else None


def _drawn(row: Row, head: str) -> Iterable[float]:
    interval = row.headline.interval
    values = [row.headline.mean, *((interval.low, interval.high) if interval else ())]
    if len(row.units) < MIN_UNITS_FOR_INTERVAL:
        values += [u.scores.get(head) for u in row.units]
    return [v for v in values if v is not None]


def _entry(
    anchor: str, order: int, row: Row, head: str, axis: charts.Axis, floor: float | None, val: Cell | None
) -> Entry:
    interval = row.headline.interval
    dots = []
    if len(row.units) < MIN_UNITS_FOR_INTERVAL:
        dots = [(u.scores[head], f"{u.id}: {u.scores[head]:.3f}") for u in row.units if u.scores.get(head) is not None]
    strip = charts.strip(axis, row.headline.mean, (interval.low, interval.high) if interval else None, dots, floor)
    worst = sorted(row.units, key=lambda u: (u.scores.get(head) is None, u.scores.get(head) or 0.0, u.id))
    packages = [dict(r.packages) for r in row.results]
    return Entry(
        anchor,
        row,
        order,
        is_trivial(row),
        "scored",
        strip,
        val,
        _seeds(row.seeds),
        tuple(dict.fromkeys(r.note for r in row.results if r.note)),
        tuple(worst[:MAX_UNITS_SHOWN]),
        packages[0],
        any(p != packages[0] for p in packages),
    )


def _point(entry: Entry) -> charts.Point:
    row, interval = entry.row, entry.row.headline.interval
    score = f"{row.headline.mean:.3f}" + (f" [{interval.low:.3f}, {interval.high:.3f}]" if interval else "")
    tip = (
        f"{row.model.label}: {score}, {row.speed.chips_per_s:,.0f} chips/s ({row.speed.precision}, "
        f"batch {row.speed.batch})"
    )
    return charts.Point(
        row.model.label,
        entry.anchor,
        tip,
        row.speed.chips_per_s,
        row.headline.mean,
        (interval.low, interval.high) if interval else None,
        entry.trivial,
    )


def device_class(speed: Speed) -> str:
    """Figures of different classes are never compared: device and threads."""
    return f"{speed.device or 'device not stated'}, {speed.threads} thread{'s' if speed.threads > 1 else ''}"


def _seeds(seeds: Sequence[int | None]) -> str:
    known = [s for s in seeds if s is not None]
    return f"seed{'s' if len(known) > 1 else ''} {seeds_in_words(seeds)}" if known else "no seed"


def _configuration(row: Row) -> tuple:
    return (
        row.model.name,
        row.model.label,
        json.dumps(row.model.arguments, sort_keys=True),
        row.results[0].config_hash,
        row.seeds,
    )


def _anchors(table: str, rows: Sequence[Row]) -> list[str]:
    """Stable addresses: the model's name, with the configuration's digest where a name repeats."""
    names = Counter(row.model.name for row in rows)
    return [f"{table}-{r.model.name}" + (f"-{r.key[:8]}" if names[r.model.name] > 1 else "") for r in rows]


def compared(table: Table) -> dict | None:
    """The units' scores for the page's comparison of two rows; None where there is nothing to compare."""
    head = table.headline.key
    if len(table.entries) < 2 or len(table.units) < 2:
        return None
    return {
        "metric": table.headline.title,
        "lower": table.headline.better == "lower",
        "units": list(table.units[:MAX_UNITS_COMPARED]),
        "left_out": max(0, len(table.units) - MAX_UNITS_COMPARED),
        "rows": [
            {"label": e.row.model.label, "scores": _scores(e.row, head, table.units[:MAX_UNITS_COMPARED])}
            for e in table.entries
        ],
    }


def unit_score(row: Row, unit: str, key: str) -> float | None:
    """A row's score on one unit, None where it is undefined or the row lacks the unit."""
    return next((u.scores.get(key) for u in row.units if u.id == unit), None)


def _scores(row: Row, head: str, units: Sequence[str]) -> list[float | None]:
    by_unit = {u.id: u.scores.get(head) for u in row.units}
    return [None if by_unit.get(u) is None else round(by_unit[u], 4) for u in units]
