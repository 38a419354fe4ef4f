"""The evaluator's memory does not grow with the data set."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from tidemark.benchmark import chip_table, counting
from tidemark.benchmark.evaluate import score
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import Array, Band
from tidemark.models.predictions import write_predictions

FEW, MANY = 4, 64  # chips in each of a split's two scenes
SIZE = 64


def water(rng, header):
    mask = (rng.random((SIZE, SIZE)) < 0.3).astype(np.uint8)
    return {"image": rng.integers(1, 99, (2, SIZE, SIZE)).astype(np.uint16), "mask": mask}


def pair(rng, header):
    return {a.name: rng.integers(1, 9000, a.shape).astype(np.uint16) for a in header.arrays}


BANDS = tuple(Band(name=name, scale=1e-4) for name in ("red", "nir", "swir1"))
PAIR = (
    Array(name="image", dtype="uint16", shape=(3, 32, 32), role="image", bands=BANDS),
    Array(name="target", dtype="uint16", shape=(3, SIZE, SIZE), role="target", bands=BANDS),
)
TASKS = {
    "water": dict(make=water, shape=(2, SIZE, SIZE)),
    "reflectance": dict(make=pair, kind="regression", arrays=PAIR),
}


def answer(manifest, shard, i):
    if manifest.label_array.role == "target":
        return (shard.read("target", i) * 1e-4 + 0.01).astype(np.float16), None
    mask = shard.read("mask", i)
    return mask, np.where(mask, 200, 50).astype(np.uint8)


@pytest.mark.parametrize("task", TASKS)
def test_the_peak_is_the_same_for_many_chips_as_for_few(tiny_dataset, tmp_path, monkeypatch, task):
    monkeypatch.setattr(counting, "BATCH_BYTES", 4 * 2 * 2 * SIZE * SIZE)
    monkeypatch.setattr(chip_table, "ROWS", 8)
    peaks, content = [], 0
    for chips in (FEW, FEW, MANY):  # the first pass also loads what is loaded once
        folder = tiny_dataset(name=task, chips={"train": 1, "val": 1, "test": chips}, **TASKS[task])
        manifest, shards = open_split(folder, "test")
        path = write_predictions(
            tmp_path / f"{chips}.h5",
            dataset=manifest.model_dump(),
            split="test",
            model="test",
            chip_ids=[chip for shard in shards for chip in shard.chip_ids],
            chunks=(answer(manifest, shard, i) for shard in shards for i in range(shard.n)),
        )
        tracemalloc.start()
        scored = score(path, folder, "test", confusion_path=tmp_path / "confusion.parquet")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert scored.chips == 2 * chips
        content = 2 * chips * sum(array.chip_bytes for array in manifest.arrays)
    # What is left is a chip's id and place: well under a kilobyte, against tens of kilobytes of pixels.
    assert peaks[2] - peaks[1] < min(1024 * 2 * (MANY - FEW), content / 20)
