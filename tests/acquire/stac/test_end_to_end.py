"""From a local archive of simulated products through catalogue, windows and files to verified data sets."""

import datetime
import shutil

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_bounds
from tidemark.datasets import build as engine
from tidemark.datasets.acquire import l8s2, report, s1
from tidemark.datasets.acquire.commands import acquire_l8s2, acquire_s1
from tidemark.datasets.audit import audit
from tidemark.datasets.build import build, builder_module, plan_data_set
from tidemark.datasets.reader import open_split
from tidemark.datasets.simulate.l8s2 import simulate_l8s2
from tidemark.datasets.simulate.products import simulate_product
from tidemark.datasets.spec import load_manifest
from tidemark.datasets.verify import verify
from tidemark.datasets.worker import make_shard


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(engine, "run_task", make_shard)
    monkeypatch.setattr(report, "write_map", lambda *args: None)


def inner_area(path, inset_m):
    """The bbox, as text, of what lies so far inside a raster."""
    with rasterio.open(path) as dataset:
        west, south, east, north = dataset.bounds
        inside = (west + inset_m, south + inset_m, east - inset_m, north - inset_m)
        return ",".join(f"{v:.6f}" for v in transform_bounds(dataset.crs, "EPSG:4326", *inside))


def built(name, source, out):
    """The manifest of a data set that is made of a folder, verified chip by chip and audited."""
    (source / "simulation.json").write_text("{}\n")  # what was simulated says so
    folder = build(plan_data_set(name, source), builder_module(name), out)
    assert not verify(folder, deep=True).problems
    found = audit(folder)
    assert not found.failed, found.text()
    return folder, load_manifest(folder)


@pytest.mark.slow
def test_l8s2_from_the_catalogues_to_a_verified_data_set(service, config, archive_tools, tmp_path):
    archive, out = tmp_path / "archive", tmp_path / "out"
    made = simulate_l8s2(archive, seed=5, scenes=3, size=320, driver="GTiff")
    for folder in made:
        kind = "sentinel2" if folder.name.endswith(".SAFE") else "landsat"
        service.items.append(archive_tools[kind](service, folder))
    products = [folder for folder in made if folder.name.endswith(".SAFE")]
    limits = l8s2.Limits(s2_cloud_percent=60, l8_cloud_percent=60)
    for product in products:  # each in a tile of its own, far from the others
        bbox = inner_area(next(product.rglob("*_B02_10m.tif")), 100)
        outcome = acquire_l8s2(bbox, "2021-04-01", "2021-10-01", out, limits, config=config)
        assert (outcome.fetched, outcome.kept) == (16, 0)
    folder, manifest = built("l8s2", out, tmp_path / "data")
    assert manifest.simulated and {split.name for split in manifest.splits} == {"train", "val", "test"}
    assert "Fetched by tidemark acquire" in manifest.provenance
    whole, from_whole = built("l8s2", archive, tmp_path / "whole")
    # what was cut out is what the archive has: the same reflectances where the chips' windows are the same ground
    mine, theirs = ground(folder), ground(whole)
    shared = 0
    for tile, (place, target) in mine.items():
        other_place, other = theirs.get(tile, (None, None))
        if other is None:
            continue
        down, right = round((other_place[5] - place[5]) / 10), round((place[2] - other_place[2]) / 10)
        rows, columns = 256 - abs(down), 256 - abs(right)
        inside = (slice(None), slice(8, rows - 8), slice(8, columns - 8))  # 20 m bands are interpolated at the edges
        np.testing.assert_array_equal(target[:, :rows, :columns][inside], other[:, down:, right:][inside])
        shared += 1
    assert shared >= 2


def ground(folder):
    """Tile -> transform and target of its first chip."""
    found = {}
    for split in load_manifest(folder).splits:
        for shard in open_split(folder, split.name)[1]:
            for index, chip in enumerate(shard.chip_ids):
                found.setdefault(chip.split("_")[0], (shard.transform[index], shard.read("target", index)))
    return found


@pytest.mark.slow
def test_sentinel1_from_the_catalogue_to_a_verified_data_set(service, config, archive_tools, tmp_path):
    archive, out = tmp_path / "archive", tmp_path / "out"
    simulate_product("tibet-water", archive, seed=5, scenes=2, size=320)
    areas = {}
    for path in sorted(archive.glob("s1_*cend/*.tif")):
        number, orbit = path.name[:7], "ascending" if "ascend" in path.parent.name else "descending"
        with rasterio.open(path) as dataset:
            decibels, epsg, (west, north) = (
                dataset.read(),
                dataset.crs.to_epsg(),
                (dataset.bounds.left, dataset.bounds.top),
            )
            day = datetime.date.fromisoformat(dataset.tags()["ACQUISITION_DATE"])
        power = np.where(decibels == 0, np.float32(s1.NODATA), 10 ** (decibels / 10)).astype(np.float32)
        name, assets = f"S1A_IW_GRDH_1SDV_{day:%Y%m%d}T115900_{number}_{orbit}_rtc", {}
        for band, pixels in zip(s1.POLARIZATIONS, power, strict=True):
            file = archive_tools["raster"](
                tmp_path / "rtc" / name / f"{band}.tiff", pixels, epsg, west, north, 10.0, s1.NODATA
            )
            assets[band] = {"href": service.add(file, f"{name}/{band}.tiff")}
        bounds, _ = archive_tools["footprint"](file)
        facts = {"sat:orbit_state": orbit, "sat:relative_orbit": 12, "sar:instrument_mode": "IW"}
        service.items.append(archive_tools["item"](name, "sentinel-1-rtc", f"{day}T12:00:00Z", bounds, facts, assets))
        areas[number] = inner_area(path, 100)
    for number, bbox in areas.items():
        options = {"min_share": 0.5, "max_days": 30, "first_number": int(number[5:]), "config": config}
        assert acquire_s1(bbox, "2020-01-01", "2021-03-01", out, **options).fetched == 2
    shutil.copytree(archive / "s1_truth", out / "s1_truth")  # the water is drawn by people, not fetched
    folder, manifest = built("tibet-water", out, tmp_path / "data")
    assert manifest.simulated and sorted(s.id for s in manifest.scenes) == sorted(areas)
