"""Rows as a table in words, with ranks and the figures that others published: what every renderer writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import metrics
from .columns import Column, columns
from .published import Published
from .ranks import Ranking, rank
from .records import HEADLINE
from .rows import Cell, Row, UnitScores, collect, row_key, rows, told_apart
from .uncertainty import MIN_UNITS, MIN_UNITS_RANK

__all__ = [
    "Cell",
    "Column",
    "Row",
    "Table",
    "UnitScores",
    "cell_in_words",
    "collect",
    "columns",
    "number",
    "ranking",
    "row_key",
    "rows",
    "seeds_in_words",
    "table",
    "tables",
]

UNIT_SCORES = {  # shown by unit where there are too few units for an interval
    "binary-segmentation": ("iou",),
    "segmentation": ("mean_iou",),
    "classification": ("macro_f1", "accuracy"),
    "harmonization": ("psnr",),
}
DETAILS = ("precision:", "recall:", "nrmse:", "rmse:", "bias:", "ssim:", "psnr:")  # by class or band: not in a table
# No figure of ours, but what others report: shown for every row where a published one has it.
MEAN_CLASS_IOU = Column("mean_class_iou", "Mean IoU of both classes")


@dataclass(frozen=True)
class Table:
    """A table in words. The first column is text, the others are figures; ``published`` rows are the last ones."""

    title: str
    headings: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    published: int = 0


def tables(found: Sequence[Row]) -> list[Table]:
    """One table for each data set, version and split, in the order of the rows."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in found:
        groups.setdefault((row.dataset.content_sha256, row.dataset.version, row.dataset.split), []).append(row)
    return [table(group) for group in groups.values()]


def ranking(group: Sequence[Row]) -> Ranking:
    """Ranks, by row key, of the rows of one data set, version and split, from their units' headline scores."""
    headline = HEADLINE[group[0].task]
    ids = [unit.id for unit in group[0].units]
    scores = {}
    for row in group:
        of_unit = {unit.id: unit.scores.get(headline) for unit in row.units}
        scores[row.key] = np.array([np.nan if (s := of_unit.get(i)) is None else s for i in ids])
    return rank(scores)


def table(group: Sequence[Row], published: Published | None = None) -> Table:
    """The rows of one data set, version and split as text; below 6 units every unit's score is a column.

    Args:
        group: its rows.
        published: figures of others, shown below ours with a † and what differs.
    """
    group = told_apart(group)
    first, others = group[0], published.rows if published else ()
    shown = _shown(group, {key for other in others for key in other.metrics})
    by_unit = [
        (unit.id, key) for key in UNIT_SCORES[first.task] for unit in first.units if len(first.units) < MIN_UNITS
    ]
    titles = {c.key: c.title for c in shown}
    timed = any(row.speed is not None for row in group)
    ranks = ranking(group).ranks if len(group) > 1 else None
    cells = []
    for row in group:
        scores = {unit.id: unit.scores for unit in row.units}
        cells.append(
            (
                row.label,
                seeds_in_words(row.seeds),
                *([str(ranks[row.key])] if ranks else []),
                *(cell_in_words(_cell(row, c), c.decimals) for c in shown),
                *(number(scores.get(unit, {}).get(key)) for unit, key in by_unit),
                *([number(row.speed.chips_per_s, 1) if row.speed else "–"] if timed else []),
            )
        )
    for other in others:
        figures = (number(other.metrics.get(c.key), c.decimals) for c in shown)
        blank = ["–"] * (len(by_unit) + timed)
        cells.append((f"{other.model} †", "–", *(["–"] if ranks else []), *figures, *blank))
    headings = (
        "Model",
        "Seeds",
        *(["Rank"] if ranks else []),
        *(c.title for c in shown),
        *(f"{titles.get(key, key)}: {unit}" for unit, key in by_unit),
        *(["Chips/s"] if timed else []),
    )
    data = first.dataset
    title = f"{data.title} {data.version}, split {data.split}" + (" (simulated)" if data.simulated else "")
    notes = (*_notes(group, bool(by_unit), timed, bool(ranks)), *(published.notes if published else ()))
    return Table(title, headings, tuple(cells), notes, len(others))


