"""From result records to table rows, and the rows as console table, Markdown and LaTeX."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..datasets.spec import canonical_json
from ..errors import InputError
from . import metrics
from .records import HEADLINE, RESULT_NAME, ClassDef, DatasetRef, Interval, Kind, ModelRef, Result, Speed, read_result
from .scores import as_metric, counts_of, estimates
from .uncertainty import MIN_UNITS

MAX_FILES = 100_000
UNIT_SCORES = {  # shown by unit where there are too few units for an interval
    "binary-segmentation": ("iou",),
    "segmentation": ("mean_iou",),
    "classification": ("macro_f1", "accuracy"),
}


@dataclass(frozen=True)
class Cell:
    """One figure of a row: mean over seeds (None where undefined), sd over seeds (None below two), 95 % interval."""

    mean: float | None
    sd: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class UnitScores:
    """One unit of inference of a row: ``scores`` are means over the seeds (None where undefined)."""

    id: str
    pixels: int
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Row:
    """One configuration (data, split, model, arguments, recipe) over its seeds."""

    key: str  # sha256 of what makes the configuration
    task: Kind
    dataset: DatasetRef
    model: ModelRef  # of the first seed; each seed has its own weights
    classes: tuple[ClassDef, ...]
    seeds: tuple[int | None, ...]
    metrics: dict[str, Cell]
    units: tuple[UnitScores, ...]
    speed: Speed | None
    results: tuple[Result, ...]  # one per seed

    @property
    def headline(self) -> Cell:
        """The figure that the table is ordered by."""
        return self.metrics[HEADLINE[self.task]]


@dataclass(frozen=True)
class Column:
    """How a metric is shown: ``title`` for a heading, ``better`` is "higher" or "lower"."""

    key: str
    title: str
    better: str = "higher"
    decimals: int = 3


def columns(task: Kind, classes: Sequence[ClassDef]) -> list[Column]:
    """The metrics of a task in the order of its table, headline first."""
    names = [c.name for c in classes]
    if task == "binary-segmentation":
        return [
            Column("iou", f"{names[1].capitalize()} IoU"),
            Column("scene_mean_iou", "Scene-mean IoU"),
            Column("worst_decile_iou", "Worst-decile scene"),
            Column("precision", "Precision"),
            Column("recall", "Recall"),
            Column("f1", "F1"),
            Column("oa", "OA"),
            Column("boundary_f1", "Boundary F1 (2 px)"),
            Column("dry_false_positive_rate", f"FPR, scenes without {names[1]}", "lower"),
            Column("ece", "ECE", "lower"),
            Column("abstained", "Abstained", "lower"),
        ]
    if task == "segmentation":
        shown, head = ("iou", "precision", "recall"), [Column("mean_iou", "Mean IoU"), Column("oa", "OA")]
    else:
        shown, head = (
            ("f1", "precision", "recall"),
            [
                Column("macro_f1", "Macro-F1"),
                Column("balanced_accuracy", "Balanced accuracy"),
                Column("accuracy", "Accuracy"),
            ],
        )
    title = {"iou": "IoU", "f1": "F1", "precision": "Precision", "recall": "Recall"}
    by_class = [Column(f"{key}:{name}", f"{title[key]}, {name}") for key in shown for name in names]
    return [*head, Column("ece", "ECE", "lower"), *by_class, Column("abstained", "Abstained", "lower")]


def collect(paths: Iterable[str | Path]) -> list[Result]:
    """All records among files and folders: every ``result.json`` below a folder, or all its ``.json`` when it has none.

    Raises:
        FormatError: a file that is no record.
        InputError: a path that is not there.
    """
    results = []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError("no such file or folder", where=path)
        found = [path] if path.is_file() else sorted(path.rglob(RESULT_NAME)) or sorted(path.rglob("*.json"))
        if len(found) > MAX_FILES:
            raise InputError(f"{len(found)} records, over the limit of {MAX_FILES}", where=path)
        results += map(read_result, found)
    return results


def row_key(result: Result) -> str:
    """sha256 of what the seeds of one row share: data, split, model, arguments, recipe."""
    recipe = result.config_hash if result.config_hash is not None else result.model.label
    return hashlib.sha256(
        canonical_json(
            {
                "content_sha256": result.dataset.content_sha256,
                "split": result.dataset.split,
                "model": result.model.name,
                "arguments": result.model.arguments,
                "recipe": recipe,
            }
        )
    ).hexdigest()


def rows(results: Sequence[Result]) -> list[Row]:
    """Group records by configuration, best headline first within a data set, version and split.

    Raises:
        InputError: a seed occurs twice with different predictions, or the seeds were scored on different units.
    """
    groups: dict[str, dict[int | None, Result]] = {}
    for result in results:
        seeds = groups.setdefault(row_key(result), {})
        other = seeds.setdefault(result.seed, result)
        if other.predictions_sha256 != result.predictions_sha256:
            raise InputError(
                f"seed {result.seed} of {result.model.label} occurs twice with different predictions "
                f"(records {other.id[:16]} and {result.id[:16]})",
                where=result.dataset.name,
                hint="keep one of them",
            )
    found = [
        _row(key, [seeds[s] for s in sorted(seeds, key=lambda s: (s is None, s))]) for key, seeds in groups.items()
    ]
    return sorted(
        found,
        key=lambda row: (
            row.dataset.name,
            tuple(map(int, row.dataset.version.split("."))),
            row.dataset.split,
            row.headline.mean is None,
            -(row.headline.mean or 0),
            row.model.label,
            row.key,
        ),
    )


def _row(key: str, results: list[Result]) -> Row:
    first = results[0]
    found = estimates(first.task, [c.name for c in first.classes], counts_of(results))
    cells = {k: Cell(metrics.none(e.mean), _finite(e.sd), as_metric(e).interval) for k, e in found.items()}
    for extra in first.metrics.keys() - found.keys():
        values = np.array(
            [np.nan if (m := r.metrics.get(extra)) is None or m.value is None else m.value for r in results]
        )
        cells[extra] = Cell(metrics.none(values.mean()), _finite(values.std(ddof=1)) if len(values) > 1 else None)
    by_seed = [{u.id: u for u in r.units} for r in results]
    units = tuple(
        UnitScores(u.id, u.pixels, {k: _mean([units[u.id].scores.get(k) for units in by_seed]) for k in u.scores})
        for u in first.units
    )
    return Row(
        key=key,
        task=first.task,
        dataset=first.dataset,
        model=first.model,
        classes=first.classes,
        seeds=tuple(r.seed for r in results),
        metrics=cells,
        units=units,
        speed=next((r.speed for r in results if r.speed is not None), None),
        results=tuple(results),
    )


def _finite(value: float | None) -> float | None:
    return None if value is None else metrics.none(value)


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))


@dataclass(frozen=True)
class Table:
    """A table in words: what every renderer writes. The first column is text, the others are figures."""

    title: str
    headings: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def tables(found: Sequence[Row]) -> list[Table]:
    """One table for each data set, version and split, in the order of the rows."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in found:
        groups.setdefault((row.dataset.content_sha256, row.dataset.version, row.dataset.split), []).append(row)
    return [table(group) for group in groups.values()]


