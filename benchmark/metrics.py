"""Accuracy metrics as pure functions on NumPy arrays; the one definition of IoU for training and evaluation.

Counts come first: ``confusion`` turns label and prediction into integers, everything else is computed from integers
that were added up over as many chips as wanted. Leading axes are batch axes throughout: a confusion array of shape
(..., n, n) gives scores of shape (...) or (..., n), as float64, NaN where a score is not defined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

IGNORE = 255
BLOCK = 1 << 18  # pixels per step: the temporary arrays stay in the cache
PACKED_CLASSES = 8  # up to here counting bits is faster than a histogram, whose cost does not depend on the classes
PACKED_PIXELS = 1 << 12
ECE_BINS = 15


def confusion(truth: NDArray, prediction: NDArray, n: int, ignore: int = IGNORE) -> NDArray[np.int64]:
    """Count pairs of true class (row) and predicted class (column).

    A prediction of ``ignore`` where the truth is known is wrong and counts as the class after the true one
    ((truth + 1) mod n: with two classes the opposite one), so that abstaining never pays.

    Args:
        truth: integers of any shape, 0 … n-1 or ``ignore``; ignored elements count nowhere.
        prediction: integers of the same shape, 0 … n-1 or ``ignore``. Fastest when both are uint8.
        n: number of classes, 2 … 255.
        ignore: the value without a label.

    Returns:
        (n, n) int64.

    Raises:
        ValueError: shapes differ, or a value is neither a class nor ``ignore``.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}")
    truth, prediction = truth.reshape(-1), prediction.reshape(-1)
    total = np.zeros((n, n), np.int64)
    for start in range(0, truth.size, BLOCK):
        t, p = truth[start : start + BLOCK], prediction[start : start + BLOCK]
        packed = t.size - t.size % 64 if n <= PACKED_CLASSES and t.size >= PACKED_PIXELS else 0
        if packed:
            total += _count_packed(t[:packed], p[:packed], n, ignore)
        if packed < t.size:
            total += _count(t[packed:], p[packed:], n, ignore)
    return total


def _count_packed(truth: NDArray, prediction: NDArray, n: int, ignore: int) -> NDArray[np.int64]:
    """(n, n) by one bit per pixel and class: comparing, packing and counting bits run in SIMD, a histogram does not.

    The number of pixels is a multiple of 64. The last column is what the others leave of each true class.
    """
    ignored = _check(truth, n, ignore, "truth")
    abstained = _check(prediction, n, ignore, "prediction")
    if n == 2 and not abstained:  # the common case needs half of the bits
        some, said = np.packbits(truth).view(np.uint64), np.packbits(prediction).view(np.uint64)
        wet = np.packbits(truth == 1).view(np.uint64) if ignored else some
        n_some, n_wet, tp, fp = map(_count_bits, (some, wet, wet & said, said & ~some))
        return np.array([[truth.size - n_some - fp, fp], [n_wet - tp, tp]])
    true, said = _class_bits(truth, n), _class_bits(prediction, n - 1)
    counts = np.empty((n, n), np.int64)
    counts[:, :-1] = _count_bits(true[:, None] & said)
    counts[:, -1] = _count_bits(true) - counts[:, :-1].sum(1)
    if abstained:
        silent = _count_bits(true & np.packbits(prediction == ignore).view(np.uint64))
        counts[:, -1] -= silent
        counts[np.arange(n), (np.arange(n) + 1) % n] += silent
    return counts


