"""The demonstration on a real pair: fitted on the left half, scored on the right one, by the protocol's sums."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from scipy import ndimage
from tidemark.benchmark import real_pair

DATA = Path(os.environ.get("TIDEMARK_DATA", Path(__file__).parents[3] / "shared" / "data"))
PAIR = DATA / "landsat8-sentinel2-pair"


def write(path, bands, west, north, pixel):
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "dtype": "uint8", "count": count, "height": height, "width": width}
    with rasterio.open(
        path, "w", crs="EPSG:32635", transform=from_origin(west, north, pixel, pixel), **profile
    ) as file:
        file.write(bands)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Landsat has half the brightness of Sentinel-2 in red, all of it in blue; a black corner on the right."""
    folder = tmp_path_factory.mktemp("pair")
    field = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(303, 423)), 3)
    fine = 100 + 15 * field / field.std()
    target = np.stack([fine, fine, fine]).clip(20, 250)
    coarse = ndimage.uniform_filter(target, (0, 3, 3))[:, 1::3, 1::3] * np.array([0.5, 0.75, 1])[:, None, None]
    landsat = np.zeros((7, *coarse.shape[1:]))
    landsat[[3, 2, 1]] = coarse
    target[:, :40, -40:] = 0
    write(folder / real_pair.FILES[0], np.rint(landsat).astype(np.uint8), 600_000, 4_000_000, 30)
    write(folder / real_pair.FILES[1], np.rint(target).astype(np.uint8), 600_000, 4_000_000, 10)
    return folder


def test_the_halves_share_no_ground_and_keep_their_places(pair):
    left, right = real_pair.read_pair(pair)
    assert left.size == (303, 163) and right.size == (303, 164)  # 423 - 96 columns, dealt by the middle
    assert right.batch["grid_image"][0].tolist() == pytest.approx([1 / 3, 259 / 3, 1 / 3, 0])
    assert left.batch["valid"].all() and not right.batch["valid"][0, :40, -40:].any()
    # what bicubic makes of the right half is the image under it
    error = right.interpolated()[0, 2] - right.batch["target"][0, 2]
    assert float(error[60:].abs().mean()) < 0.02


def test_lines_of_the_left_half_repair_the_brightness_of_the_right_one(pair, tmp_path, capsys):
    real_pair.main([str(pair), "--steps", "4", "--seeds", "1", "--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["bicubic, linear per band"]["psnr:red"] > found["bicubic"]["psnr:red"] + 10
    assert found["bicubic, linear per band"]["psnr:blue"] == pytest.approx(found["bicubic"]["psnr:blue"], abs=3)
    assert found["SRUNet, residual"]["psnr"] > 10
    assert "| bicubic, linear per band | " in capsys.readouterr().out


def test_what_is_missing_is_named(pair, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        real_pair.main([str(tmp_path)])
    assert ended.value.code == 2 and "landsat8_byte.tif: no such file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not PAIR.is_dir(), reason=f"the pair of homonim is not at {PAIR} (TIDEMARK_DATA)")
def test_on_the_real_pair_a_line_per_band_is_far_ahead_of_bicubic():
    left, right = real_pair.read_pair(PAIR)
    slope, offset = real_pair.fit_line(left)
    bicubic = right.interpolated()
    plain, fitted = (real_pair.scores(right, answer) for answer in (bicubic, bicubic * slope + offset))
    assert plain["psnr"] == pytest.approx(25.16, abs=0.1) and fitted["psnr"] == pytest.approx(32.13, abs=0.1)
