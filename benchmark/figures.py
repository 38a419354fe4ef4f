"""Which metrics a task has: for each what is added up over units, and the score that the added sums give.

A figure is a pair of functions: ``sums`` picks what is added from each unit, ``value`` turns the added sums into the
score. So the same pair gives the score of a unit, of a split and of every bootstrap replicate. Segmentation and patches
pool: they add integers over the split, then divide. A harmonization is scored location by location, then averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from . import metrics, reflectance
from .boundary import boundary_f1
from .records import Kind

UNBOUNDED = (-np.inf, np.inf)


@dataclass(frozen=True)
class Counts:
    """What is kept per seed and unit.

    ``confusion`` (S, U, n, n) int64, with n = 0 for a harmonization; where measured ``boundary`` (S, U, 4) int64; for
    a harmonization ``sums``, float64 (S, U, K) by name (see ``reflectance.chip_sums``).
    """

    confusion: NDArray[np.int64]
    boundary: NDArray[np.int64] | None = None
    sums: dict[str, NDArray[np.float64]] | None = None


@dataclass(frozen=True)
class Figure:
    """One metric: ``sums`` maps Counts to (S, U, K), or None if not measured; ``value`` (..., K) to (...).

    ``of_unit`` tells whether it also makes sense within one unit; an interval is cut at ``bounds``.
    """

    key: str
    sums: Callable[[Counts], NDArray | None]
    value: Callable[[NDArray], NDArray]
    of_unit: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)


def figures(task: Kind, names: Sequence[str]) -> list[Figure]:
    """The metrics of a task, headline first.

    Args:
        task: the protocol's task.
        names: of the classes, or of a harmonization's bands.
    """
    if task == "harmonization":
        return _harmonization(names)
    of = partial(_counted, len(names))
    if task == "binary-segmentation":
        return [
            of("iou", metrics.water_iou),
            Figure("scene_mean_iou", partial(_by_unit, _scene_iou), _mean_of_units, of_unit=False),
            of("precision", lambda c: metrics.class_precision(c)[..., 1]),
            of("recall", lambda c: metrics.class_recall(c)[..., 1]),
            of("f1", lambda c: metrics.class_f1(c)[..., 1]),
            of("oa", metrics.overall_accuracy),
            Figure("boundary_f1", lambda counts: counts.boundary, boundary_f1),
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
        of(f"{key}:{name}", partial(_class_score, score, i)) for key, score in by_class for i, name in enumerate(names)
    ]


def _harmonization(bands: Sequence[str]) -> list[Figure]:
    def of(key: str, score: Callable, bounds: tuple[float, float] = (0.0, np.inf)) -> Figure:
        return Figure(key, partial(_by_unit, lambda counts: score(counts.sums)), _mean_of_units, bounds=bounds)

    by_band = {
        "psnr": (reflectance.band_psnr, (-np.inf, reflectance.PSNR_LIMIT_DB)),
        "ssim": (reflectance.band_ssim, (-1.0, 1.0)),
        "nrmse": (reflectance.band_nrmse, (0.0, np.inf)),
        "rmse": (reflectance.band_rmse, (0.0, np.inf)),
    }
    found = [of(key, partial(_mean_of_bands, score), bounds) for key, (score, bounds) in by_band.items()]
    found[1:1] = [of("psnr_shifted", reflectance.shifted_psnr, by_band["psnr"][1])]
    found += [of("sam", reflectance.spectral_angle, (0.0, 180.0)), of("ergas", reflectance.ergas)]
    for key, (score, bounds) in {**by_band, "bias": (reflectance.band_bias, UNBOUNDED)}.items():
        found += [of(f"{key}:{name}", partial(_band_score, score, i), bounds) for i, name in enumerate(bands)]
    for key in reflectance.index_bands(bands):
        found += [
            of(f"{key}_r", partial(_index_score, reflectance.index_correlation, key), (-1.0, 1.0)),
            of(f"{key}_rmse", partial(_index_score, reflectance.index_rmse, key)),
            of(f"{key}_mae", partial(_index_score, reflectance.index_mae, key)),
            of(f"{key}_bias", partial(_index_score, reflectance.index_bias, key), UNBOUNDED),
        ]
    return found


def _mean_of_bands(score: Callable, sums: reflectance.Sums) -> NDArray:
    return score(sums).mean(-1)


def _band_score(score: Callable, band: int, sums: reflectance.Sums) -> NDArray:
    return score(sums)[..., band]


def _index_score(score: Callable, key: str, sums: reflectance.Sums) -> NDArray:
    return score(sums[key])


def _counted(n: int, key: str, score: Callable[[NDArray], NDArray]) -> Figure:
    return Figure(key, _flat, partial(_unflat, n, score))


def _flat(counts: Counts) -> NDArray:
    return counts.confusion.reshape(*counts.confusion.shape[:2], -1)


def _unflat(n: int, score: Callable[[NDArray], NDArray], sums: NDArray) -> NDArray:
    return score(sums.reshape(*sums.shape[:-1], n, n))


def _class_score(score: Callable[[NDArray], NDArray], index: int, confusion: NDArray) -> NDArray:
    return score(confusion)[..., index]


def _scene_iou(counts: Counts) -> NDArray:
    return metrics.water_iou(counts.confusion)


def _by_unit(score: Callable[[Counts], NDArray], counts: Counts) -> NDArray:
    """(S, U, 2): the unit's score, and 1; both 0 where it is not defined."""
    scores = score(counts)
    return np.stack([np.nan_to_num(scores), ~np.isnan(scores)], -1)


def _mean_of_units(sums: NDArray) -> NDArray:
    total, number = sums[..., 0], sums[..., 1]
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def _dry(counts: Counts) -> NDArray:
    """The confusion of water-free units; zero for the others."""
    wet = counts.confusion[..., 1, :].sum(-1) > 0
    return np.where(wet[..., None], 0, _flat(counts))
