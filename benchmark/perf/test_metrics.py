"""Counting and scoring against the libraries that define the same. Run like ``test_loader.py``; ``-s`` shows ratios.

torchmetrics gets its labels as uint8, which it counts fastest, unless a case says int64, what losses and loaders use.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
import tidemark._compat  # noqa: F401  (before torchvision)
import torch
from skimage.metrics import structural_similarity
from tidemark.benchmark import metrics, reflectance
from tidemark.benchmark.regression import judge
from torchmetrics.functional.classification import binary_confusion_matrix, multiclass_confusion_matrix

CHIPS, SIZE = 4, 512
ROUNDS, OURS_A_ROUND = 7, 16
GOALS = {
    "binary / torchmetrics": 100,
    "three classes / torchmetrics": 25,
    "three classes / torchmetrics without validation": 8,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Ours has one thread too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def labels(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth with 5 % ignored pixels and an answer, uint8 (CHIPS, SIZE, SIZE)."""
    random = np.random.default_rng(classes)
    truth, answer = random.integers(0, classes, (2, CHIPS, SIZE, SIZE), np.uint8)
    truth[random.random(truth.shape) < 0.05] = 255
    return truth, answer


def torchmetrics(classes: int, dtype: torch.dtype = torch.uint8, validate: bool = True):
    """A call of torchmetrics on the labels."""
    truth, answer = (torch.from_numpy(values).to(dtype) for values in labels(classes))
    if classes == 2:
        return lambda: binary_confusion_matrix(answer, truth, ignore_index=255, validate_args=validate)
    return lambda: multiclass_confusion_matrix(answer, truth, classes, ignore_index=255, validate_args=validate)


def ours(classes: int):
    """A call of ours on the labels."""
    truth, answer = labels(classes)
    return lambda: metrics.confusion(truth, answer, classes)


def counted(call):
    """The call as a contender of ``compare``: it returns how many chips it has done."""

    def work() -> float:
        call()
        return float(CHIPS)

    return work


CASES = {
    "binary / torchmetrics": (2, {}),
    "binary / torchmetrics without validation": (2, {"validate": False}),
    "binary / torchmetrics int64": (2, {"dtype": torch.int64}),
    "three classes / torchmetrics": (3, {}),
    "three classes / torchmetrics without validation": (3, {"validate": False}),
    "three classes / torchmetrics int64": (3, {"dtype": torch.int64}),
    "three classes / torchmetrics int64 without validation": (3, {"dtype": torch.int64, "validate": False}),
}


def thread_time_ratio(mine, theirs) -> float:
    """How many times as long theirs computes: the median of rounds taken in turns, after one that is not counted.

    Ours runs several times a round, as in a pass over many chips: one call is too short for the clock.
    """
    ratios = []
    for _ in range(ROUNDS + 1):
        times = []
        for call, repeats in ((mine, OURS_A_ROUND), (theirs, 1)):
            start = time.thread_time()
            for _ in range(repeats):
                call()
            times.append((time.thread_time() - start) / repeats)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios[1:])


@pytest.mark.parametrize("case", CASES)
def test_confusion_matrices_are_near_their_goals(case):
    """Busy neighbours slow down what computes more than what waits for memory: only a gross loss fails."""
    classes, options = CASES[case]
    mine, theirs = ours(classes), torchmetrics(classes, **options)
    assert np.array_equal(mine(), theirs().numpy())
    verdict = judge(lambda: thread_time_ratio(mine, theirs), GOALS.get(case, 1))
    print(f"\n{case}: {verdict}")
    assert not verdict.lost, f"{case}: {verdict}"


@pytest.mark.parametrize("case", [*GOALS])
def test_confusion_against_torchmetrics(compare, case):
    classes, options = CASES[case]
    compare(f"metrics: {case}", counted(ours(classes)), counted(torchmetrics(classes, **options)))


def test_all_sums_of_reflectance_against_ssim_alone(compare):
    random = np.random.default_rng(0)
    truth, valid = random.random((6, 256, 256)), np.ones((256, 256), bool)
    prediction = (truth + random.normal(0, 0.05, truth.shape)).astype(np.float16)
    indices = reflectance.index_bands(("blue", "green", "red", "nir", "swir1", "swir2"))

    def theirs() -> None:
        structural_similarity(
            truth, prediction.astype(np.float64), channel_axis=0, data_range=1, gaussian_weights=True,
            use_sample_covariance=False,
        )  # fmt: skip

    compare(
        "metrics: reflectance sums / scikit-image SSIM",
        counted(lambda: reflectance.chip_sums(truth, prediction, valid, indices)),
        counted(theirs),
    )
