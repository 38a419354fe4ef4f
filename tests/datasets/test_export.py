"""A data set in other forms, each opened by its own library."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import webdataset
import zarr
from PIL import Image
from tidemark.datasets.export import export
from tidemark.datasets.loader import ChipLoader
from tidemark.errors import InputError


@pytest.fixture(scope="module")
def folder(tiny_dataset):
    return tiny_dataset(chips=2)


@pytest.fixture(scope="module")
def chips(folder):
    """By chip id: image and mask of the training split."""
    loader = ChipLoader(folder, "train", 1)
    batches = zip(loader.chip_ids, loader, strict=True)
    return {chip: (batch["image"][0].numpy(), batch["mask"][0].numpy()) for chip, batch in batches}


def test_geotiffs_have_the_pixels_the_grid_and_the_scale(folder, chips, tmp_path):
    out = export(folder, "geotiff", tmp_path)
    for chip, (image, mask) in chips.items():
        with rasterio.open(out / f"train/image/{chip}.tif") as dataset:
            assert np.array_equal(dataset.read(), image)
            assert dataset.crs.to_epsg() == 32622 and dataset.transform.a == 10.0 and dataset.nodata == 0
            assert dataset.descriptions == ("b0", "b1") and dataset.scales == (0.5, 0.5) and dataset.offsets[0] == 1.0
        with rasterio.open(out / f"train/mask/{chip}.tif") as dataset:
            assert np.array_equal(dataset.read(1), mask)
    assert len(list(out.rglob("*.tif"))) == 24


def test_labels_per_patch_stand_in_a_file(tiny_dataset, tmp_path):
    patches = tiny_dataset(name="patches", kind="classification", chips=2, shape=(2, 32, 32), classes=3, placed=False)
    out = export(patches, "geotiff", tmp_path)
    labels = json.loads((out / "train/labels.json").read_text())
    loader = ChipLoader(patches, "train", 4)
    assert labels == dict(zip(loader.chip_ids, next(iter(loader))["label"].tolist(), strict=True))


def test_webdataset_reads_the_tars(folder, chips, tmp_path):
    out = export(folder, "webdataset", tmp_path)
    read = webdataset.WebDataset(str(out / "train-000000.tar"), shardshuffle=False).decode()
    found = {sample["json"]["chip_id"]: sample for sample in read}
    assert found.keys() == chips.keys()
    for chip, (image, mask) in chips.items():
        assert np.array_equal(found[chip]["image.npy"], image) and np.array_equal(found[chip]["mask.npy"], mask)


def test_zarr_reads_the_groups(folder, chips, tmp_path):
    out = export(folder, "zarr", tmp_path)
    group = zarr.open_group(out / "chips.zarr", mode="r")["train"]
    order = [fact["chip_id"] for fact in json.loads((out / "train.json").read_text())]
    assert order == list(chips)
    assert np.array_equal(group["image"][:], np.stack([image for image, _ in chips.values()]))
    assert group["image"].chunks == (1, 2, 128, 128) and group["image"].attrs["bands"][0]["scale"] == 0.5


def test_the_index_is_geoparquet_and_stac_with_thumbnails(folder, chips, tmp_path):
    out = export(folder, "index", tmp_path)
    frame = geopandas.read_parquet(out / "chips.parquet")
    assert frame.crs.to_epsg() == 4326 and set(frame.split) == {"train", "val", "test"} and len(frame) == 12
    mask = chips["train-0-000"][1]
    share = frame.set_index("chip_id").loc["train-0-000", "share:class 1"]
    assert share == pytest.approx((mask == 1).sum() / (mask != 255).sum())
    collection = pystac.Collection.from_file(str(out / "collection.json"))
    items = list(collection.get_items())
    assert len(items) == 12 and items[0].geometry["type"] == "Polygon"
    west, south, east, north = items[0].bbox
    assert -51.1 < west < east < -50 and 64 < south < north < 65
    with Image.open(out / "items" / items[0].assets["thumbnail"].href) as picture:
        assert picture.size == (128, 128) and picture.getextrema()[1] > 100


def test_chips_without_a_position_have_no_index(tiny_dataset, tmp_path):
    with pytest.raises(InputError, match="no position"):
        export(tiny_dataset(chips=1, placed=False), "index", tmp_path)


def test_nothing_is_overwritten_and_unknown_forms_are_named(folder, tmp_path):
    with pytest.raises(InputError, match="no form 'tfrecord', there is geotiff, webdataset, zarr, index"):
        export(folder, "tfrecord", tmp_path)
    (tmp_path / "tiny-1.0.0-zarr").mkdir()
    (tmp_path / "tiny-1.0.0-zarr/mine").write_text("x")
    with pytest.raises(InputError, match="is there already"):
        export(folder, "zarr", tmp_path)