def _class_bits(values: NDArray, n: int) -> NDArray[np.uint64]:
    """(n, size / 64): for each class 0 … n-1 a bit per pixel."""
    bits = np.empty((n, values.size // 64), np.uint64)
    np.invert(np.packbits(values).view(np.uint64), out=bits[0])  # packing takes any value but 0 as 1
    if n > 1:
        later = np.arange(1, n).astype(values.dtype)[:, None]
        bits[1:] = np.packbits(values == later, axis=1).view(np.uint64)
    return bits


def _count_bits(bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.add.reduce(np.bitwise_count(bits), -1, np.uint32).astype(np.int64)


def _count(truth: NDArray, prediction: NDArray, n: int, ignore: int) -> NDArray[np.int64]:
    partly = _check(truth, n, ignore, "truth")
    kind = np.uint8 if n <= 15 else np.uint16  # holds n * n, the code of what is ignored
    truth, known = truth.astype(kind, copy=False), truth != ignore
    if _check(prediction, n, ignore, "prediction"):
        prediction = np.where(prediction == ignore, (truth + kind(1)) % kind(n), prediction)
    code = truth * kind(n) + prediction.astype(kind, copy=False)
    if partly:
        code[~known] = n * n
    return np.bincount(code, minlength=n * n + 1)[: n * n].reshape(n, n)


def _check(values: NDArray, n: int, ignore: int, what: str) -> bool:
    """Whether any value is ``ignore``; ValueError when one is neither that nor a class."""
    if values.dtype == np.uint8:  # the common cases, at the speed of memory
        if values.max() < n:
            return False
        signed = values.view(np.int8)  # 255 is -1
        if ignore == 255 and n < 128 and signed.max() < n and signed.min() >= -1:
            return True
    ignored = values == ignore
    bad = values[((values < 0) | (values >= n)) & ~ignored]
    if bad.size:
        raise ValueError(f"{what} holds {bad[0]}, expected a class 0 … {n - 1} or {ignore}")
    return bool(ignored.any())


def ratio(above: ArrayLike, below: ArrayLike) -> NDArray[np.float64]:
    """above / below as float64, NaN where below is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(np.broadcast_shapes(above.shape, below.shape), np.nan), where=below != 0)


def _mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(scores)
    return ratio(np.where(defined, scores, 0).sum(-1), defined.sum(-1))


def _hits(counts: NDArray) -> NDArray:
    return np.diagonal(counts, axis1=-2, axis2=-1)


def class_iou(counts: NDArray) -> NDArray[np.float64]:
    """TP / (TP + FP + FN) per class, (..., n); NaN for a class absent from truth and prediction."""
    hits = _hits(counts)
    return ratio(hits, counts.sum(-1) + counts.sum(-2) - hits)


def class_precision(counts: NDArray) -> NDArray[np.float64]:
    """TP / (TP + FP) per class (user's accuracy); NaN for a class that is never predicted."""
    return ratio(_hits(counts), counts.sum(-2))


def class_recall(counts: NDArray) -> NDArray[np.float64]:
    """TP / (TP + FN) per class (producer's accuracy); NaN for a class absent from the truth."""
    return ratio(_hits(counts), counts.sum(-1))


def class_f1(counts: NDArray) -> NDArray[np.float64]:
    """2 TP / (2 TP + FP + FN) per class; NaN for a class absent from truth and prediction."""
    return ratio(2 * _hits(counts), counts.sum(-1) + counts.sum(-2))


def overall_accuracy(counts: NDArray) -> NDArray[np.float64]:
    """Share of right answers, (...)."""
    return ratio(_hits(counts).sum(-1), counts.sum((-2, -1)))


def mean_iou(counts: NDArray) -> NDArray[np.float64]:
    """Mean of the class IoUs that are defined. Never for binary water: see ``water_iou``."""
    return _mean(class_iou(counts))


def macro_f1(counts: NDArray) -> NDArray[np.float64]:
    """Mean of the class F1 that are defined (scikit-learn's macro average over the classes that occur)."""
    return _mean(class_f1(counts))


def balanced_accuracy(counts: NDArray) -> NDArray[np.float64]:
    """Mean recall of the classes that occur in the truth."""
    return _mean(class_recall(counts))


def water_iou(counts: NDArray) -> NDArray[np.float64]:
    """IoU of class 1 of a binary task, from (..., 2, 2); pool (add) the counts first, never average chips."""
    return class_iou(counts)[..., 1]


def worst_decile(scores: ArrayLike) -> float:
    """The score of the scene at the worst decile: number ceil(n / 10) from below of the n defined ones, else NaN."""
    scores = np.asarray(scores, np.float64)
    scores = np.sort(scores[~np.isnan(scores)])
    return float(scores[-(-len(scores) // 10) - 1]) if len(scores) else float("nan")


def false_positive_rate(counts: NDArray) -> NDArray[np.float64]:
    """FP / (FP + TN) of a binary task, from (..., 2, 2)."""
    return ratio(counts[..., 0, 1], counts[..., 0, :].sum(-1))


def calibration_counts(probability: NDArray[np.uint8], hit: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Histogram for the calibration error: (256, 2) of stored probability (round(255 p)) by missed / hit.

    Binary: the probability of water and whether it is water. Several classes: the probability of the predicted class
    and whether it is right. Counts of several chips add.
    """
    code = probability.reshape(-1).astype(np.uint16) * np.uint16(2) + hit.reshape(-1)
    return np.bincount(code, minlength=512).reshape(256, 2)


def expected_calibration_error(counts: NDArray, bins: int = ECE_BINS) -> float:
    """Mean gap between probability and frequency over equal bins of probability, weighted by their size.

    Guo et al. 2017 (arXiv:1706.04599), L1 norm, as torchmetrics defines it; bins are closed on the left.

    Args:
        counts: (256, 2) from ``calibration_counts``.
    """
    level = np.arange(256) / 255
    index = np.minimum(np.floor(np.arange(256) * bins / 255), bins - 1).astype(int)
    number = np.bincount(index, counts.sum(-1), bins)
    gap = np.abs(np.bincount(index, counts[:, 1], bins) - np.bincount(index, counts.sum(-1) * level, bins))
    return float(gap.sum() / number.sum()) if number.sum() else float("nan")


def risk_coverage(counts: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share of answers kept, and share of wrong ones among them, as less and less confident ones are let in.

    El-Yaniv and Wiener 2010 (JMLR 11, 1605). A point for every stored confidence that occurs, from the highest: where
    all those at least as confident are kept.

    Args:
        counts: (256, 2) confidence of the answer (round(255 p)) by wrong / right, see ``calibration_counts``.

    Returns:
        coverage and risk, (k,) each; the last coverage is 1.
    """
    counts = np.asarray(counts)[::-1]
    kept, wrong = counts.sum(-1).cumsum(), counts[:, 0].cumsum()
    occurs = counts.sum(-1) > 0
    kept, wrong = kept[occurs], wrong[occurs]
    return kept / max(1, counts.sum()), wrong / kept


def area_under_risk_coverage(counts: NDArray) -> float:
    """Mean over answers of the risk at the coverage that lets each one in; NaN without answers.

    Geifman et al. 2019 (arXiv:1805.08206); equally confident answers are let in together.

    Args:
        counts: (256, 2) as for ``risk_coverage``.
    """
    coverage, risk = risk_coverage(counts)
    return float((np.diff(coverage, prepend=0) * risk).sum()) if len(coverage) else float("nan")


def skill(score: float, trivial: Sequence[float]) -> float:
    """(s - s0) / (1 - s0) with s0 the best trivial row: 0 = as good as that, 1 = perfect; NaN without s0 < 1."""
    best = max((s for s in trivial if not np.isnan(s)), default=float("nan"))
    return float(ratio(score - best, 1 - best))


def none(value: float) -> float | None:
    """A float for JSON: NaN becomes None."""
    return None if np.isnan(value) else float(value)
