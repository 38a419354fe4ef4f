"""Passes over shards against copies, plain h5py and GeoTIFF. ``pytest -c benchmark/perf/pytest.ini benchmark/perf``."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tidemark.benchmark import synthetic
from tidemark.benchmark.geotiff import TORCHGEO_STYLE, loader, write_variant
from tidemark.benchmark.throughput import GOALS, Setting, bench_loader, drain, h5py_pass, memcpy_pass, shard_of
from tidemark.datasets.build import build
from tidemark.datasets.loader import ChipLoader

SETTING = Setting(chips=16, bands=8, size=256, batch=8)
PATCHES = Setting(chips=512, bands=2, size=64, batch=128)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    plan = synthetic.plan(chips=SETTING.chips, bands=SETTING.bands, size=SETTING.size)
    root = tmp_path_factory.mktemp("perf")
    return {codec: build(plan, synthetic.__name__, root / codec, codec=codec) for codec in ("blosc", "gzip", "none")}


@pytest.fixture(scope="module")
def chips():
    return [synthetic.synthetic_chip(i, SETTING.bands, SETTING.size) for i in range(SETTING.chips)]


def ours(folder, setting: Setting = SETTING):
    return drain(ChipLoader(folder, "train", setting.batch, pin_memory=False))


@pytest.mark.parametrize("codec", ["blosc", "none"])
def test_chips_from_shards_against_copies_of_their_bytes(compare, folders, chips, tmp_path, codec):
    compare(f"loader: {codec} / memcpy", ours(folders[codec]), memcpy_pass(tmp_path / "raw", chips, SETTING))


def test_gzip_chips_against_plain_h5py(compare, folders):
    compare("loader: gzip / h5py", ours(folders["gzip"]), h5py_pass(shard_of(folders["gzip"]), SETTING))


def test_chips_from_shards_against_geotiff(compare, folders, chips, tmp_path):
    write_variant(tmp_path, TORCHGEO_STYLE, iter(chips))
    in_process = replace(TORCHGEO_STYLE, workers=0)  # whose processor time this process can read
    theirs = drain(loader(tmp_path, in_process, SETTING.chips, SETTING.batch))
    compare("loader: blosc / torchgeo-style GeoTIFF", ours(folders["blosc"]), theirs)


def test_patches_against_copies_of_their_bytes(compare, tmp_path):
    plan = synthetic.plan(chips=PATCHES.chips, bands=PATCHES.bands, size=PATCHES.size)
    folder = build(plan, synthetic.__name__, tmp_path / "patches")
    patches = [synthetic.synthetic_chip(i, PATCHES.bands, PATCHES.size) for i in range(PATCHES.chips)]
    compare("loader: patches / memcpy", ours(folder, PATCHES), memcpy_pass(tmp_path / "raw", patches, PATCHES))


def test_the_loader_benchmark_runs_and_compares_bytes(tmp_path):
    record = bench_loader(quick=True, out=tmp_path / "record.json")
    assert set(GOALS) <= set(record["ratios"]) and (tmp_path / "record.json").exists()
    assert all(value["median"] > 0 for value in record["ratios"].values())
