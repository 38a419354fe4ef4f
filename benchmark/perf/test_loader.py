"""Passes over shards and their rivals. ``pytest -c benchmark/perf/pytest.ini benchmark/perf`` compares them."""

from __future__ import annotations

import h5py
import hdf5plugin  # noqa: F401  registers the filters with h5py
import pytest
from tidemark.benchmark import synthetic
from tidemark.benchmark.geotiff import TORCHGEO_STYLE, loader, write_variant
from tidemark.benchmark.throughput import GOALS, bench_loader
from tidemark.datasets.build import build
from tidemark.datasets.loader import ChipLoader

CHIPS, BANDS, SIZE, BATCH = 16, 8, 256, 8


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    plan, root = synthetic.plan(chips=CHIPS, bands=BANDS, size=SIZE), tmp_path_factory.mktemp("perf")
    return {codec: build(plan, synthetic.__name__, root / codec, codec=codec) for codec in ("blosc", "gzip", "none")}


def drain(batches) -> int:
    return sum(len(batch["image"]) for batch in batches)


@pytest.mark.benchmark(group="loader")
@pytest.mark.parametrize("codec", ["blosc", "gzip", "none"])
def test_chip_loader(benchmark, folders, codec):
    chips = ChipLoader(folders[codec], "train", BATCH, pin_memory=False)
    assert benchmark(drain, chips) == CHIPS


@pytest.mark.benchmark(group="loader")
def test_plain_h5py_on_gzip(benchmark, folders):
    path = next((folders["gzip"] / "train").glob("*.h5"))

    def work() -> int:
        with h5py.File(path) as file:
            return sum(len(file["image"][i : i + BATCH]) + 0 * len(file["mask"][i]) for i in range(0, CHIPS, BATCH))

    assert benchmark(work) == CHIPS


@pytest.mark.benchmark(group="loader")
def test_torchgeo_style_geotiff(benchmark, tmp_path):
    write_variant(tmp_path, TORCHGEO_STYLE, (synthetic.synthetic_chip(i, BANDS, SIZE) for i in range(CHIPS)))
    assert benchmark(drain, loader(tmp_path, TORCHGEO_STYLE, CHIPS, BATCH)) == CHIPS


def test_the_loader_benchmark_runs_and_compares_bytes(tmp_path):
    record = bench_loader(quick=True, out=tmp_path / "record.json")
    assert set(GOALS) <= set(record["ratios"]) and (tmp_path / "record.json").exists()
    assert all(value["median"] > 0 for value in record["ratios"].values())
