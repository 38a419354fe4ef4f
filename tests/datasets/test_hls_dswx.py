"""hls-dswx: labels agree pixel by pixel with another reading of the code table; the card says what they are worth."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from tidemark.datasets import build as engine
from tidemark.datasets.audit import audit
from tidemark.datasets.build import build, builder_module, plan_data_set
from tidemark.datasets.builders import hls_dswx
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import load_manifest
from tidemark.datasets.verify import verify
from tidemark.datasets.worker import make_shard
from tidemark.errors import InputError, SceneError

REAL = Path(os.environ.get("TIDEMARK_DATA", Path(__file__).parents[3] / "shared" / "data")) / "hls-dswx"
BAND_NAMES = ("B02", "B03", "B04", "B8A", "B11", "B12")
MEANING = {0: "land", 1: "water", 2: "water", 3: "partial", 4: "partial", 9: "cloud", 255: "fill"}  # JPL D-107395
STORED = {"land": 0, "water": 1, "partial": 255, "cloud": 255, "fill": 255}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(engine, "run_task", make_shard)


def write(path, array, dtype, origin=(600_000, 3_600_000), crs="EPSG:32615"):
    with rasterio.open(
        path, "w", driver="GTiff", dtype=dtype, count=1, height=array.shape[0], width=array.shape[1], crs=crs,
        transform=from_origin(*origin, 30, 30), tiled=True, blockxsize=64, blockysize=64,
    ) as dataset:  # fmt: skip
        dataset.write(array.astype(dtype), 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("hls"), np.random.default_rng(0)
    shape = (8 * hls_dswx.CHIP_SIZE + 10,) * 2
    for number, band in enumerate(BAND_NAMES):
        values = rng.integers(-200, 6000, shape) + number
        values[:5, :7] = -9999 if number == 2 else values[:5, :7]
        values[300, 300] = -32768
        write(folder / f"HLS.S30.T15SXR.2021250T163901.v2.0.{band}.tif", values, "int16")
    write(folder / "dswx_hls_v0.1_B01_WTR.tif", rng.choice(list(MEANING), shape), "uint8")
    return folder


def make(folder, out):
    return build(plan_data_set("hls-dswx", folder), builder_module("hls-dswx"), out)


def check_pixels(made, folder):
    """Every chip against the files, by its window and in words; returns the number of pixels compared."""
    files = {p.name.split(".")[-2]: p for p in folder.rglob("HLS.*.tif")}
    bands = np.stack([rasterio.open(files[b]).read(1) for b in BAND_NAMES])
    codes = rasterio.open(next(folder.rglob("*B01_WTR.tif"))).read(1)
    compared = 0
    for split in load_manifest(made).splits:
        for shard in open_split(made, split.name)[1]:
            for i in range(shard.n):
                row, column, height, width = shard.window[i]
                place = np.s_[row : row + height, column : column + width]
                image, mask = shard.read("image", i), shard.read("mask", i)
                missing = np.isin(bands[:, *place], (-9999, -32768))
                np.testing.assert_array_equal(image, np.where(missing, -32768, bands[:, *place]))
                for y in range(height):
                    words = [MEANING[int(code)] for code in codes[place][y]]
                    gaps = missing[:, y].any(0)
                    assert mask[y].tolist() == [255 if gap else STORED[w] for w, gap in zip(words, gaps, strict=True)]
                compared += mask.size
    return compared


def test_labels_agree_with_the_code_table(source, tmp_path):
    made = make(source, tmp_path)
    assert check_pixels(made, source) > 10 * hls_dswx.CHIP_SIZE**2
    assert not verify(made, deep=True).problems
    checks = {c.name: c.status for c in audit(made).checks}
    assert checks["footprints"] == checks["scenes"] == checks["classes"] == "pass"


def test_the_card_says_that_it_is_circular(source, tmp_path):
    made = make(source, tmp_path)
    manifest = load_manifest(made)
    assert "circular" in manifest.title and "Circular" in (made / "README.md").read_text()
    assert manifest.scenes[0].date == "2021-09-07T16:39:01Z" and manifest.guard_distance_m == 30


def test_chips_of_two_splits_never_touch(source):
    plan = plan_data_set("hls-dswx", source)
    windows = [(job.split, w) for shard in plan.shards for job in shard.scenes for w in job.payload["windows"]]
    for split, (row, column, *_) in windows:
        near = {s for s, (r, c, *_) in windows if abs(r - row) <= hls_dswx.CHIP_SIZE >= abs(c - column)}
        assert near == {split}


def test_files_that_do_not_fit_are_named(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "src")
    write(folder / "dswx_hls_v0.1_B01_WTR.tif", np.zeros((778, 778)), "uint8", origin=(600_015, 3_600_000))
    with pytest.raises(SceneError, match="not on the image's grid"):
        make(folder, tmp_path)
    (folder / "dswx_hls_v0.1_B01_WTR.tif").unlink()
    with pytest.raises(InputError, match="one HLS granule and one B01_WTR, found 1 and 0"):
        make(folder, tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no {REAL}")
def test_the_real_granule(tmp_path):
    made = make(REAL, tmp_path)
    manifest = load_manifest(made)
    assert check_pixels(made, REAL) > 400_000
    assert all(s.classes["water"] > 0 for s in manifest.splits) and not verify(made, deep=True).problems
    checks = {c.name: c.status for c in audit(made).checks}
    assert "fail" not in checks.values()
