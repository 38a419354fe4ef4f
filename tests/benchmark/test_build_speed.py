"""The build benchmark: every contender makes the same chips of the same scene."""

from __future__ import annotations

import json
from types import SimpleNamespace

import h5py
import hdf5plugin  # noqa: F401  registers the Blosc filter with h5py
import numpy as np
import pytest
from affine import Affine
from rasterio.windows import Window
from tidemark.benchmark import build_contenders as contenders
from tidemark.benchmark import build_speed
from tidemark.benchmark.build_scenes import SCENES
from tidemark.datasets.plan import ChipRef, SceneJob
from tidemark.errors import InputError

SIZES = {"alos-dswe": 700, "l8s2": 512}


@pytest.mark.parametrize("kind", ["alos-dswe", pytest.param("l8s2", marks=pytest.mark.slow)])
def test_the_naive_builder_makes_our_chips(tmp_path, kind):
    scene = SCENES[kind](tmp_path / "source", SIZES[kind])
    request = contenders.request_of(kind, tmp_path / "source", tmp_path / "out", scene)
    job = next(SceneJob(**job) for _, job in request["scenes"])
    chips = contenders.ours(request)
    naive = contenders.naive(kind, request, job, tmp_path / "naive.h5", chips + 1, chunked=True)
    assert chips == naive >= 3
    contenders.read(kind, job)
    with h5py.File(request["path"]) as ours, h5py.File(tmp_path / "naive.h5") as theirs:
        for name in ("image", "mask") if kind == "alos-dswe" else ("image", "pan", "valid"):
            one, two = ours[name][()].astype(float), theirs[name][:chips].astype(float)
            # GDAL's default approximation of a warp is an eighth of a pixel
            assert np.mean(np.abs(one - two) > 0.02 * np.abs(one) + 0.5) < 0.02
        if kind == "l8s2":
            np.testing.assert_array_equal(ours["target"][:, :3], theirs["target"][:chips, :3])


@pytest.mark.parametrize("north", [4_900_035.0, 6_300_015.0 - 10_000_000, 10.0])
def test_a_chip_is_cut_out_of_landsat_on_either_side_of_the_equator(north):
    dataset = SimpleNamespace(transform=Affine(30, 0, 299_985, 0, -30, north))
    y = (north if north > 1e6 else north + 10_000_000) - 30 * 40
    ref = ChipRef("chip", (0, 0, 256, 256), transforms={"image": (30.0, 0.0, 299_985 + 30.0 * 7, 0.0, -30.0, y)})
    assert contenders._window(dataset, ref, "image") == Window(7, 40, 86, 86)


def test_an_unknown_scene_is_refused():
    with pytest.raises(InputError, match="no scene 'ombria', there is alos-dswe, l8s2"):
        build_speed.bench_build(kinds=("ombria",))


def test_ratios_are_taken_round_by_round():
    rates = {"ours": [10.0, 30.0, 20.0], "read": [20.0, 30.0, 80.0]}
    assert build_speed._ratios(rates, "read") == [0.5, 0.25, 1.0]


@pytest.mark.slow
def test_the_quick_benchmark_writes_its_record(tmp_path, capsys):
    build_speed.bench_build(quick=True, kinds=("alos-dswe",), out=tmp_path / "record.json", workdir=tmp_path)
    record = json.loads((tmp_path / "record.json").read_text())["alos-dswe"]
    assert record["chips"] == 4 and record["peak_bytes"] < build_speed.PEAK_GOAL_BYTES
    assert set(record["mb_per_s"]) == set(build_speed.CONTENDERS) and record["ratios"]["ours / naive"][0] > 1
    assert "| naive-chunked |" in capsys.readouterr().out
