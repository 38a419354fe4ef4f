"""Counting and scoring against the libraries that define the same. Run like ``test_loader.py``.

torchmetrics gets its labels as uint8, which it counts fastest, unless a case says int64, what losses and loaders use.
Every ratio is the median over rounds in which ours and theirs take turns on the same arrays, by the processor time of
one thread each, which other programs on the machine hardly change.
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
from torchmetrics.functional.classification import binary_confusion_matrix, multiclass_confusion_matrix

CHIPS, SIZE, ROUNDS, REPEATS = 4, 512, 7, 16
ATTEMPTS = 3  # other programs on the same cores slow down what computes more than what waits for memory
GOALS = {
    "binary / torchmetrics": 100,
    "three classes / torchmetrics": 25,
    "three classes / torchmetrics without validation": 8,
}


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


CASES = {
    "binary / torchmetrics": (ours(2), torchmetrics(2)),
    "binary / torchmetrics without validation": (ours(2), torchmetrics(2, validate=False)),
    "binary / torchmetrics int64": (ours(2), torchmetrics(2, torch.int64)),
    "three classes / torchmetrics": (ours(3), torchmetrics(3)),
    "three classes / torchmetrics without validation": (ours(3), torchmetrics(3, validate=False)),
    "three classes / torchmetrics int64": (ours(3), torchmetrics(3, torch.int64)),
    "three classes / torchmetrics int64 without validation": (ours(3), torchmetrics(3, torch.int64, validate=False)),
}


def ratio(mine, theirs, rounds: int = ROUNDS) -> float:
    """How many times as long theirs takes: the median of rounds taken in turns, after one that is not counted.

    Ours runs several times a round, as in a pass over many chips: once is shorter than the clock and the caches bear.
    """
    ratios = []
    for _ in range(rounds + 1):
        times = []
        for call, repeats in ((mine, REPEATS), (theirs, 1)):
            start = time.thread_time()
            for _ in range(repeats):
                call()
            times.append((time.thread_time() - start) / repeats)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios[1:])


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", CASES)
def test_confusion_matrices_reach_their_goals(case):
    mine, theirs = CASES[case]
    assert np.array_equal(mine(), theirs().numpy())
    goal, found = GOALS.get(case, 1), []
    while len(found) < ATTEMPTS and max(found, default=0) < goal:
        found.append(ratio(mine, theirs))
        print(f"\n{case}: {found[-1]:.0f} x")
    assert max(found) >= goal


@pytest.mark.benchmark(group="confusion")
@pytest.mark.parametrize("classes", [2, 3])
def test_confusion(benchmark, classes):
    assert benchmark(ours(classes)).sum() > 0


@pytest.mark.benchmark(group="confusion")
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("classes", [2, 3])
def test_torchmetrics_confusion(benchmark, classes, validate):
    assert benchmark(torchmetrics(classes, validate=validate)).sum() > 0


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(0)
    truth = random.random((6, 256, 256))
    return truth, (truth + random.normal(0, 0.05, truth.shape)).astype(np.float16)


@pytest.mark.benchmark(group="reflectance")
def test_all_sums_of_a_chip(benchmark, images):
    indices = reflectance.index_bands(("blue", "green", "red", "nir", "swir1", "swir2"))
    sums = benchmark(reflectance.chip_sums, *images, np.ones((256, 256), bool), indices)
    assert sums["pixels"] == 240 * 240


@pytest.mark.benchmark(group="reflectance")
def test_scikit_image_ssim_of_a_chip(benchmark, images):
    truth, prediction = images[0], images[1].astype(np.float64)

    def work() -> float:
        return structural_similarity(
            truth, prediction, channel_axis=0, data_range=1, gaussian_weights=True, use_sample_covariance=False
        )

    assert 0 < benchmark(work) < 1
