"""Values and intervals of a task's metrics from what is kept per unit, and the check that a record's figures are these.

The figures that are no function of added sums (the worst scene) have no interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, InputError
from . import metrics, reflectance
from .figures import Counts, figures
from .records import Histogram, Interval, Kind, Metric, Result, Unit
from .uncertainty import Estimate, estimate

BOUNDARY_KEYS = ("boundary_predicted", "boundary_predicted_near", "boundary_true", "boundary_true_near")
RELATIVE = 1e-9  # figures differ in the last digits between processors


def estimates(task: Kind, names: Sequence[str], counts: Counts) -> dict[str, Estimate]:
    """Every metric of a task that the kept sums decide, over seeds and units; the mean over seeds has the interval.

    Args:
        task: the protocol's task.
        names: of the classes, or of a harmonization's bands.
        counts: of S seeds on the same U units.

    Returns:
        by metric key; a metric that was not measured has NaN for every seed.
    """
    found = {}
    for figure in figures(task, names):
        sums = figure.sums(counts)
        missing = Estimate(np.full(len(counts.confusion), np.nan))
        found[figure.key] = missing if sums is None else estimate(sums, figure.value, bounds=figure.bounds)
        if figure.key == "scene_mean_iou":
            scenes = metrics.water_iou(counts.confusion)
            found["worst_decile_iou"] = Estimate(np.array([metrics.worst_decile(seed) for seed in scenes]))
    return found


def unit_scores(task: Kind, names: Sequence[str], counts: Counts) -> list[dict[str, float | None]]:
    """The metrics of each unit by itself, of the first seed; None where undefined."""
    by_key = {}
    for figure in figures(task, names):
        sums = figure.sums(counts) if figure.of_unit else None
        if sums is not None:
            by_key[figure.key] = figure.value(sums[0])
    return [{key: metrics.none(scores[i]) for key, scores in by_key.items()} for i in range(counts.confusion.shape[1])]


def as_metric(value: Estimate) -> Metric:
    """An estimate as it stands in a record."""
    interval = None if value.method is None else Interval(low=value.low, high=value.high, method=value.method)
    return Metric(value=metrics.none(value.mean), interval=interval)


def counts_of(results: Sequence[Result]) -> Counts:
    """What records on the same units keep, one seed each, in the order of the first one's units.

    Raises:
        InputError: the records have different units or keep different sums.
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
    if results[0].task == "harmonization":
        keys = {key: len(values) for key, values in results[0].units[0].sums.items()}
        for result in results:
            if {key: len(values) for key, values in result.units[0].sums.items()} != keys:
                raise InputError(f"sums differ from those of record {results[0].id[:16]}", where=result.id[:16])
        sums = {key: np.array([[units[i].sums[key] for i in ids] for units in by_seed]) for key in keys}
        return Counts(np.zeros((len(by_seed), len(ids), 0, 0), np.int64), sums=sums)
    confusion = np.array([[units[i].confusion for i in ids] for units in by_seed], np.int64)
    if any(key not in unit.counts for units in by_seed for unit in units.values() for key in BOUNDARY_KEYS):
        return Counts(confusion)
    boundary = [[[units[i].counts[key] for key in BOUNDARY_KEYS] for i in ids] for units in by_seed]
    return Counts(confusion, np.array(boundary, np.int64))


def check_figures(result: Result, where: object = None) -> None:
    """Recompute every figure that the integers and sums decide. Raises FormatError naming the first that differs."""
    names, harmonization = result.names, result.task == "harmonization"
    for number, unit in enumerate(result.units if harmonization else ()):
        fault = sums_fault(unit, names)
        if fault is not None:
            raise FormatError(f"/units/{number}/sums{fault}", where=where, hint="evaluate again")
    counts = counts_of([result])
    expected = {key: Metric(value=None) for key in ("ece", "aurc", "abstained") if key in result.metrics}
    expected |= {key: as_metric(value) for key, value in estimates(result.task, names, counts).items()}
    expected |= histogram_metrics(result.calibration, result.confidence) | abstained_metric(result.units)
    for key, found in expected.items():
        stated = result.metrics.get(key)
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


