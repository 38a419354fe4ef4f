"""Which metrics a task has, and their values and intervals from the integers kept per unit.

A figure that pools (adds counts over the split, then divides) is a pair of functions: ``sums`` picks what is added
from each unit, ``value`` turns the added sums into the score. So the same pair gives the score of a unit, of a split
and of every bootstrap replicate. The figures that are no function of sums (the worst scene) have no interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, InputError
from . import metrics
from .records import Interval, Kind, Metric, Result
from .uncertainty import Estimate, estimate

BOUNDARY_KEYS = ("boundary_predicted", "boundary_predicted_near", "boundary_true", "boundary_true_near")


@dataclass(frozen=True)
class Counts:
    """Integers per seed and unit: ``confusion`` (S, U, n, n) and, where measured, ``boundary`` (S, U, 4)."""

    confusion: NDArray[np.int64]
    boundary: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Figure:
    """One pooled metric: ``sums`` maps Counts to (S, U, K), or None if not measured; ``value`` (..., K) to (...).

    ``of_unit`` tells whether it also makes sense within one unit.
    """

    key: str
    sums: Callable[[Counts], NDArray | None]
    value: Callable[[NDArray], NDArray]
    of_unit: bool = True


def figures(task: Kind, class_names: Sequence[str]) -> list[Figure]:
    """The pooled metrics of a task, headline first."""
    n = len(class_names)
    of = partial(_counted, n)
    if task == "binary-segmentation":
        return [
            of("iou", metrics.water_iou),
            Figure("scene_mean_iou", _scene_iou, _mean_of, of_unit=False),
            of("precision", lambda c: metrics.class_precision(c)[..., 1]),
            of("recall", lambda c: metrics.class_recall(c)[..., 1]),
            of("f1", lambda c: metrics.class_f1(c)[..., 1]),
            of("oa", metrics.overall_accuracy),
            Figure("boundary_f1", lambda counts: counts.boundary, metrics.boundary_f1),
            Figure("dry_false_positive_rate", _dry, lambda sums: _unflat(2, metrics.false_positive_rate, sums), False),
        ]
    if task == "segmentation":
        means = [of("mean_iou", metrics.mean_iou), of("oa", metrics.overall_accuracy)]
        by_class = [("iou", metrics.class_iou)]
    else:
        means = [
            of("macro_f1", metrics.macro_f1),
            of("balanced_accuracy", metrics.balanced_accuracy),
            of("accuracy", metrics.overall_accuracy),
        ]
        by_class = [("f1", metrics.class_f1)]
    by_class += [("precision", metrics.class_precision), ("recall", metrics.class_recall)]
    return means + [
        of(f"{key}:{name}", partial(_class_score, score, i))
        for key, score in by_class
        for i, name in enumerate(class_names)
    ]


def estimates(task: Kind, class_names: Sequence[str], counts: Counts) -> dict[str, Estimate]:
    """Every metric of a task that the integers decide, over seeds and units; the mean over seeds has the interval.

    Args:
        counts: integers of S seeds on the same U units.

    Returns:
        by metric key; a metric that was not measured has NaN for every seed.
    """
    found = {}
    for figure in figures(task, class_names):
        sums = figure.sums(counts)
        missing = Estimate(np.full(len(counts.confusion), np.nan))
        found[figure.key] = missing if sums is None else estimate(sums, figure.value)
        if figure.key == "scene_mean_iou":
            scenes = metrics.water_iou(counts.confusion)
            found["worst_decile_iou"] = Estimate(np.array([metrics.worst_decile(seed) for seed in scenes]))
    return found


def unit_scores(task: Kind, class_names: Sequence[str], counts: Counts) -> list[dict[str, float | None]]:
    """The metrics of each unit by itself, of the first seed; None where undefined."""
    by_key = {}
    for figure in figures(task, class_names):
        sums = figure.sums(counts) if figure.of_unit else None
        if sums is not None:
            by_key[figure.key] = figure.value(sums[0])
    return [{key: metrics.none(scores[i]) for key, scores in by_key.items()} for i in range(counts.confusion.shape[1])]


def as_metric(value: Estimate) -> Metric:
    """An estimate as it stands in a record."""
    interval = None if value.method is None else Interval(low=value.low, high=value.high, method=value.method)
    return Metric(value=metrics.none(value.mean), interval=interval)


def counts_of(results: Sequence[Result]) -> Counts:
    """The integers of records on the same units, one seed each, in the order of the first one's units.

    Raises:
        InputError: the records have different units.
    """
    ids = [unit.id for unit in results[0].units]
    by_seed = [{unit.id: unit for unit in result.units} for result in results]
    for result, units in zip(results, by_seed, strict=True):
        if units.keys() != set(ids):
            raise InputError(
                f"{len(units.keys() ^ set(ids))} units differ from those of record {results[0].id[:16]}",
                where=result.id[:16],
                hint="records of one row must be scored on the same split",
            )
    confusion = np.array([[units[i].confusion for i in ids] for units in by_seed], np.int64)
    if any(key not in unit.counts for units in by_seed for unit in units.values() for key in BOUNDARY_KEYS):
        return Counts(confusion)
    boundary = [[[units[i].counts[key] for key in BOUNDARY_KEYS] for i in ids] for units in by_seed]
    return Counts(confusion, np.array(boundary, np.int64))


def check_figures(result: Result, where: object = None) -> None:
    """Recompute every figure that the integers decide. Raises FormatError naming the first that differs."""
    names = [c.name for c in result.classes]
    counts = counts_of([result])
    for key, value in estimates(result.task, names, counts).items():
        stated, found = result.metrics.get(key), as_metric(value)
        if stated is None or not _same(stated, found):
            raise FormatError(
                f"/metrics/{key}: {stated} stated, its integers give {found}", where=where, hint="evaluate again"
            )
    for number, (unit, scores) in enumerate(zip(result.units, unit_scores(result.task, names, counts), strict=True)):
        for key, found in scores.items():
            if key not in unit.scores or not _close(unit.scores[key], found):
                raise FormatError(
                    f"/units/{number}/scores/{key}: {unit.scores.get(key)} stated, its integers give {found}",
                    where=where,
                    hint="evaluate again",
                )


def _same(a: Metric, b: Metric) -> bool:
    if (a.interval is None) != (b.interval is None) or not _close(a.value, b.value):
        return False
    return a.interval is None or (_close(a.interval.low, b.interval.low) and _close(a.interval.high, b.interval.high))


def _close(a: float | None, b: float | None) -> bool:
    """Equal but for the last digits, which differ between processors."""
    return a is b is None or (a is not None and b is not None and abs(a - b) <= 1e-9)


def _counted(n: int, key: str, score: Callable[[NDArray], NDArray]) -> Figure:
    return Figure(key, _flat, partial(_unflat, n, score))


def _flat(counts: Counts) -> NDArray:
    return counts.confusion.reshape(*counts.confusion.shape[:2], -1)


def _unflat(n: int, score: Callable[[NDArray], NDArray], sums: NDArray) -> NDArray:
    return score(sums.reshape(*sums.shape[:-1], n, n))


def _class_score(score: Callable[[NDArray], NDArray], index: int, confusion: NDArray) -> NDArray:
    return score(confusion)[..., index]


def _scene_iou(counts: Counts) -> NDArray:
    """(S, U, 2): the unit's IoU, and 1; both 0 where it is not defined."""
    scores = metrics.water_iou(counts.confusion)
    return np.stack([np.nan_to_num(scores), ~np.isnan(scores)], -1)


def _mean_of(sums: NDArray) -> NDArray:
    total, number = sums[..., 0], sums[..., 1]
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _dry(counts: Counts) -> NDArray:
    """The confusion of water-free units; zero for the others."""
    wet = counts.confusion[..., 1, :].sum(-1) > 0
    return np.where(wet[..., None], 0, _flat(counts))