def table(group: Sequence[Row]) -> Table:
    """The rows of one data set, version and split as text; below 6 units every unit's score is a column."""
    first = group[0]
    shown = [
        c
        for c in columns(first.task, first.classes)
        if any(c.key in row.metrics and row.metrics[c.key].mean is not None for row in group)
    ]
    shown = [c for c in shown if c.key != "abstained" or any(row.metrics[c.key].mean for row in group)]
    if first.task == "classification":  # a class's F1 says enough in a table
        shown = [c for c in shown if not c.key.startswith(("precision:", "recall:"))]
    by_unit = [
        (unit.id, key) for key in UNIT_SCORES[first.task] for unit in first.units if len(first.units) < MIN_UNITS
    ]
    titles = {c.key: c.title for c in shown}
    timed = any(row.speed is not None for row in group)
    cells = []
    for row in group:
        scores = {unit.id: unit.scores for unit in row.units}
        cells.append(
            (
                row.model.label,
                seeds_in_words(row.seeds),
                *(cell_in_words(row.metrics[c.key], c.decimals) if c.key in row.metrics else "–" for c in shown),
                *(number(scores.get(unit, {}).get(key)) for unit, key in by_unit),
                *([number(row.speed.chips_per_s, 1) if row.speed else "–"] if timed else []),
            )
        )
    headings = (
        "Model",
        "Seeds",
        *(c.title for c in shown),
        *(f"{titles.get(key, key)}: {unit}" for unit, key in by_unit),
        *(["Chips/s"] if timed else []),
    )
    data = first.dataset
    title = f"{data.title} {data.version}, split {data.split}" + (" (simulated)" if data.simulated else "")
    return Table(title, headings, tuple(cells), tuple(_notes(group, bool(by_unit), timed)))


def _notes(group: Sequence[Row], by_unit: bool, timed: bool) -> list[str]:
    row = group[0]
    what, many = "patches" if row.task == "classification" else "chips", "s" * (len(row.units) > 1)
    notes = [
        f"{row.results[0].chips} {what}, {len(row.units)} unit{many} (scene, event or block); ± is the standard "
        "deviation over seeds."
    ]
    if by_unit:
        notes.append(f"Fewer than {MIN_UNITS} units: no interval, so every unit's score is shown.")
    else:
        notes.append("[low, high] is the 95 % interval over units and seeds.")
    if timed:
        notes.append("Chips/s end to end on " + "; ".join(sorted({r.speed.device for r in group if r.speed})) + ".")
    return notes


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
