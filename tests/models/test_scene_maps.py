"""The files of a map: cloud optimized, without steps between tiles, and nodata where nothing was seen."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from tidemark.datasets.raster import Grid
from tidemark.datasets.spec import WATER_CLASSES, Band
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import StorageError
from tidemark.models import cog
from tidemark.models.cog import cog_writer, draft_profile
from tidemark.models.predict import predict_scene, probability_path
from tidemark.models.registry import ModelSpec
from tidemark.models.weights import Pretrained

BANDS = (Band(name="a"), Band(name="b"))
GRID = Grid(600, 700, (10.0, 0.0, 5e5, 0.0, -10.0, 7.2e6), "EPSG:32622")


class First(torch.nn.Module):
    def forward(self, image):
        return image[:, :1]


class SeesItsTile(torch.nn.Module):
    """Every tile gets a level of its own, as with zero padding, normalisation per tile or attention over all of it."""

    def forward(self, image):
        return image[:, :1] + 4 * image[:, :1].mean((2, 3), keepdim=True)


def weights(model):
    return Pretrained(model, "toy", ModelSpec({"image": 2}, 1), {}, Preprocess(BANDS, normalization="none"),
                      [c.model_dump() for c in WATER_CLASSES], "segmentation", {}, "0" * 64)  # fmt: skip


def cog_offsets(path):
    """Of the full image and each overview: where its directory lies in the file, and where its first tile."""
    with rasterio.open(path) as file:
        levels = [{"ovr": number} for number in range(len(file.overviews(1)))]
        return [
            (
                int(file.get_tag_item("IFD_OFFSET", "TIFF", bidx=1, **level)),
                int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1, **level)),
            )
            for level in ({}, *levels)
        ]


def assert_cloud_optimized(path):
    """The rules of a COG: tiles, overviews, all directories at the start, then the tiles from coarse to fine."""
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert set(file.block_shapes) == {(256, 256)}
        assert file.overviews(1) == [2, 4][: len(file.overviews(1))]
        assert max(file.shape) // 2 ** len(file.overviews(1)) <= 256
    directories, tiles = zip(*cog_offsets(path), strict=True)
    assert list(directories) == sorted(directories) and directories[-1] < min(tiles)
    assert list(tiles) == sorted(tiles, reverse=True)


def write(path, array, **profile):
    grid = {"crs": GRID.crs, "transform": from_origin(5e5, 7.2e6, 10, 10)}
    options = grid | {"driver": "GTiff", "dtype": array.dtype, "count": len(array), "height": array.shape[1],
                      "width": array.shape[2]} | profile  # fmt: skip
    with rasterio.open(path, "w", **options) as file:
        file.write(array)
    return path


def test_maps_are_cloud_optimized_and_lose_nothing(tmp_path):
    array = np.random.default_rng(0).normal(0, 1, (2, 600, 700)).astype(np.float32)
    array[:, :256, :256] = np.nan
    source = write(tmp_path / "s.tif", array)
    out = predict_scene(source, weights(First()), tmp_path / "m" / "o.tif", tile=256, overlap=0.0)
    expected = predict_scene(array, weights(First()), tile=256, overlap=0.0)
    for path in (out, probability_path(out)):
        assert_cloud_optimized(path)
    with rasterio.open(out) as file:
        np.testing.assert_array_equal(file.read(1), expected.class_map)
        assert file.nodata == 255 and file.colormap(1)[255] == (0, 0, 0, 0)
        assert (file.read(1, out_shape=(1, 150, 175))[:60, :60] == 255).all()  # nodata in the overviews too
    with rasterio.open(probability_path(out)) as file:
        assert file.nodata == 255 and file.units == ("%",)
        found, known = file.read(1), expected.class_map != 255
        np.testing.assert_allclose(found[known], 100 * expected.probability[known], atol=0.51)
    assert sorted(p.name for p in out.parent.iterdir()) == ["o.tif", "o_probability.tif"]


def test_a_raster_of_several_float_bands_becomes_cloud_optimized(tmp_path):
    values = np.random.default_rng(1).random((3, 600, 700)).astype(np.float32)
    profile = draft_profile(GRID, count=3, dtype="float32", nodata=-1, interleave="pixel")
    with cog_writer(tmp_path / "r.tif", profile, predictor=True) as file:
        for row in range(0, 600, 256):
            strip = values[:, row : row + 256]
            file.write(strip, window=rasterio.windows.Window(0, row, 700, strip.shape[1]))
    assert_cloud_optimized(tmp_path / "r.tif")
    with rasterio.open(tmp_path / "r.tif") as file:
        np.testing.assert_array_equal(file.read(), values)
        assert file.nodata == -1 and file.crs == GRID.crs


def test_what_fails_on_the_way_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "r.tif"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="broken"), cog_writer(path, draft_profile(GRID)):
        raise RuntimeError("broken")

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cog, "copy_raster", full)
    with pytest.raises(StorageError, match="No space left.*free on the disk"), cog_writer(path, draft_profile(GRID)):
        pass
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["r.tif"]


def steps(probability):
    """Mean step between neighbouring columns: at the borders of tiles over that elsewhere."""
    logits = np.log(probability / (1 - probability))
    step = np.abs(np.diff(logits, axis=1)).mean(0)
    borders = np.zeros(step.shape, bool)
    borders[np.arange(16, 256, 16) - 1] = True  # tiles of 32 px every 16: the next one starts, or the last one ends
    return step[borders].mean() / step[~borders].mean()


def test_no_step_lies_across_the_borders_of_tiles():
    """On a smooth scene, with a network that sees each tile differently; tiles laid side by side have the step."""
    y, x = np.mgrid[:256, :256] / 40
    scene = np.stack([np.sin(x + 2 * np.sin(y)), y]).astype(np.float32) / 2
    smooth, cut = (
        steps(predict_scene(scene, weights(SeesItsTile()), tile=32, overlap=o, blend=b).probability)
        for o, b in ((0.5, "hann"), (0.0, "crop"))
    )
    assert smooth < 1.05, f"{smooth:.2f} times the step elsewhere"
    assert cut > 3, f"the test would not see a step ({cut:.2f})"


@pytest.mark.parametrize("empty", ["everywhere", "a tile"])
def test_a_scene_without_data_becomes_nodata_not_water(tmp_path, empty):
    array = np.full((2, 300, 300), np.nan, np.float32)
    if empty == "a tile":
        array[:, :, 256:] = 3
    out = predict_scene(write(tmp_path / "s.tif", array), weights(First()), tmp_path / "o.tif")
    for path, seen in ((out, 1), (probability_path(out), 95)):
        with rasterio.open(path) as file:
            found = file.read(1)
            assert (found[:, :256] == 255).all()
            assert (found[:, 256:] == (255 if empty == "everywhere" else seen)).all()
            np.testing.assert_array_equal(file.dataset_mask() == 0, np.isnan(array[0]))
