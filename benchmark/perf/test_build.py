"""Writing shards against plain h5py with the same filter."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from tidemark.benchmark import synthetic
from tidemark.datasets.codecs import dataset_options, encode
from tidemark.datasets.plan import ChipRef
from tidemark.datasets.writer import write_shard

CHIPS, BANDS, SIZE = 8, 8, 256


@pytest.fixture(scope="module")
def chips():
    return [synthetic.synthetic_chip(i, BANDS, SIZE) for i in range(CHIPS)]


def test_a_shard_against_plain_h5py(compare, chips, tmp_path):
    header = synthetic.plan(chips=CHIPS, bands=BANDS, size=SIZE).header
    refs = [ChipRef(f"chip-{i:05d}", (0, i * SIZE, SIZE, SIZE)) for i in range(CHIPS)]

    def ours() -> float:
        write_shard(tmp_path / "ours.h5", header, "train", "blosc", refs, [0] * CHIPS, chips)
        return float(CHIPS)

    def plain() -> float:
        with h5py.File(tmp_path / "plain.h5", "w") as file:
            for name in ("image", "mask"):
                values = np.stack([chip[name] for chip in chips])
                options = dataset_options("blosc", values.itemsize)
                file.create_dataset(name, data=values, chunks=(1, *values.shape[1:]), **options)
        return float(CHIPS)

    compare("build: blosc shard / plain h5py", ours, plain)


def test_encoding_against_copying(compare, chips):
    image = chips[0]["image"]

    def ours() -> float:
        return float(len(encode("blosc", image)) > 0)

    compare("build: blosc encode / copy", ours, lambda: float(len(image.tobytes()) > 0))
