"""What the page shows, in plain values: sections, tables and rows; no files, no HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..benchmark.published import Published
from ..benchmark.records import Speed
from ..benchmark.tables import MEAN_CLASS_IOU, Cell, Column, Row, UnitScores, columns
from ..benchmark.uncertainty import MIN_UNITS as MIN_UNITS_FOR_INTERVAL
from . import charts
from .entries import BoardEntry
from .ranking import BoardRow

KEY_METRICS = frozenset(  # the others on request
    {"scene_mean_iou", "precision", "recall", "balanced_accuracy", "accuracy", "ssim", "sam", "ergas", "ndvi_r"}
)
TASKS = {
    "binary-segmentation": "Binary water segmentation",
    "segmentation": "Scene segmentation",
    "classification": "Patch classification",
    "harmonization": "Harmonization",
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
    placed: BoardRow
    order: int  # among the claimed rows for a claimed one
    rank: int | None  # None where nothing can be separated, or nothing is ranked
    strip: charts.Strip
    val: Cell | None
    seeds: str
    notes: tuple[str, ...]
    worst_units: tuple[UnitScores, ...]
    packages: Mapping[str, str]
    packages_differ: bool

    @property
    def row(self) -> Row:
        """The figures."""
        return self.placed.row

    @property
    def board(self) -> BoardEntry:
        """Where they come from."""
        return self.placed.entry

    @property
    def trivial(self) -> bool:
        """Whether it is one of the protocol's compulsory rows."""
        return self.placed.trivial

    @property
    def tier(self) -> str:
        """``claimed``, ``scored`` or ``reproduced``."""
        return self.board.tier

    @property
    def speed(self) -> Speed | None:
        """End-to-end throughput; other kinds of figures have no place in a table."""
        return self.row.speed if self.row.speed and self.row.speed.kind == "end-to-end" else None

    @property
    def device(self) -> str:
        """Device and threads of the throughput."""
        speed = self.speed
        return f"{speed.device or 'device not stated'}, {speed.threads} thread{'s' if speed.threads > 1 else ''}"

    @property
    def device_class(self) -> str:
        """Figures of different classes are never compared: device, threads, and whether the harness measured them."""
        return self.device if self.board.house else f"{self.device}, as stated by submitters"

    @property
    def dirty(self) -> bool:
        """Whether some seed was scored by code that no commit holds."""
        return any(r.harness.dirty for r in self.row.results)


@dataclass(frozen=True)
class Throughput:
    """A Pareto plot: the headline against one ``figure`` of throughput in one class of devices."""

    figure: str
    device: str
    plot: charts.Pareto


@dataclass(frozen=True)
class Table:
    """One split of one data set version: rows in the order of the headline, and claimed ones apart.

    ``floor`` is the headline of the best trivial row (the frozen one where there is one), ``paretos`` are by figure
    and device class, ``published`` are others' figures, ``absent`` the classes that occur nowhere and so have no score,
    ``claims_left_out`` counts the claimed rows that the page has no room for.
    """

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
    claimed: tuple[Entry, ...]
    has_val: bool
    paretos: tuple[Throughput, ...]
    devices: tuple[str, ...]
    published: Published | None
    has_skill: bool
    absent: tuple[str, ...]
    claims_left_out: int = 0

    @property
    def headline(self) -> Column:
        """The metric that orders the table."""
        return self.columns[0]

    @property
    def all_entries(self) -> tuple[Entry, ...]:
        """Scored rows, then claimed ones."""
        return self.entries + self.claimed

    @property
    def ranked(self) -> bool:
        """Whether its rows have ranks: enough units, and a split that no model was chosen on."""
        return any(e.rank is not None for e in self.entries)

    @property
    def unit_columns(self) -> tuple[str, ...]:
        """Ids of the units that get a column each: all, when there are too few for an interval."""
        return self.units if len(self.units) < MIN_UNITS_FOR_INTERVAL else ()

    @property
    def key_metrics(self) -> tuple[str, ...]:
        """The metrics beside the headline that are always shown, also with JavaScript; the others on request."""
        shown = KEY_METRICS - ({"scene_mean_iou"} if self.unit_columns else set())  # the units' columns say more
        return tuple(c.key for c in self.columns if c.key in shown or c.key.startswith("iou:"))

    @property
    def published_columns(self) -> tuple[Column, ...]:
        """The metrics that the published rows have."""
        present = {key for row in self.published.rows for key in row.metrics} if self.published else set()
        known = [*columns(self.task, self.all_entries[0].row.names), MEAN_CLASS_IOU]
        return tuple(c for c in known if c.key in present)


@dataclass(frozen=True)
class Section:
    """One data set version: its main table first."""

    anchor: str
    name: str
    version: str
    title: str
    task: str
    simulated: bool
    licence: str | None
    shows_maps: bool
    leaky: bool
    tables: tuple[Table, ...]

    @property
    def main(self) -> Table:
        """The table of the test split, or the first there is."""
        return self.tables[0]


def with_claims(section: Section, most: int) -> Section:
    """The section with at most so many claimed rows a table."""
    tables = (replace(t, claimed=t.claimed[:most], claims_left_out=len(t.claimed[most:])) for t in section.tables)
    return replace(section, tables=tuple(tables))


def may_show_maps(simulated: bool, licence: str | None) -> bool:
    """Whether pixels of a data set may be shown: it is simulated, or its licence is known to be open."""
    return simulated or bool(licence and OPEN_LICENCE.match(licence))


def is_leaky(row: Row) -> bool:
    """A split known to share ground with training: a published one kept for comparison, or a note that says so."""
    named = row.dataset.name.endswith("-official") or row.dataset.split.startswith("official")
    return named or any(re.search(r"\bleak", r.note, re.IGNORECASE) for r in row.results)


def unit_score(row: Row, unit: str, key: str) -> float | None:
    """A row's score on one unit, None where it is undefined or the row lacks the unit."""
    return next((u.scores.get(key) for u in row.units if u.id == unit), None)
