"""Probabilities that mean what they say: one temperature for all logits, fitted on the validation split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from .. import _compat  # noqa: F401
from ..benchmark import metrics
from ..datasets.spec import Count, SplitName, Strict

MAX_ANSWERS = 1 << 21
LOG_RANGE = (-3.0, 3.0)  # of the temperature's logarithm: 0.05 to 20


class Calibration(Strict):
    """How logits become probabilities: divided by ``temperature`` first (Guo et al. 2017, arXiv:1706.04599).

    ``ece_before`` and ``ece_after`` are expected calibration errors over ``answers`` labelled pixels (or chips) of
    ``split``, ``nll_before`` and ``nll_after`` mean negative log-likelihoods.
    """

    temperature: Annotated[float, Field(gt=0)]
    split: SplitName
    answers: Count
    ece_before: float
    ece_after: float
    nll_before: float
    nll_after: float


def calibrate(
    network: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    inputs: Sequence[str],
    *,
    label: str,
    split: str,
    answers: int,
) -> Calibration | None:
    """Fit the temperature of a network.

    Args:
        network: gives logits (B,K,...) of the batches' ``inputs``.
        batches: as the data module's ``prepare`` gives them, not augmented.
        inputs: names of the network's inputs.
        label: ``mask`` or ``label``, int64 with 255 = not counted.
        split: the batches' split, for the record.
        answers: labels in all batches; of more than 2 million every n-th is taken.

    Returns:
        None where nothing is labelled.
    """
    stride = -(-answers // MAX_ANSWERS)
    found: list[np.ndarray] = []
    truth: list[np.ndarray] = []
    mode = network.training
    network.eval()
    with torch.inference_mode():
        for batch in batches:
            logits = network(**{name: batch[name] for name in inputs}).float()
            labels = batch[label].flatten()[::stride]
            logits = logits.movedim(1, -1).flatten(0, -2)[::stride]
            known = labels != metrics.IGNORE
            found.append(logits[known].cpu().numpy())
            truth.append(labels[known].cpu().numpy())
    network.train(mode)
    logits, labels = np.concatenate(found), np.concatenate(truth)
    return fit_temperature(logits, labels, split) if len(labels) else None


def fit_temperature(logits: np.ndarray, labels: np.ndarray, split: str) -> Calibration:
    """The temperature that makes the labels most likely.

    Args:
        logits: float32 (N,K); K = 1: of class 1 against class 0.
        labels: integers (N,).
    """
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], 1)
    labels = labels.astype(np.int64)

    def loss(log_temperature: float) -> float:
        chances = log_softmax(logits / np.float32(np.exp(log_temperature)), axis=1)
        return float(-np.take_along_axis(chances, labels[:, None], 1).mean(dtype=np.float64))

    best = minimize_scalar(loss, bounds=LOG_RANGE, method="bounded", options={"xatol": 1e-3})
    chosen = float(best.x) if best.fun < loss(0.0) else 0.0
    return Calibration(
        temperature=float(np.exp(chosen)),
        split=split,
        answers=len(labels),
        ece_before=_ece(logits, labels),
        ece_after=_ece(logits / np.float32(np.exp(chosen)), labels),
        nll_before=loss(0.0),
        nll_after=loss(chosen),
    )


def _ece(logits: np.ndarray, labels: np.ndarray) -> float:
    chances = softmax(logits, axis=1)
    if logits.shape[1] == 2:
        confidence, hit = chances[:, 1], labels == 1
    else:
        confidence, hit = chances.max(1), chances.argmax(1) == labels
    stored = np.round(255 * confidence).astype(np.uint8)
    return metrics.expected_calibration_error(metrics.calibration_counts(stored, hit))
