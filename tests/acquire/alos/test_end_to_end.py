"""Simulated products in local archives, through search, pair rule, transfer and builder to a verified data set."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.warp import transform_geom
from tidemark.datasets import build as engine
from tidemark.datasets.acquire.alos_command import acquire_alos_dswe
from tidemark.datasets.audit import audit
from tidemark.datasets.build import build, builder_module, plan_data_set
from tidemark.datasets.simulate.products import simulate_product
from tidemark.datasets.spec import load_manifest
from tidemark.datasets.verify import verify
from tidemark.datasets.worker import make_shard
from tidemark.errors import PartialResultError

LAYERS = {"gfc": "/gfc/", "hand": "/hand/"}


def outline(path: Path, data_only: bool) -> shapely.Polygon:
    """The ground of a raster in degrees: all of it, or the hull of its pixels above 0."""
    with rasterio.open(path) as dataset:
        height, width = dataset.shape
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
        if data_only:
            rows, columns = np.nonzero(dataset.read(1))
            corners = np.column_stack([columns, rows])[hull(columns, rows)] + 0.5
        x, y = dataset.transform @ (corners[:, 0], corners[:, 1])
        ring = shapely.segmentize(shapely.Polygon(np.column_stack([x, y])), 5000)
        there = transform_geom(dataset.crs, "EPSG:4326", shapely.geometry.mapping(ring))
    return shapely.geometry.shape(there)


def hull(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Indices of the points of the convex hull, in order."""
    from scipy.spatial import ConvexHull

    return ConvexHull(np.column_stack([columns, rows])).vertices


def fill(world, source: Path, forms) -> None:
    """Put simulated products into the local archives."""
    for folder in sorted((source / "alos").iterdir()):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, f"{folder.name}/{path.name}")
        url = world.archive.put(f"/RTC_HI_RES/A3/{folder.name}.zip", packed.getvalue(), kind="application/zip")
        text = (folder / f"{folder.name}.iso.xml").read_text()
        day = text.partition("<gml:beginPosition>")[2][:10]
        ground = outline(folder / f"{folder.name}_HH.tif", data_only=True)
        world.granules.append(forms.umm(folder.name, day, ground, url, packed.getvalue()))
    for path in sorted(source.glob("dswe/*/*.TIF")):
        name, data = path.name.removesuffix("_INWAM.TIF"), path.read_bytes()
        date = name.split("_")[3]
        url = world.archive.put(f"/level-3/{path.parent.name}/{path.name}", data, kind="image/tiff")
        day = f"{date[:4]}-{date[4:6]}-{date[6:]}"
        world.items.append(forms.stac_item(name, day, outline(path, data_only=False), url, data))
    for kind, place in LAYERS.items():
        for path in sorted((source / kind).iterdir()):
            world.archive.put(place + path.name, path.read_bytes(), kind="image/tiff")


@pytest.mark.slow
def test_alos_dswe_from_the_archives_to_a_verified_data_set(world, config, forms, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(engine, "run_task", make_shard)
    source, out = tmp_path / "archive", tmp_path / "products"
    simulate_product("alos-dswe", source, seed=3, scenes=6, size=512)
    fill(world, source, forms)
    acquire_alos_dswe(out, aoi="-99,31,-87,33", start="2007-01-01", end="2011-12-31", config=config)
    with open(out / "alos-dswe.csv", newline="") as file:
        rows = {row["granule"]: row for row in csv.DictReader(file)}
    assert len(rows) == 6
    (out / "simulation.json").write_text("{}\n")  # what was simulated says so
    plan = plan_data_set("alos-dswe", out)
    folder = build(plan, builder_module("alos-dswe"), tmp_path / "data")
    assert not verify(folder, deep=True).problems
    assert not audit(folder).failed
    manifest = load_manifest(folder)
    refused = {name: row["reason"] for name, row in rows.items() if row["accepted"] == "no"}
    assert {scene.id for scene in manifest.scenes} == rows.keys() - refused.keys() and not manifest.skipped
    assert "3 from asf" in manifest.provenance and len(refused) == 3

    # the builder, which sees every pixel of the products themselves, refuses the same ones for the same reasons
    (source / "simulation.json").write_text("{}\n")
    with pytest.raises(PartialResultError, match="3 scenes were left out") as caught:
        build(plan_data_set("alos-dswe", source), builder_module("alos-dswe"), tmp_path / "whole")
    for name, reason in refused.items():
        words = reason.partition("will do: ")[2].partition(" ")[2]
        assert f": {words}" in str(caught.value).partition(f"{name} (")[2].partition(");")[0]
    assert all(any(word in reason for reason in refused.values()) for word in ("cloud", "valid", "water"))