def _shown(group: Sequence[Row], published: set[str]) -> list[Column]:
    """The columns that somebody has a figure for, without the details by class and band."""
    first = group[0]

    def known(key: str) -> bool:
        return any(key in row.metrics and row.metrics[key].mean is not None for row in group)

    shown = [c for c in columns(first.task, first.names) if known(c.key) or c.key in published]
    shown = [c for c in shown if c.key != "abstained" or any(row.metrics[c.key].mean for row in group)]
    detailed = DETAILS if first.task in ("classification", "harmonization") else ()
    shown = [c for c in shown if not c.key.startswith(detailed) or c.key in published]
    if first.task == "binary-segmentation" and MEAN_CLASS_IOU.key in published:
        shown.append(MEAN_CLASS_IOU)
    return shown


def _cell(row: Row, column: Column) -> Cell:
    if column is MEAN_CLASS_IOU:
        pooled = [np.sum([unit.confusion for unit in result.units], axis=0) for result in row.results]
        values = metrics.mean_iou(np.array(pooled))
        return Cell(metrics.none(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)
    return row.metrics.get(column.key, Cell(None))


def _notes(group: Sequence[Row], by_unit: bool, timed: bool, ranked: bool) -> list[str]:
    row = group[0]
    what, many = "patches" if row.task == "classification" else "chips", "s" * (len(row.units) > 1)
    notes = [
        f"{row.results[0].chips} {what}, {len(row.units)} unit{many} (scene, event or block); ± is the standard "
        "deviation over seeds."
    ]
    absent = _absent_classes(row)
    if absent:
        notes.append(f"No label of this split is {' or '.join(absent)}.")
    if by_unit:
        notes.append(f"Fewer than {MIN_UNITS} units: no interval, so every unit's score is shown.")
    else:
        notes.append("[low, high] is the 95 % interval over units and seeds.")
    if ranked:
        notes.append("Rank = 1 + number of models that are significantly better (paired by unit, Holm).")
    elif len(group) > 1:
        notes.append(
            f"Fewer than {MIN_UNITS_RANK} units with a score: the models can't be separated, so there is no rank; the "
            "order is the headline's."
        )
    if timed:
        notes.append("Chips/s end to end on " + "; ".join(sorted({r.speed.device for r in group if r.speed})) + ".")
    return notes


def _absent_classes(row: Row) -> list[str]:
    """Names of the classes that no label of the split has: their scores are left out, and it is said so."""
    truths = [np.sum(unit.confusion, axis=1) for unit in row.results[0].units if unit.confusion]
    return [] if not truths else [n for n, count in zip(row.names, np.sum(truths, axis=0), strict=True) if not count]


def number(value: float | None, decimals: int = 3) -> str:
    """A figure for people; a dash where there is none."""
    return "–" if value is None else f"{value:.{decimals}f}"


def cell_in_words(cell: Cell, decimals: int = 3) -> str:
    """``0.431 ± 0.012 [0.380, 0.470]`` with what there is of it."""
    text = number(cell.mean, decimals)
    if cell.mean is not None and cell.sd is not None:
        text += f" ± {number(cell.sd, decimals)}"
    if cell.interval is not None:
        text += f" [{number(cell.interval.low, decimals)}, {number(cell.interval.high, decimals)}]"
    return text


def seeds_in_words(seeds: Sequence[int | None]) -> str:
    """``0–2`` for a run of seeds, else a list; a dash without any."""
    known = sorted(s for s in seeds if s is not None)
    if len(known) > 2 and known == list(range(known[0], known[0] + len(known))):
        return f"{known[0]}–{known[-1]}"
    return ", ".join(map(str, known)) or "–"