def histogram_metrics(calibration: Histogram | None, confidence: Histogram | None) -> dict[str, Metric]:
    """The figures that the histograms of stored probabilities decide; none without probabilities."""
    found = {}
    if calibration is not None:
        found["ece"] = Metric(value=metrics.none(metrics.expected_calibration_error(as_counts(calibration))))
    if confidence is not None:
        found["aurc"] = Metric(value=metrics.none(metrics.area_under_risk_coverage(as_counts(confidence))))
    return found


def abstained_metric(units: Sequence[Unit]) -> dict[str, Metric]:
    """The share of valid pixels without an answer; nothing where a unit does not count them."""
    if any("abstained" not in unit.counts for unit in units):
        return {}
    pixels = sum(unit.pixels for unit in units)
    return {"abstained": Metric(value=sum(unit.counts["abstained"] for unit in units) / pixels if pixels else None)}


def as_histogram(counts: NDArray[np.int64]) -> Histogram:
    """(256, 2) counts as they stand in a record."""
    return Histogram(missed=tuple(counts[:, 0].tolist()), hit=tuple(counts[:, 1].tolist()))


def as_counts(histogram: Histogram) -> NDArray[np.int64]:
    """A record's histogram as (256, 2), for ``metrics.risk_coverage`` and the like."""
    return np.array([histogram.missed, histogram.hit], np.int64).T


def sums_fault(unit: Unit, bands: Sequence[str]) -> str | None:
    """What cannot be in the sums of a harmonization's unit, as the end of a JSON pointer and words; None if nothing."""
    sums, n = unit.sums, len(bands)
    by_band = ("squared_error", "error", "target", "target_squared", "ssim", "shifted_squared_error")
    lengths = dict.fromkeys(by_band, n) | dict.fromkeys(("pixels", "ssim_windows", "sam", "sam_pixels"), 1)
    lengths |= {"shifted_pixels": 1, **dict.fromkeys(reflectance.index_bands(bands), 8)}
    found = {key: len(values) for key, values in sums.items()}
    if found != lengths:
        wrong = sorted(key for key in found.keys() | lengths.keys() if found.get(key) != lengths.get(key))[0]
        return f"/{wrong}: {found.get(wrong, 'no')} values, expected {lengths.get(wrong, 'none')}"
    pixels = sums["pixels"][0]
    if pixels != unit.pixels:
        return f"/pixels: {pixels}, the unit states {unit.pixels}"
    for key in ("squared_error", "target_squared", "shifted_squared_error", "sam"):
        if min(sums[key]) < 0:
            return f"/{key}: {min(sums[key])} is below 0"
    for key in ("ssim_windows", "sam_pixels", "shifted_pixels"):
        if not (0 <= sums[key][0] <= pixels and sums[key][0].is_integer()):
            return f"/{key}: {sums[key][0]} of {pixels} pixels"
    slack = 1 + RELATIVE
    for key, square in (("error", "squared_error"), ("target", "target_squared")):  # Cauchy and Schwarz
        for value, squared in zip(sums[key], sums[square], strict=True):
            if value * value > pixels * squared * slack:
                return f"/{key}: {value} cannot be with {square} {squared} over {pixels} pixels"
    return None


def _same(a: Metric, b: Metric) -> bool:
    if (a.interval is None) != (b.interval is None) or not _close(a.value, b.value):
        return False
    return a.interval is None or (_close(a.interval.low, b.interval.low) and _close(a.interval.high, b.interval.high))


def _close(a: float | None, b: float | None) -> bool:
    return a is b is None or (a is not None and b is not None and abs(a - b) <= RELATIVE * max(1.0, abs(a), abs(b)))
