"""A tiny data set of pairs that can be learned: the image is darker than the target, and coarser; the pan is sharp."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from tidemark.datasets.spec import Array, Band

SIZE, LOW = 64, 24
NAMES = ("blue", "green", "red", "nir", "swir1", "swir2")
GAIN = 0.8  # of the image over the target


def bands(sensor, scale, offset, nodata):
    return tuple(
        Band(name=n, sensor=sensor, unit="reflectance", scale=scale, offset=offset, nodata=nodata) for n in NAMES
    )


PAN_BAND = Band(name="pan", sensor="Landsat-8 OLI", unit="reflectance", scale=2.5e-5, nodata=0)
ARRAYS = (
    Array(
        name="image", dtype="uint16", shape=(6, LOW, LOW), role="image", bands=bands("Landsat-8 OLI", 2.75e-5, -0.2, 0)
    ),
    Array(name="pan", dtype="uint16", shape=(1, 2 * LOW, 2 * LOW), role="context", bands=(PAN_BAND,)),
    Array(
        name="target",
        dtype="uint16",
        shape=(6, SIZE, SIZE),
        role="target",
        bands=bands("Sentinel-2 MSI", 1e-4, 0, 65535),
    ),
    Array(name="valid", dtype="uint8", shape=(SIZE, SIZE), role="valid"),
)
GRIDS = (
    ("image", 30.0, 40.0),
    ("pan", 15.0, 32.5),
)  # metres of a pixel, and how far north-west of the target it begins


def pair(rng, header):
    """Ground of 2.5 m over 760 m, from 60 m north-west of the target on; a cloud in the target's last rows."""
    field = ndimage.gaussian_filter(rng.normal(size=(320, 320)), 4)
    ground = 0.2 + 0.05 * field / field.std()
    seen = np.stack([ground * (0.5 + 0.15 * band) for band in range(6)]).clip(0.01, 0.9)

    def sampled(values, pixel, start, side):
        at = ((start + (np.arange(side) + 0.5) * pixel + 60) / 2.5).astype(int).clip(0, 319)
        blurred = ndimage.uniform_filter(values, (0, pixel / 2.5, pixel / 2.5))
        return blurred[:, at[:, None], at[None]]

    image, pan = sampled(GAIN * seen, 30, -40, LOW), sampled(seen.mean(0, keepdims=True), 15, -32.5, 2 * LOW)
    target, valid = sampled(seen, 10, 0, SIZE), np.ones((SIZE, SIZE), np.uint8)
    valid[-12:] = 0
    target[:, -12:] = 0.9
    return {
        "image": np.rint((image + 0.2) / 2.75e-5).astype(np.uint16),
        "pan": np.rint(pan / 2.5e-5).astype(np.uint16),
        "target": np.rint(target * 1e4).astype(np.uint16),
        "valid": valid,
    }


@pytest.fixture(scope="session")
def pairs(tiny_dataset):
    """The data set's folder."""
    return tiny_dataset(name="tiny-pairs", kind="regression", chips=4, arrays=ARRAYS, grids=GRIDS, make=pair)
