"""Tiny data sets and configurations for trainings of a few seconds."""

from __future__ import annotations

import numpy as np
import pytest
from tidemark import configs


def disc_chip(rng, header):
    """Water is a disc in which the first band is darker."""
    height, width = header.arrays[0].shape[1:]
    rows, columns = np.mgrid[:height, :width]
    row, column = rng.integers(10, height - 10), rng.integers(10, width - 10)
    mask = ((rows - row) ** 2 + (columns - column) ** 2 < rng.integers(8, 18) ** 2).astype(np.uint8)
    image = rng.integers(100, 160, header.arrays[0].shape)
    image[0] -= 60 * mask
    mask[:2] = 255
    return {"image": image.astype(header.arrays[0].dtype), "mask": mask}


@pytest.fixture
def patches(tiny_dataset):
    return tiny_dataset(name="patches", kind="classification", classes=3, shape=(2, 32, 32), dtype="uint8", chips=12)


@pytest.fixture
def discs(tiny_dataset):
    return tiny_dataset(name="discs", shape=(2, 64, 64), chips=12, make=disc_chip)


@pytest.fixture(scope="session")
def config():
    """Makes a configuration for a data set's folder, an output folder and KEY, VALUE, …"""
    return _config


def _config(folder, output, *overrides, model="patch-cnn", args="{width: 4, hidden: 16}"):
    name, version = folder.parts[-2:]
    values = [
        "DATA.ROOT",
        str(folder.parents[1]),
        "DATA.NAME",
        name,
        "DATA.VERSION",
        version,
        "OUTPUT",
        str(output),
        "MODEL.NAME",
        model,
        "MODEL.ARGS",
        args,
        "TRAIN.EPOCHS",
        "4",
        "TRAIN.BATCH_SIZE",
        "8",
        "TRAIN.DEVICE",
        "cpu",
        "TRAIN.THREADS",
        "1",
    ]
    return configs.make_config({}, [*values, *map(str, overrides)])
